"""Drift while serving: a window of the last sampled rows of every version, compared with its profile from time to time
on a thread of its own."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fuseline.errors import FuselineError
from fuseline.monitor.compare import ALPHA, DriftResult, compare
from fuseline.monitor.recorded import live, read_labels, read_log
from fuseline.monitor.seen import OPEN, kept_stats, records, table
from fuseline.monitor.window import Window

if TYPE_CHECKING:
    from fuseline.serve.calls import Call, Event, ModelInfo

log = logging.getLogger(__name__)

WORST = 12
"""features that status() shows of each model"""
LEFT_OUT = ("warmup", "shadow")
"""rows that no caller was answered with"""


class DriftGauges(Protocol):
    """Who is told of every check: the Prometheus observer."""

    def drift(self, model: str, result: DriftResult) -> None: ...

    def accuracy(self, model: str, value: float) -> None: ...


class DriftWatcher:
    """An observer that knows how far the last rows are from the profile. Its thread ends with :meth:`close`.

    Args:
        gauges: told of every check.
        rows: of the window of each version.
        seconds: between two checks; only where rows came since the last.
        rate: requests a second that carry statistics at most: they cost the decoders a little time.
        alpha: chance of any false alarm in a check.
        ignore: features, statistics or inputs that may drift, e.g. a date.
        labels: a table of later labels, read again when it changes.
        recorded: the recorder's folder that the labels are joined with: gives the live accuracy.
    """

    name = "drift"

    def __init__(
        self,
        gauges: DriftGauges | None = None,
        *,
        rows: int = 2000,
        seconds: float = 30.0,
        rate: float = 20.0,
        alpha: float = ALPHA,
        ignore: Collection[str] = (),
        labels: Path | None = None,
        recorded: Path | None = None,
    ) -> None:
        self.gauges, self.rows, self.seconds, self.rate = gauges, rows, seconds, rate
        self.alpha, self.ignore, self.labels, self.recorded = alpha, tuple(ignore), labels, recorded
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelInfo] = {}
        self._windows: dict[tuple[str, str], deque[dict[str, Any]]] = {}
        self._fresh: dict[tuple[str, str], int] = {}
        self._last: dict[str, tuple[str, str, DriftResult]] = {}
        self._tokens, self._filled = rate, time.monotonic()
        self._labels_read = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fuseline-drift", daemon=True)
        self._thread.start()

    def wants(self, call: Call) -> bool:
        """At most `rate` requests a second."""
        if call.door in LEFT_OUT:
            return False
        now = time.monotonic()
        self._tokens = min(max(1.0, self.rate), self._tokens + (now - self._filled) * self.rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def loaded(self, info: ModelInfo) -> None:
        with self._lock:
            key = (info.name, info.version)
            self._models[key] = info
            self._windows.setdefault(key, deque(maxlen=self.rows))

    def unloaded(self, model: str, version: str) -> None:
        with self._lock:
            for held in (self._models, self._windows, self._fresh):
                held.pop((model, version), None)
            if (last := self._last.get(model)) and last[0] == version:
                del self._last[model]

    def ended(self, event: Event) -> None:
        if not event.rows or event.call.door in LEFT_OUT:
            return
        key = (event.call.model, event.version)
        info = self._models.get(key)
        if info is None:
            return
        found = records(event, info, OPEN)
        with self._lock:
            if key in self._windows:
                self._windows[key].extend(found)
                self._fresh[key] = self._fresh.get(key, 0) + len(found)

    def status(self) -> dict[str, Any]:
        with self._lock:
            last = dict(self._last)
        return {
            "models": {
                model: {
                    "version": version,
                    "rows": result.rows,
                    "checked": checked,
                    "alarm": result.alarm,
                    "features": [
                        {
                            "feature": f.feature,
                            "test": f.test,
                            "score": round(f.score, 5),
                            "threshold": round(f.threshold, 5),
                            "alarm": f.alarm,
                            "words": f.words,
                        }
                        for f in result.findings[:WORST]
                    ],
                    "notes": list(result.notes),
                }
                for model, (version, checked, result) in last.items()
            }
        }

    def check(self) -> None:
        """Compare the windows that have new rows. Of a model's versions the one with the most new rows is shown."""
        with self._lock:
            busiest: dict[str, tuple[str, str]] = {}
            for key, count in self._fresh.items():
                if count and count >= self._fresh.get(busiest.get(key[0], ("", "")), 0):
                    busiest[key[0]] = key
            work = {key: (self._models[key], list(self._windows[key])) for key in busiest.values()}
            self._fresh.clear()
        for (model, version), (info, rows) in work.items():
            profile = info.profile or {}
            window = Window.of(table(rows, kept_stats(profile, OPEN)), profile)
            result = compare(profile, window, alpha=self.alpha, ignore=self.ignore)
            checked = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            with self._lock:
                if (model, version) not in self._models:
                    continue
                before = self._last.get(model)
                self._last[model] = (version, checked, result)
            if self.gauges is not None:
                self.gauges.drift(model, result)
            if result.alarm and not (before and before[2].alarm):
                log.warning("%s drifts: %s", model, "; ".join(f.words for f in result.findings if f.alarm))
        self._accuracy()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _accuracy(self) -> None:
        if self.labels is None or self.recorded is None or self.gauges is None or not self.labels.is_file():
            return
        changed = self.labels.stat().st_mtime
        if changed == self._labels_read:
            return
        self._labels_read = changed
        try:
            labels = read_labels(self.labels)
            for model, version in list(self._models):
                found = live(read_log(self.recorded, version=version).frame, labels)
                if found.accuracy is not None:
                    self.gauges.accuracy(model, found.accuracy)
        except FuselineError as error:
            if error.code != "empty_log":
                log.warning("live accuracy: %s", error)

    def _work(self) -> None:
        while not self._stop.wait(self.seconds):
            try:
                self.check()
            except Exception:  # a check that fails must not end the watch
                log.exception("the drift check failed")
