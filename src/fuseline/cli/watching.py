"""The observers that the command line hands to the server: `serve` and `monitor` do not know each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseline.errors import FuselineError

if TYPE_CHECKING:
    from fuseline.monitor.metrics import Metrics
    from fuseline.serve.calls import Gauge, Observer


@dataclass(frozen=True)
class Watched:
    """What watches a server, by the names under which the console knows it."""

    observers: dict[str, Observer]
    registry: Metrics
    gauges: list[Gauge] = field(default_factory=list)
    """the server's state when it last told"""

    def update(self, gauges: Sequence[Gauge]) -> None:
        """The server's state of this moment."""
        self.gauges[:] = gauges
        self.registry.update(gauges)

    def metrics(self) -> tuple[bytes, str]:
        return self.registry.render()


@contextmanager
def watch(
    *,
    objective_ms: float,
    record: Path | None,
    record_share: float,
    record_mb: float,
    redact: Sequence[str],
    labels: Path | None,
    drift: bool,
    drift_ignore: Sequence[str],
    json_logs: bool,
    traces: bool,
) -> Iterator[Watched]:
    """Observers as the options of `fuseline serve` want them; closed, and their files written, at the end.

    Raises FuselineError ``bad_request`` on options that need each other, ``bad_folder`` for the log.
    """
    if labels is not None and (record is None or not drift):
        raise FuselineError("bad_request", "--labels needs the log that it is joined with", "add --record FOLDER")
    from fuseline.monitor.alerts import Alerts
    from fuseline.monitor.logs import JsonFormatter, RequestLog
    from fuseline.monitor.metrics import Metrics
    from fuseline.monitor.recorder import Recorder
    from fuseline.monitor.rules.options import Options
    from fuseline.monitor.seen import Redaction
    from fuseline.monitor.watcher import DriftWatcher

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if json_logs else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if json_logs:
        logging.getLogger("fuseline").setLevel(logging.INFO)
    else:  # a line a refused request says nothing to a person; the page and the metrics count them
        logging.getLogger("fuseline.requests").setLevel(logging.ERROR)
    registry = Metrics()
    observers: dict[str, Any] = {"metrics": registry, "requests": RequestLog()}
    closing: list[Any] = []
    if record is not None:
        kinds = {kind: kind in redact for kind in ("texts", "labels", "embeddings")}
        redaction = Redaction(drop=frozenset(redact) - set(kinds), **kinds)
        observers["recorder"] = Recorder(record, share=record_share, megabytes=record_mb, redaction=redaction)
        closing.append(observers["recorder"])
    if drift:
        observers["drift"] = DriftWatcher(registry, rate=5, ignore=drift_ignore, labels=labels, recorded=record)
        closing.append(observers["drift"])
    gauges: list[Gauge] = []
    observers["alerts"] = Alerts(
        Options(objective_ms=objective_ms),
        gauges=lambda: gauges,
        drift=observers["drift"].status if drift else None,
        accuracy=lambda: {s.labels["model"]: s.value for f in registry.live_accuracy.collect() for s in f.samples},
    )
    if traces:
        from fuseline.monitor.traces import Traces

        observers["traces"] = Traces()
    try:
        yield Watched(observers, registry, gauges)
    finally:
        for observer in closing:
            observer.close()
