"""The kinds of condition an alert may have. Each says itself twice, side by side: as PromQL, and on what a server saw.

The value of a condition is what the alert's text shows: the left operand of its first comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fuseline.monitor.rules import rates
from fuseline.monitor.rules.memory import History
from fuseline.monitor.rules.options import Options, duration

if TYPE_CHECKING:
    from fuseline.serve.calls import Gauge

HERE = "this server"
"""the label `instance` of what a server says about itself"""


@dataclass(frozen=True)
class Finding:
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Seen:
    """What one server knows of itself, now."""

    now: float
    options: Options
    models: Mapping[str, History]
    server: History
    """totals that belong to no model"""
    gauges: Sequence[Gauge] = ()
    drift: Mapping[str, Any] = field(default_factory=dict)
    """the drift observer's `status()["models"]`"""
    reference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """model -> input -> absent share of the training table"""
    accuracy: Mapping[str, float] = field(default_factory=dict)


class Condition(Protocol):
    def promql(self, options: Options) -> str: ...

    def holds(self, seen: Seen) -> Iterator[Finding]: ...


@dataclass(frozen=True)
class Burn:
    """The error budget burns `factor` times too fast, over a long window (so that it matters) and a short one (so that
    it still does): Google, The Site Reliability Workbook (2018), chapter 5, "multiwindow, multi-burn-rate alerts"."""

    part: str
    """failed or slow"""
    whole: str
    """counted or timed"""
    factor: float
    long: int
    short: int
    least: int = 20
    """requests in the long window, below which shares say nothing"""

    def promql(self, options: Options) -> str:
        ratio, long, short = f"model:fuseline_{self.part}:ratio_rate", duration(self.long), duration(self.short)
        above = f"{self.factor:g} * {options.budget:g}"
        return (
            f"{ratio}{long} > {above}\nand\n{ratio}{short} > {above}\n"
            f"and\nmodel:fuseline_{self.whole}:increase{long} >= {self.least}"
        )

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for model, history in seen.models.items():
            asked = history.increase(seen.now, (self.whole,), self.long)
            recent = history.increase(seen.now, (self.whole,), self.short)
            if asked < self.least or not recent:
                continue
            long = history.increase(seen.now, (self.part,), self.long) / asked
            short = history.increase(seen.now, (self.part,), self.short) / recent
            if min(long, short) > self.factor * seen.options.budget:
                yield Finding({"model": model}, long)


@dataclass(frozen=True)
class Share:
    """Part of a whole, over one window, is above a share. `part` and `whole` are (PromQL selector, local word)."""

    part: tuple[str, str]
    whole: tuple[str, str]
    above: float
    window: int
    by: str = ""
    """a label that the part has and the whole has not: one alert for each of its values"""
    least: int = 20

    def promql(self, options: Options) -> str:
        window = options.span(self.window)
        by, match = (f"model, {self.by}", "/ on (model) group_left ()") if self.by else ("model", "/")
        part = rates.total(self.part[0], window, by)
        whole = rates.total(self.whole[0], window)
        asked = rates.total(self.whole[0], window, how="increase")
        return f"{part}\n{match}\n{whole}\n> {self.above:g}\nand on (model)\n{asked} >= {self.least}"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for model, history in seen.models.items():
            whole = history.increase(seen.now, (self.whole[1],), self.window)
            if whole < self.least:
                continue
            for name in history.names(self.part[1]) if self.by else [""]:
                key = (self.part[1], name) if self.by else (self.part[1],)
                value = history.increase(seen.now, key, self.window) / whole
                if value > self.above:
                    yield Finding({"model": model} | ({self.by: name} if self.by else {}), value)


@dataclass(frozen=True)
class AbsentShift:
    """The share of rows without an input is far from the training table's, either way."""

    by: float
    window: int
    least: int = 100
    """rows: the share of 100 rows is known to within 0.05 (one standard error at worst)"""

    def promql(self, options: Options) -> str:
        window, by = options.span(self.window), "model, input"
        absent = rates.share('fuseline_input_rows_total{presence="absent"}', "fuseline_input_rows_total", window, by)
        rows = rates.total("fuseline_input_rows_total", window, by, how="increase")
        reference = f"max by ({by}) (fuseline_reference_absent_share)"
        return f"abs(\n{absent}\n- {reference})\n> {self.by:g}\nand\n{rows} >= {self.least}"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for model, history in seen.models.items():
            for name, reference in seen.reference.get(model, {}).items():
                absent = history.increase(seen.now, ("absent", name), self.window)
                rows = absent + history.increase(seen.now, ("present", name), self.window)
                if rows >= self.least and abs(absent / rows - reference) > self.by:
                    yield Finding({"model": model, "input": name}, abs(absent / rows - reference))


@dataclass(frozen=True)
class QueueFull:
    above: float

    def promql(self, options: Options) -> str:
        return f"fuseline_waiting_rows / fuseline_queue_limit_rows > {self.above:g}"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for gauge in seen.gauges:
            if gauge.waiting_rows / gauge.limit_rows > self.above:
                yield Finding({"model": gauge.model, "instance": HERE}, gauge.waiting_rows / gauge.limit_rows)


@dataclass(frozen=True)
class Restarts:
    least: int
    window: int

    def promql(self, options: Options) -> str:
        # `increase` extrapolates, so that 3 restarts may read as 2.9
        return f"increase(fuseline_worker_restarts_total[{options.span(self.window)}]) > {self.least - 0.5:g}"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        restarts = seen.server.increase(seen.now, ("restarts",), self.window)
        if restarts > self.least - 0.5:
            yield Finding({"instance": HERE}, restarts)


@dataclass(frozen=True)
class NotReady:
    def promql(self, options: Options) -> str:
        return "fuseline_ready == 0"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for gauge in seen.gauges:
            if not gauge.ready:
                yield Finding({"model": gauge.model, "instance": HERE}, 0)


@dataclass(frozen=True)
class Down:
    job: str

    def promql(self, options: Options) -> str:
        return f'up{{job="{self.job}"}} == 0'

    def holds(self, seen: Seen) -> Iterator[Finding]:
        yield from ()  # a server that is down tells nobody: only Prometheus can see this


@dataclass(frozen=True)
class Drift:
    def promql(self, options: Options) -> str:
        return "max by (model, feature) (fuseline_drift_alarm) > 0"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for model, status in seen.drift.items():
            for feature in status.get("features", ()):
                if feature["alarm"]:
                    yield Finding({"model": model, "feature": feature["feature"]}, 1)


@dataclass(frozen=True)
class AccuracyDrop:
    """Live accuracy is below its own average over a long window. Known only where labels came."""

    by: float
    window: int

    def promql(self, options: Options) -> str:
        usual = f"avg_over_time(fuseline_live_accuracy[{options.span(self.window)}])"
        return f"{usual} - fuseline_live_accuracy > {self.by:g}"

    def holds(self, seen: Seen) -> Iterator[Finding]:
        for model, accuracy in seen.accuracy.items():
            if (history := seen.models.get(model)) is None:
                continue
            looks = history.increase(seen.now, ("accuracy_looks",), self.window)
            if (
                looks
                and (drop := history.increase(seen.now, ("accuracy_sum",), self.window) / looks - accuracy) > self.by
            ):
                yield Finding({"model": model, "instance": HERE}, drop)
