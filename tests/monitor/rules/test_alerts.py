"""The local alerts: the table's thresholds on what one server saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fuseline.errors import FuselineError
from fuseline.monitor.alerts import EVERY, MOST, Alerts
from fuseline.monitor.rules import Options
from fuseline.monitor.rules.memory import History, Snapshots
from fuseline.runtime import Answer
from fuseline.serve.calls import Call, ColumnInfo, Event, Gauge, ModelInfo, Reply, RowSeen

MINUTE, HOUR = 60.0, 3600.0


def info(version: str = "v", profile: dict[str, Any] | None = None, name: str = "m") -> ModelInfo:
    return ModelInfo(
        name=name,
        version=version,
        task="classification",
        mode="binary",
        classes=("no", "yes"),
        targets=("sick",),
        inputs={"scan": "image", "note": "text"},
        columns=(ColumnInfo("scan", "image", "scan"), ColumnInfo("note", "text", "note")),
        bytes=1,
        fuseline="0",
        profile=profile or {"note": {"kind": "input", "rows": 100, "absent": 10}},
    )


OK = Answer("yes", {"yes": 1.0}, used=("scan", "note"))
NO_NOTE = Answer("yes", {"yes": 1.0}, used=("scan",), absent=("note",))
BAD_SCAN = Answer(error=FuselineError("bad_cell", "not a picture", column="scan"))
BAD_ROW = Answer(error=FuselineError("bad_rows", "a row is a mapping"))
BORNE = Answer("yes", {"yes": 1.0}, used=("note",), absent=("scan",), notes=["scan taken as absent: not a picture"])


@dataclass
class Bench:
    """A server's clock, its state, and its alerts."""

    now: float = 1_700_000_000.0
    gauge: Gauge = field(default_factory=lambda: Gauge("m", 0, 256, {"v": 1.0}, True, 2, 0))
    drifting: dict[str, Any] = field(default_factory=dict)
    right: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alerts = Alerts(
            Options(),
            gauges=lambda: [self.gauge],
            drift=lambda: {"models": self.drifting},
            accuracy=lambda: self.right,
            clock=lambda: self.now,
        )
        self.alerts.loaded(info())

    def event(
        self,
        code: str = "ok",
        seconds: float = 0.01,
        answers: tuple[Answer, ...] = (OK,),
        model: str = "m",
        door: Any = "rest",
    ) -> None:
        reply = Reply(model, "v", "r", answers, 0.0, 0.0) if code == "ok" else None
        self.alerts.ended(Event(Call(model, [{}], "r", door=door), code, seconds, reply, (), "v"))

    def run(self, seconds: float, events: list[dict[str, Any]], step: float = 1.0) -> set[str]:
        """All `events` every `step`; the names of what fires in the end."""
        for _ in range(int(seconds / step)):
            for event in events:
                self.event(**event)
            self.now += step
        return self.firing()

    def firing(self) -> set[str]:
        self.now += EVERY
        return {alert["name"] for alert in self.alerts.status()["alerts"]}

    def hold(self, seconds: float) -> set[str]:
        """Nothing happens but the console's polls."""
        for _ in range(int(seconds / 10)):
            self.now += 10
            self.alerts.status()
        return self.firing()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def mix(bad: dict[str, Any], of: int, times: int = 1) -> list[dict[str, Any]]:
    return [bad] * times + [{}] * (of - times)


def test_a_healthy_server_has_none(bench: Bench) -> None:
    assert bench.run(2 * HOUR, [{}], 5) == set()


@pytest.mark.parametrize(
    ("bad", "word"),
    [({"code": "internal"}, "Error"), ({"code": "a new code"}, "Error"), ({"seconds": 2.0}, "Latency")],
)
def test_the_budgets_burn_by_speed(bad: dict[str, Any], word: str) -> None:
    def budgets(percent: int, of: int) -> set[str]:
        firing = Bench().run(40 * MINUTE, mix(bad, of, percent), 30)
        return {name.removeprefix(f"Fuseline{word}Budget") for name in firing if "Budget" in name}

    assert budgets(8, 100) == {"Fast", "Slow", "Leak"}
    assert budgets(7, 100) == {"Slow", "Leak"}
    assert budgets(2, 100) == {"Leak"}
    assert budgets(1, 250) == set()


