from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import watched

from fuseline.monitor.compare import DriftResult
from fuseline.monitor.recorder import Recorder
from fuseline.monitor.watcher import WORST, DriftWatcher


class Told:
    def __init__(self) -> None:
        self.results: list[tuple[str, DriftResult]] = []
        self.accuracies: dict[str, float] = {}

    def drift(self, model: str, result: DriftResult) -> None:
        self.results.append((model, result))

    def accuracy(self, model: str, value: float) -> None:
        self.accuracies[model] = value


def dark(row: dict[str, Any]) -> dict[str, Any]:
    if "picture.brightness" in row["stats"]:
        row["stats"]["picture.brightness"] *= 0.5
    return row


def watcher(profile: dict[str, Any], told: Told, **options: Any) -> DriftWatcher:
    out = DriftWatcher(told, **({"seconds": 3600.0} | options))
    out.loaded(watched.info(profile=profile))
    return out


def test_drift_is_told_and_goes_when_the_window_has_moved_on(profile: dict[str, Any]) -> None:
    told = Told()
    watch = watcher(profile, told, rows=300)
    for event in watched.events(60, seed=1, change=dark):
        watch.ended(event)
    watch.check()
    status = watch.status()["models"]["clinic"]
    json.dumps(status, allow_nan=False)
    assert status["alarm"] is True
    assert status["rows"] == 300
    assert status["features"][0]["feature"] == "picture.brightness"
    assert len(status["features"]) == WORST
    assert status["checked"].endswith("+00:00")
    for event in watched.events(60, seed=2):
        watch.ended(event)
    watch.check()
    assert watch.status()["models"]["clinic"]["alarm"] is False
    assert [r.alarm for _, r in told.results] == [True, False]
    watch.check()
    assert len(told.results) == 2, "without new rows there is nothing to check"
    watch.close()


def test_the_thread_checks_by_itself(profile: dict[str, Any]) -> None:
    told = Told()
    watch = watcher(profile, told, seconds=0.05)
    for event in watched.events(30, seed=1):
        watch.ended(event)
    until = time.monotonic() + 20
    while not told.results and time.monotonic() < until:
        time.sleep(0.02)
    watch.close()
    assert told.results


def test_the_busiest_version_is_shown_and_shadows_are_not_watched(profile: dict[str, Any]) -> None:
    watch = watcher(profile, Told())
    watch.loaded(watched.info("v2", profile=profile))
    rows = [list(e.rows) for e in watched.events(40, seed=3)]
    for i, some in enumerate(rows):
        watch.ended(watched.event(some, version="v2" if i % 3 else "v1"))
        watch.ended(watched.event(some, version="v1", door="shadow"))
        watch.ended(watched.event(some, version="unknown"))
    watch.check()
    assert watch.status()["models"]["clinic"]["version"] == "v2"
    watch.unloaded("clinic", "v2")
    assert watch.status()["models"] == {}
    watch.close()


def test_it_asks_for_a_bounded_number_of_requests(profile: dict[str, Any]) -> None:
    watch = watcher(profile, Told(), rate=5.0)
    call = watched.event([]).call
    assert sum(watch.wants(call) for _ in range(1000)) in range(5, 12)
    assert not watch.wants(watched.event([], door="shadow").call)
    watch.close()


def test_a_check_that_fails_does_not_end_the_watch(profile: dict[str, Any], caplog: Any) -> None:
    told = Told()
    watch = watcher(profile | {"picture.brightness": {"kind": "number", "count": 5}}, told, seconds=0.05)
    for event in watched.events(30, seed=1):
        watch.ended(event)
    until = time.monotonic() + 20
    while "the drift check failed" not in caplog.text and time.monotonic() < until:
        time.sleep(0.02)
    watch.loaded(watched.info("v2", profile=profile))
    for event in watched.events(30, seed=2):
        watch.ended(watched.event(list(event.rows), version="v2"))
    while not told.results and time.monotonic() < until:
        time.sleep(0.02)
    watch.close()
    assert told.results


def test_later_labels_give_the_live_accuracy(tmp_path: Path, profile: dict[str, Any]) -> None:
    recorder = Recorder(tmp_path / "log", share=1.0)
    recorder.loaded(watched.info(profile=profile))
    events = watched.events(10, seed=1)
    for event in events:
        recorder.ended(event)
    recorder.close()
    told, labels = Told(), tmp_path / "labels.csv"
    watch = watcher(profile, told, labels=labels, recorded=tmp_path / "log")
    watch.check()
    assert told.accuracies == {}
    lines = [f"{e.call.id},{j},{r.answer.value if j else 'no way'}" for e in events for j, r in enumerate(e.rows)]
    labels.write_text("\n".join(["request,row,label", *lines]), encoding="utf-8")
    watch.check()
    assert told.accuracies == {"clinic": 0.8}
    labels.write_text("not,labels\n1,2", encoding="utf-8")
    watch.check()
    watch.close()
