"""How long work speaks: notes said aloud, and progress with the time left. Quiet in libraries, rich on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[..., None]
"""advance(steps=1, text="")"""


class Voice(Protocol):
    def say(self, text: str) -> None: ...

    def track(self, title: str, total: int) -> AbstractContextManager[Advance]: ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        yield lambda steps=1, text="": None


class Plain:
    """Lines to standard error: for logs, where a bar cannot be redrawn. At most one progress line in ten seconds."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(steps: int = 1, text: str = "") -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if now - last >= 10 and done:
                last = now
                left = (now - start) / done * max(0, total - done)
                self.say(f"{title} {done}/{total}{' · ' + text if text else ''} · about {clock(left)} left")

        yield advance


class Rich:
    """A live bar on a terminal."""

    def say(self, text: str) -> None:
        from rich.console import Console

        Console(stderr=True, highlight=False).print(text, markup=False)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, text="")

            def advance(steps: int = 1, text: str = "") -> None:
                if text:
                    bar.update(task, text=text)
                bar.advance(task, steps)

            yield advance


def voice(kind: str = "auto") -> Voice:
    """auto: a live bar where standard error is a terminal, plain lines elsewhere; quiet: nothing."""
    if kind == "quiet":
        return Silent()
    return Rich() if sys.stderr.isatty() else Plain()


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
