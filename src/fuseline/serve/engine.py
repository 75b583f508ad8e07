"""What computes: in this process (`Local`), or in worker processes (:mod:`fuseline.serve.workers`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

from fuseline.errors import FuselineError
from fuseline.explain import Explanation, Options
from fuseline.runtime import load
from fuseline.runtime.backend import cpu_quota
from fuseline.serve.calls import ModelInfo, Row, Wish
from fuseline.serve.describe import describe
from fuseline.serve.scorer import Scored, Scorer
from fuseline.serve.settings import Settings

Key = tuple[str, str]
"""(name served as, version)"""


class Engine(Protocol):
    async def load(self, path: Path, name: str | None = None) -> ModelInfo:
        """Open, verify and warm up a package. It answers once this returns. Raises FuselineError."""
        ...

    async def unload(self, key: Key) -> None: ...

    async def score(self, key: Key, rows: Sequence[Row], *, deadline: float, seen: bool) -> Scored:
        """Answer rows. Cancelling this call takes back what has not run. Raises FuselineError ``deadline``,
        ``worker_died`` or ``not_ready``."""
        ...

    def stream(
        self, key: Key, row: Row, wish: Wish, *, deadline: float, seen: bool
    ) -> AsyncGenerator[str | Scored, None]:
        """Write one row's text: its pieces, and at last what `score` would give. Closing it ends the writing. Raises as
        `score` does, and what is wrong with the row."""
        ...

    async def explain(self, key: Key, rows: Sequence[Row], options: Options, *, deadline: float) -> list[Explanation]:
        """Explain rows. Raises as `score` does, ``too_large`` and ``unknown_column``."""
        ...

    def has(self, key: Key) -> bool:
        """Whether it could answer now."""
        ...

    @property
    def workers(self) -> int: ...

    lanes: int
    """batches that run at the same time, over all workers"""

    @property
    def restarts(self) -> int: ...

    async def close(self) -> None: ...


class Local:
    """Computes in this process, on the running event loop's threads."""

    def __init__(self, settings: Settings, threads: int | None = None, cores: int | None = None) -> None:
        """`threads` of one batch, out of `cores`: what is left over runs other batches at the same time."""
        self.settings = settings
        self.cores = cores or cpu_quota()
        self.threads = threads or settings.threads or self.cores
        self.lanes = max(1, self.cores // self.threads)
        self._scorers: dict[Key, Scorer] = {}

    async def load(self, path: Path, name: str | None = None) -> ModelInfo:
        predictor = await asyncio.to_thread(load, path, threads=self.threads, lanes=self.lanes)
        info = describe(predictor, name)
        scorer = Scorer(predictor, self.settings, self.cores, self.lanes)
        await scorer.warm_up()
        old = self._scorers.get((info.name, info.version))
        self._scorers[info.name, info.version] = scorer
        if old is not None:
            await old.close()
        return info

    async def unload(self, key: Key) -> None:
        scorer = self._scorers.pop(key, None)
        if scorer is not None:
            await scorer.close()

    async def score(self, key: Key, rows: Sequence[Row], *, deadline: float, seen: bool) -> Scored:
        return await self._scorer(key).score(rows, deadline=deadline, seen=seen)

    def stream(
        self, key: Key, row: Row, wish: Wish, *, deadline: float, seen: bool
    ) -> AsyncGenerator[str | Scored, None]:
        return self._scorer(key).stream(row, wish, deadline=deadline, seen=seen)

    async def explain(self, key: Key, rows: Sequence[Row], options: Options, *, deadline: float) -> list[Explanation]:
        return await self._scorer(key).explain(rows, options, deadline=deadline)

    def _scorer(self, key: Key) -> Scorer:
        scorer = self._scorers.get(key)
        if scorer is None:
            raise FuselineError("not_ready", f"{key[0]} version {key[1]} is not loaded", "retry in a moment")
        return scorer

    def has(self, key: Key) -> bool:
        return key in self._scorers

    @property
    def workers(self) -> int:
        return 1

    @property
    def restarts(self) -> int:
        return 0

    async def close(self) -> None:
        for key in list(self._scorers):
            await self.unload(key)
