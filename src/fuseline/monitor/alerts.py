"""The alerts of the table, evaluated by a server on itself: the console shows them where no Prometheus runs.

The same thresholds and windows as the rules, on what this one process saw since it started: so a window that is longer
than its life holds what there is, other replicas are not seen, and a server that is down says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fuseline.monitor.rules.conditions import Seen
from fuseline.monitor.rules.memory import History
from fuseline.monitor.rules.options import Options
from fuseline.monitor.rules.rates import UNWATCHED_DOORS, kinds
from fuseline.monitor.rules.table import ALERTS, Alert, render
from fuseline.monitor.seen import broken_inputs

if TYPE_CHECKING:
    from fuseline.runtime import Answer
    from fuseline.serve.calls import Call, Event, Gauge, ModelInfo

EVERY = 2.0
"""seconds between two evaluations at most"""
MOST = 50
"""alerts shown"""


class Alerts:
    """An observer whose `status()` lists the alerts that fire.

    Args:
        options: the objectives, as `fuseline monitor init` takes them.
        gauges: the core's state, for queue, readiness and restarts. May be set later, once there is a core.
        drift: the drift observer's `status`.
        accuracy: model -> live accuracy, where labels came.
        clock: unix seconds.
    """

    name = "alerts"

    def __init__(
        self,
        options: Options | None = None,
        *,
        gauges: Callable[[], Sequence[Gauge]] | None = None,
        drift: Callable[[], Mapping[str, Any]] | None = None,
        accuracy: Callable[[], Mapping[str, float]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or Options()
        self.gauges, self.drift, self.accuracy, self._clock = gauges, drift, accuracy, clock
        self._infos: dict[str, dict[str, ModelInfo]] = {}
        self._models: dict[str, History] = {}
        self._server = History(clock())
        self._restarts = 0
        self._since: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._firing: list[dict[str, Any]] = []
        self._looked = float("-inf")

    def wants(self, call: Call) -> bool:
        return False

    def loaded(self, info: ModelInfo) -> None:
        self._infos.setdefault(info.name, {})[info.version] = info
        self._models.setdefault(info.name, History(self._clock()))

    def unloaded(self, model: str, version: str) -> None:
        versions = self._infos.get(model, {})
        versions.pop(version, None)
        if not versions:
            self._infos.pop(model, None)
            self._models.pop(model, None)

    def ended(self, event: Event) -> None:
        history = self._models.get(event.call.model)
        if history is None or event.call.door in UNWATCHED_DOORS:
            return
        now = self._clock()
        for kind in kinds(event.code, event.seconds, self.options):
            history.add(now, (kind,))
        info = self._infos[event.call.model].get(event.version)
        if info is not None:
            for answer in event.reply.answers if event.reply is not None else [row.answer for row in event.rows]:
                _count(history, now, answer, info)
        if now - self._looked >= EVERY:  # so that conditions age though nobody looks at the page
            self._look(now)

    def status(self) -> dict[str, Any]:
        now = self._clock()
        if now - self._looked >= EVERY:
            self._look(now)
        return {"alerts": self._firing}

    def _look(self, now: float) -> None:
        seen = self._see(now)
        since: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        firing = []
        for alert in ALERTS:
            for finding in alert.condition.holds(seen):
                key = (alert.name, tuple(sorted(finding.labels.items())))
                since[key] = self._since.get(key, now)
                if now - since[key] >= alert.hold:
                    firing.append(_told(alert, finding.labels, since[key]))
        self._since, self._looked = since, now
        self._firing = sorted(firing, key=lambda a: (a["severity"] != "critical", a["since"]))[:MOST]

    def _see(self, now: float) -> Seen:
        gauges = self.gauges() if self.gauges is not None else ()
        restarts = max((g.restarts for g in gauges), default=0)
        if restarts > self._restarts:
            self._server.add(now, ("restarts",), restarts - self._restarts)
        self._restarts = restarts
        accuracy = self.accuracy() if self.accuracy is not None else {}
        for model, value in accuracy.items():
            if (history := self._models.get(model)) is not None:
                history.add(now, ("accuracy_sum",), value)
                history.add(now, ("accuracy_looks",))
        return Seen(
            now=now,
            options=self.options,
            models=self._models,
            server=self._server,
            gauges=gauges,
            drift=self.drift().get("models", {}) if self.drift is not None else {},
            reference={name: _reference(versions) for name, versions in self._infos.items()},
            accuracy=accuracy,
        )


def _count(history: History, now: float, answer: Answer, info: ModelInfo) -> None:
    """As the Prometheus observer counts a row."""
    history.add(now, ("rows",))
    if answer.error is not None:
        history.add(now, ("row_errors",))
        if (column := answer.error.column) is not None:
            known = any(c.name == column for c in info.columns)
            history.add(now, ("decode", column if known else "other"))
        return
    for name in broken_inputs(answer):
        columns = [c.name for c in info.columns if c.input == name]
        history.add(now, ("decode", columns[0] if len(columns) == 1 else name))
    for presence, names in (("present", answer.used), ("absent", answer.absent)):
        for name in names:
            history.add(now, (presence, name))


def _reference(versions: Mapping[str, ModelInfo]) -> dict[str, float]:
    """Input -> absent share of the training table, of the version loaded last."""
    info = list(versions.values())[-1]
    profile = info.profile or {}
    entries = {name: profile.get(name) for name in info.inputs}
    return {n: e["absent"] / e["rows"] for n, e in entries.items() if isinstance(e, Mapping) and e.get("rows")}


def _told(alert: Alert, labels: Mapping[str, str], since: float) -> dict[str, Any]:
    return {
        "name": alert.name,
        "severity": alert.severity,
        "model": labels.get("model", ""),
        "summary": render(alert.summary, labels),
        "since": datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds"),
    }