def test_a_burn_ends_soon_after_it_is_mended(bench: Bench) -> None:
    assert "FuselineErrorBudgetFast" in bench.run(10 * MINUTE, mix({"code": "internal"}, 5), 5)
    assert "FuselineErrorBudgetFast" not in bench.run(6 * MINUTE, [{}], 5)  # the short window has forgotten


def test_few_requests_say_nothing(bench: Bench) -> None:
    assert bench.run(19, [{"code": "internal"}]) == set()
    assert "FuselineErrorBudgetFast" in bench.run(2, [{"code": "internal"}])


@pytest.mark.parametrize("code", ["bad_rows", "cancelled", "rate_limited", "unauthorized"])
def test_the_callers_mistakes_spend_no_budget(bench: Bench, code: str) -> None:
    assert bench.run(HOUR, mix({"code": code}, 2), 5) == {"FuselineErrorShare"}


def test_mistakes_of_others_do_not_dilute_a_failure(bench: Bench) -> None:
    firing = bench.run(10 * MINUTE, [{"code": "bad_rows"}] * 20 + [{"code": "internal"}, {}], 5)
    assert "FuselineErrorBudgetFast" in firing


@pytest.mark.parametrize("event", [{"model": "no-such"}, {"door": "warmup"}, {"door": "shadow"}])
def test_what_nobody_waits_for_is_not_watched(bench: Bench, event: dict[str, Any]) -> None:
    assert bench.run(HOUR, [{"code": "internal", **event}], 5) == set()


@pytest.mark.parametrize(
    ("answer", "share", "fires"),
    [
        (BAD_ROW, 15, {"FuselineRowErrors"}),
        (BAD_ROW, 8, set()),
        (BAD_SCAN, 8, {"FuselineDecodeFailures"}),
        (BAD_SCAN, 15, {"FuselineRowErrors", "FuselineDecodeFailures"}),
        (BAD_SCAN, 4, set()),
        (BORNE, 8, {"FuselineDecodeFailures"}),
    ],
)
def test_rows_that_cannot_be_read(bench: Bench, answer: Answer, share: int, fires: set[str]) -> None:
    answers = (answer,) * share + (OK,) * (90 - share) + (NO_NOTE,) * 10
    assert bench.run(20 * MINUTE, [{"answers": answers}], 30) == fires


def test_the_summary_names_the_column(bench: Bench) -> None:
    bench.run(20 * MINUTE, [{"answers": (BAD_SCAN,) + (OK,) * 12 + (NO_NOTE,) * 3}], 30)
    [alert] = bench.alerts.status()["alerts"]
    assert alert["summary"] == "m: cells of scan cannot be read"
    assert alert["severity"] == "warning"
    assert alert["model"] == "m"
    assert alert["since"].startswith("2023-11-1")


def test_columns_that_callers_invent_take_no_memory(bench: Bench) -> None:
    for i in range(500):
        bench.event(answers=(Answer(error=FuselineError("unknown_column", "no", column=f"c{i}")),))
    assert bench.alerts._models["m"].names("decode") == ["other"]


@pytest.mark.parametrize(
    ("reference", "absent", "fires"),
    [(20, 2, set()), (20, 3, set()), (20, 4, {"FuselineAbsentShare"}), (20, 0, {"FuselineAbsentShare"}), (0, 1, set())],
)
def test_absent_share_against_the_profile(bench: Bench, reference: int, absent: int, fires: set[str]) -> None:
    bench.alerts.loaded(info(profile={"note": {"kind": "input", "rows": 100, "absent": reference}}))
    answers = (NO_NOTE,) * absent + (OK,) * (10 - absent)
    assert bench.run(25 * MINUTE, [{"answers": answers}], 30) == fires


def test_a_full_queue_after_its_wait(bench: Bench) -> None:
    bench.gauge = Gauge("m", 240, 256, {"v": 1.0}, True, 2, 0)
    assert bench.hold(100) == set()
    assert bench.hold(30) == {"FuselineQueueSaturated"}
    bench.gauge = Gauge("m", 200, 256, {"v": 1.0}, True, 2, 0)
    assert bench.firing() == set()


