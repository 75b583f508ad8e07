"""The alerts: one visible table. Rules, their unit tests, the docs and the local alerts are all made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fuseline.monitor.rules import rates
from fuseline.monitor.rules.conditions import (
    AbsentShift,
    AccuracyDrop,
    Burn,
    Condition,
    Down,
    Drift,
    NotReady,
    QueueFull,
    Restarts,
    Share,
)
from fuseline.monitor.rules.options import DAY, HOUR, MINUTE

JOB = "fuseline"
"""name of the scrape job"""

Severity = Literal["critical", "warning"]
"""critical: somebody is woken. warning: somebody looks on the next working day."""


@dataclass(frozen=True)
class Alert:
    name: str
    severity: Severity
    area: str
    """a critical alert silences the warnings of the same area and model"""
    condition: Condition
    hold: int
    """seconds that the condition must hold: `for`"""
    summary: str
    description: str
    todo: str
    """what to do: the runbook"""


_SHARE = "{{ $value | humanizePercentage }}"
_ROWS = ("fuseline_rows_total", "rows")

_ERRORS_ADVICE = (
    "Look at the codes on the dashboard. overloaded, deadline: too few workers or a slower model; add workers or "
    "replicas. worker_died, internal: read the server's log by request id; roll back the newest version if it began "
    "with it. not_ready, draining: a rollout without enough replicas."
)
_SLOW_ADVICE = (
    "Compare queue and compute time on the dashboard. Queue grew: too few workers or batches that wait too long. "
    "Compute grew: larger inputs, a heavier version, or too few cores (look at CPU throttling)."
)


def _burns(word: str, area: str, part: str, whole: str, what: str, todo: str) -> tuple[Alert, ...]:
    """The workbook's three pairs of windows: 2 % of a month's budget in an hour, 5 % in six, 10 % in three days."""
    speeds: tuple[tuple[str, Severity, float, int, int], ...] = (
        ("Fast", "critical", 14.4, HOUR, 5 * MINUTE),
        ("Slow", "critical", 6, 6 * HOUR, 30 * MINUTE),
        ("Leak", "warning", 1, 3 * DAY, 6 * HOUR),
    )
    pace = {"Fast": "very fast", "Slow": "fast", "Leak": "steadily"}
    over = {"Fast": "the last hour", "Slow": "the last 6 hours", "Leak": "the last 3 days"}
    return tuple(
        Alert(
            f"Fuseline{word}Budget{speed}",
            severity,
            area,
            Burn(part, whole, factor, long, short),
            0,  # the short window already makes sure that it goes on
            f"{{{{ $labels.model }}}}: the {word.lower()} budget burns {pace[speed]}",
            f"{_SHARE} of the requests of {over[speed]} {what}.",
            todo,
        )
        for speed, severity, factor, long, short in speeds
    )


ALERTS: tuple[Alert, ...] = (
    *_burns("Error", "errors", "failed", "counted", "got no answer through the server's fault", _ERRORS_ADVICE),
    *_burns("Latency", "latency", "slow", "timed", "took longer than the objective", _SLOW_ADVICE),
    Alert(
        "FuselineErrorShare",
        "warning",
        "errors",
        Share((rates.NOT_OK, "not_ok"), (rates.REQUESTS, "requests"), 0.10, 10 * MINUTE),
        10 * MINUTE,
        "{{ $labels.model }}: many requests end with an error",
        f"{_SHARE} of the requests ended with an error, whosever fault.",
        "Look at the codes on the dashboard. bad_rows, bad_request, unsupported_type: a caller sends what the model "
        "does not read; find it by its API key in the log. Else see FuselineErrorBudgetFast.",
    ),
    Alert(
        "FuselineRowErrors",
        "warning",
        "data",
        Share(('fuseline_rows_total{outcome="error"}', "row_errors"), _ROWS, 0.10, 15 * MINUTE),
        5 * MINUTE,
        "{{ $labels.model }}: many rows get an error instead of an answer",
        f"{_SHARE} of the rows got an error, though their requests may have ended with 200.",
        "Send one of the caller's rows to the predict route and read its error: it names the column.",
    ),
    Alert(
        "FuselineDecodeFailures",
        "warning",
        "data",
        Share(("fuseline_decode_errors_total", "decode"), _ROWS, 0.05, 15 * MINUTE, by="column"),
        5 * MINUTE,
        "{{ $labels.model }}: cells of {{ $labels.column }} cannot be read",
        f"{_SHARE} of the rows have a broken cell in {{{{ $labels.column }}}}.",
        "Something upstream changed: a format, an encoding, a truncated upload. Take a failing request's id from the "
        "log and ask its caller for the file.",
    ),
    Alert(
        "FuselineQueueSaturated",
        "warning",
        "queue",
        QueueFull(0.8),
        2 * MINUTE,
        "{{ $labels.model }}: the queue of {{ $labels.instance }} is nearly full",
        f"The queue is {_SHARE} full; at 100 % requests are refused with 429.",
        "Add workers or replicas, or find the caller that sends so much. A longer queue only makes callers wait.",
    ),
    Alert(
        "FuselineWorkerRestarts",
        "warning",
        "workers",
        Restarts(3, 15 * MINUTE),
        0,
        "{{ $labels.instance }}: workers keep dying",
        "{{ $value | humanize }} restarts of workers in 15 minutes; each failed the requests it held.",
        "Read the server's log just before the restarts. Killed by the kernel: give it more memory, or fewer workers. "
        "A crash: find the row that does it by its request id.",
    ),
    Alert(
        "FuselineNotReady",
        "critical",
        "instance",
        NotReady(),
        5 * MINUTE,
        "{{ $labels.model }} is not ready on {{ $labels.instance }}",
        "The model has answered no warm-up prediction for 5 minutes, so that the server gets no traffic for it.",
        "Read the server's log: a package that does not load says why. Put the version before it back.",
    ),
    Alert(
        "FuselineInstanceDown",
        "critical",
        "instance",
        Down(JOB),
        2 * MINUTE,
        "{{ $labels.instance }} is down",
        "Prometheus could not read its metrics for 2 minutes.",
        "See whether the process runs and its port answers /healthz. If it does, the network or a wrong target is at "
        "fault.",
    ),
    Alert(
        "FuselineDrift",
        "warning",
        "model",
        Drift(),
        15 * MINUTE,
        "{{ $labels.model }}: {{ $labels.feature }} has drifted",
        "{{ $labels.feature }} no longer looks as in the training table, after correction for testing many features.",
        "Run `fuseline drift` on the recorded log and read its report. If the world changed, collect labels and train "
        "again; if a device or a pipeline changed, mend that.",
    ),
    Alert(
        "FuselineAbsentShare",
        "warning",
        "model",
        AbsentShift(0.15, HOUR),
        15 * MINUTE,
        "{{ $labels.model }}: {{ $labels.input }} is absent unusually often or seldom",
        f"The absent share of {{{{ $labels.input }}}} is {_SHARE} away from the training table's.",
        "Answers without this input are less certain: the report's degradation table says by how much. Ask who fills "
        "the column what changed.",
    ),
    Alert(
        "FuselineAccuracyDrop",
        "warning",
        "model",
        AccuracyDrop(0.05, 7 * DAY),
        30 * MINUTE,
        "{{ $labels.model }}: live accuracy fell",
        f"Live accuracy is {_SHARE} below its average of 7 days.",
        "Look at drift and at the absent shares first. Then compare with the package's own test metrics, and see "
        "whether the labels that came are of other cases than before.",
    ),
)


def render(text: str, labels: Mapping[str, str], value: str = "") -> str:
    """A text's `{{ $labels.x }}` filled in, and its `{{ $value ... }}` with `value`, as Prometheus would."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: labels.get(m[1], ""), text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", lambda _: value, text)
