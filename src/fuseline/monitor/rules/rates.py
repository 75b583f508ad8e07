"""Which requests count as what, as PromQL selectors; the recording rules made of them; and the same for one event.

A failed request is one that the server owes an answer and did not give. The caller's own mistakes, its own rate limit
and its hanging up are no failures, and are left out of the whole as well: a flood of bad requests must not dilute the
failures of good ones. A code that is not known here is a failure.
"""

from __future__ import annotations

from typing import Any

from fuseline.monitor.rules.options import DAY, HOUR, MINUTE, Options, duration

CALLERS = (
    "bad_request",
    "unauthorized",
    "forbidden",
    "unknown_model",
    "unknown_version",
    "not_found",
    "not_allowed",
    "bad_rows",
    "cannot_explain",
    "bad_cell",
    "unknown_column",
    "unsafe_path",
    "too_large",
    "headers_too_large",
    "unsupported_type",
    "rate_limited",
    "cancelled",
)
"""error codes that are the caller's doing"""
FAULTS = ("overloaded", "internal", "not_ready", "draining", "worker_died", "deadline")
"""error codes that are the server's"""
UNWATCHED_DOORS = ("warmup", "shadow")
"""doors whose requests nobody waits for"""

_ASKED = f'door!~"{"|".join(UNWATCHED_DOORS)}",model!="other"'
_CALLERS = "|".join(CALLERS)
REQUESTS = f"fuseline_requests_total{{{_ASKED}}}"
NOT_OK = f'fuseline_requests_total{{{_ASKED},code!="ok"}}'
COUNTED = f'fuseline_requests_total{{{_ASKED},code!~"{_CALLERS}"}}'
FAILED = f'fuseline_requests_total{{{_ASKED},code!~"ok|{_CALLERS}"}}'
TIMED = f"fuseline_request_seconds_count{{{_ASKED}}}"

WINDOWS = (5 * MINUTE, 30 * MINUTE, HOUR, 6 * HOUR, 3 * DAY)
"""of the burn rates"""
LONG_WINDOWS = (HOUR, 6 * HOUR, 3 * DAY)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""upper bounds of fuseline_request_seconds, in seconds: the objectives that Prometheus can tell"""


def quick(options: Options) -> str:
    """Requests within the objective. A server may write the bucket's bound as `1` or as `1.0`."""
    bound = options.objective
    le = f'le=~"{bound:g}|{bound:g}.0"' if bound == int(bound) else f'le="{bound:g}"'
    return f"fuseline_request_seconds_bucket{{{_ASKED},{le}}}"


def total(selector: str, window: str, by: str = "model", how: str = "rate") -> str:
    return f"sum by ({by}) ({how}({selector}[{window}]))"


def share(part: str, whole: str, window: str, by: str = "model") -> str:
    """Part of the whole over a window. A part that never happened has no series, which counts as 0, not as unknown."""
    all_ = total(whole, window, by)
    return f"({total(part, window, by)}\nor 0 * {all_})\n/ {all_}"


def recording_rules(options: Options) -> list[dict[str, Any]]:
    """`model:fuseline_failed:ratio_rateW`, `model:fuseline_slow:ratio_rateW` and how many requests those are of.

    Names carry the unscaled window, so that rules and dashboard read alike at every time scale.
    """
    rules = []
    for seconds in WINDOWS:
        window, name = options.span(seconds), duration(seconds)
        slow = f"1 - {total(quick(options), window)} / {total(TIMED, window)}"
        rules.append({"record": f"model:fuseline_failed:ratio_rate{name}", "expr": share(FAILED, COUNTED, window)})
        rules.append({"record": f"model:fuseline_slow:ratio_rate{name}", "expr": slow})
    for seconds in LONG_WINDOWS:
        window, name = options.span(seconds), duration(seconds)
        for record, whole in (("counted", COUNTED), ("timed", TIMED)):
            expr = total(whole, window, how="increase")
            rules.append({"record": f"model:fuseline_{record}:increase{name}", "expr": expr})
    return rules


def kinds(code: str, seconds: float, options: Options) -> list[str]:
    """What one ended request counts as, locally: the same words as the recording rules."""
    out = ["requests", "timed"]
    if code != "ok":
        out.append("not_ok")
    if code not in CALLERS:
        out += ["counted"] if code == "ok" else ["counted", "failed"]
    if seconds > options.objective:
        out.append("slow")
    return out