def test_not_ready(bench: Bench) -> None:
    bench.gauge = Gauge("m", 0, 256, {"v": 1.0}, False, 2, 0)
    assert bench.hold(4 * MINUTE) == set()
    assert bench.hold(2 * MINUTE) == {"FuselineNotReady"}


def test_restarts(bench: Bench) -> None:
    for restarts in (0, 1, 2):
        bench.gauge = Gauge("m", 0, 256, {"v": 1.0}, True, 2, restarts)
        assert bench.hold(MINUTE) == set()
    bench.gauge = Gauge("m", 0, 256, {"v": 1.0}, True, 2, 3)
    assert bench.firing() == {"FuselineWorkerRestarts"}
    assert bench.hold(20 * MINUTE) == set()


def test_drift(bench: Bench) -> None:
    bench.drifting = {"m": {"features": [{"feature": "age", "alarm": True}, {"feature": "note", "alarm": False}]}}
    assert bench.hold(14 * MINUTE) == set()
    assert bench.hold(2 * MINUTE) == {"FuselineDrift"}
    assert bench.alerts.status()["alerts"][0]["summary"] == "m: age has drifted"


def test_accuracy(bench: Bench) -> None:
    bench.right = {"m": 0.9, "unloaded": 0.1}
    assert bench.hold(HOUR) == set()
    bench.right = {"m": 0.7}
    assert bench.hold(20 * MINUTE) == set()
    assert bench.hold(15 * MINUTE) == {"FuselineAccuracyDrop"}
    bench.right = {"m": 0.88}
    assert bench.firing() == set()


def test_critical_ones_come_first_and_the_list_is_bounded(bench: Bench) -> None:
    bench.drifting = {"m": {"features": [{"feature": f"f{i}", "alarm": True} for i in range(2 * MOST)]}}
    bench.hold(20 * MINUTE)
    bench.gauge = Gauge("m", 0, 256, {"v": 1.0}, False, 2, 0)
    bench.hold(6 * MINUTE)
    alerts = bench.alerts.status()["alerts"]
    assert len(alerts) == MOST
    assert alerts[0]["name"] == "FuselineNotReady"


def test_an_unloaded_model_is_forgotten(bench: Bench) -> None:
    bench.run(20 * MINUTE, [{"code": "internal"}], 5)
    assert "FuselineErrorBudgetFast" in bench.firing()
    bench.alerts.loaded(info("w"))
    bench.alerts.unloaded("m", "v")
    assert "FuselineErrorBudgetFast" in bench.firing()
    bench.alerts.unloaded("m", "w")
    assert bench.firing() == set()
    bench.event()  # a late end of a request to it
    bench.alerts.unloaded("m", "w")


def test_it_needs_no_sources() -> None:
    alerts = Alerts()
    alerts.loaded(info())
    assert alerts.status() == {"alerts": []}
    assert not alerts.wants(Call("m", [], "r"))


def test_rows_of_a_refused_request_that_was_decoded_count(bench: Bench) -> None:
    event = Event(Call("m", [{}], "r"), "bad_cell", 0.01, None, (RowSeen(BAD_SCAN),) * 30, "v")
    for _ in range(80):
        bench.now += 10
        bench.alerts.ended(event)
    assert bench.firing() >= {"FuselineRowErrors", "FuselineDecodeFailures"}


def test_increase_over_a_window_forgets_what_was_before() -> None:
    history = History(0)
    for now in range(0, 7200, 10):
        history.add(now, ("rows",), 1 if now < 3600 else 3)
    assert history.increase(7200, ("rows",), HOUR) == pytest.approx(360 * 3, abs=2 * 3)
    assert history.increase(7200, ("rows",), 6 * HOUR) == 360 * 4
    assert history.increase(7200 + 6 * MINUTE, ("rows",), 5 * MINUTE) == 0  # though nothing was added since
    assert history.increase(1e9, ("nothing",), HOUR) == 0


def test_snapshots_are_bounded() -> None:
    kept = Snapshots(15, 3600, 0)
    totals: dict[tuple[str, ...], float] = {("rows",): 0.0}
    for now in range(0, 100_000):
        totals["rows",] += 1
        kept.take(now, now, totals)
    assert len(kept._times) <= 3600 / 15 + 2
    assert kept.before(99_999 - 3600)["rows",] == pytest.approx(96_400, abs=15)
