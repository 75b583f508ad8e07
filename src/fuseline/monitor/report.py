"""The drift report: one HTML file without script or network, made with the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from fuseline.monitor import charts, reference
from fuseline.monitor.charts import say
from fuseline.monitor.compare import DriftResult, Finding
from fuseline.monitor.recorded import Live
from fuseline.monitor.window import Window
from fuseline.package.files import write_text

TESTS = {"ks": "KS", "chi2": "chi-square", "share": "Fisher", "mmd": "MMD"}
_PAGE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Subject:
    """What the report is about."""

    name: str
    version: str
    notes: tuple[str, ...] = ()
    """what reading the log had to say"""
    live: Live | None = None
    expected: float | None = None
    """the package's own accuracy on its test rows"""


def write_report(path: Path, subject: Subject, profile: Mapping[str, Any], window: Window, result: DriftResult) -> None:
    """Write the page."""
    write_text(path, render(subject, profile, window, result))


def render(subject: Subject, profile: Mapping[str, Any], window: Window, result: DriftResult) -> str:
    by_feature = {f.feature: f for f in result.findings}
    alarms = [f for f in result.findings if f.alarm]
    verdict = "Drift found" if alarms else "No drift found" if result.findings else "Not checked"
    fields = {
        "name": say(subject.name),
        "state": "bad" if alarms else "good",
        "verdict": verdict,
        "count": f"{len(alarms)} of {len(result.findings)} checks alarm",
        "worst": "".join(f"<li>{say(_sentence(f))}</li>" for f in alarms[:8]),
        "facts": _facts(subject, result),
        "notes": "".join(f"<li>{say(n, 400)}</li>" for n in (*subject.notes, *result.notes)),
        "absent": _absent(profile, window, by_feature),
        "answers": _answers(profile, window, by_feature),
        "inputs": _inputs(profile, window, by_feature, result),
        "embedding": _embedding(profile, window, by_feature),
        "rows": "".join(_row(f) for f in result.findings),
        "alpha": f"{result.alpha:.2%}",
    }
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(fields)


def _sentence(finding: Finding) -> str:
    return finding.words if finding.test == "share" else f"{finding.feature}: {finding.words}"


def _facts(subject: Subject, result: DriftResult) -> str:
    facts = [("rows compared", f"{result.rows:,}"), ("from", _time(result.since)), ("to", _time(result.until))]
    facts += [("package version", subject.version)]
    live = subject.live
    if live is not None and live.accuracy is not None:
        was = "" if subject.expected is None else f", {subject.expected:.1%} when tested"
        facts.append(
            ("live accuracy", f"{live.accuracy:.1%} ({live.low:.1%} to {live.high:.1%}, {live.rows} labels{was})")
        )
    if live is not None and live.error is not None:
        facts.append(("live mean absolute error", f"{live.error:.4g} ({live.rows} labels)"))
    return "".join(f"<div><dt>{say(k)}</dt><dd>{say(v) or '–'}</dd></div>" for k, v in facts)


def _time(moment: str) -> str:
    return moment[:16].replace("T", " ") + " UTC" if moment else ""


def _figure(title: str, finding: Finding | None, picture: str) -> str:
    state = ' <b class="tag">drift</b>' if finding is not None and finding.alarm else ""
    words = "" if finding is None else f"<p>{say(finding.words)}</p>"
    return f"<figure><figcaption>{say(title)}{state}</figcaption>{words}{picture}</figure>"


def _absent(profile: Mapping[str, Any], window: Window, found: Mapping[str, Finding]) -> str:
    names = [k for k, v in profile.items() if v.get("kind") == "input" and k in window.absent and v["rows"]]
    names += [k for k in window.absent if k not in names and (f := found.get(f"{k} absent")) is not None and f.alarm]
    if not names or not window.read:
        return "<p>No row could be read.</p>"
    base = {k: profile[k].get("rows") or profile[k.split(".")[0]]["rows"] for k in names}
    was = np.array([profile[k]["absent"] / base[k] for k in names])
    being = np.array([window.absent[k] / window.read for k in names])
    return charts.bars(names, was, being)


def _answers(profile: Mapping[str, Any], window: Window, found: Mapping[str, Finding]) -> str:
    entry = profile.get("predictions", {})
    if entry.get("kind") != "predictions":
        return "<p>The package's profile holds no predictions.</p>"
    out = []
    known = reference.labels(entry)
    if known is not None and window.labels:
        out.append(_figure("label", found.get("predictions label"), _shares(known, window.labels)))
    for key, values in (("confidence", window.confidence), ("value", window.values)):
        numbers = reference.numbers(entry.get(key))
        if numbers is not None and len(values):
            out.append(_figure(key, found.get(f"predictions {key}"), charts.histogram(numbers, values)))
    return f'<div class="plots">{"".join(out)}</div>'


def _shares(known: reference.Categories, now: Mapping[str, int]) -> str:
    names, was_K, being_K = known.table(now)
    if not was_K[-1] and not being_K[-1]:
        names, was_K, being_K = names[:-1], was_K[:-1], being_K[:-1]
    return charts.bars(names, was_K / max(1.0, was_K.sum()), being_K / max(1.0, being_K.sum()))


def _inputs(profile: Mapping[str, Any], window: Window, found: Mapping[str, Finding], result: DriftResult) -> str:
    """Every statistic that was tested, worst first."""
    order = {f.feature: place for place, f in enumerate(result.findings)}
    out = []
    for key in sorted((k for k in (*window.numbers, *window.texts) if k in order), key=lambda k: order[k]):
        if key in window.numbers:
            known = reference.numbers(profile[key])
            if known is not None and len(known.at) == 2 and not found[key].alarm:
                continue  # always the one value, then and now
            picture = "" if known is None else charts.histogram(known, window.numbers[key])
        else:
            shares = reference.categories(profile[key])
            picture = "" if shares is None else _shares(shares, window.texts[key])
        out.append(_figure(key, found.get(key), picture))
    return "".join(out) or "<p>No statistic of an input was tested.</p>"


def _embedding(profile: Mapping[str, Any], window: Window, found: Mapping[str, Finding]) -> str:
    sample_ND, finding = reference.embedding(profile.get("embedding")), found.get("embedding")
    if finding is None or sample_ND is None or window.embedding_ND is None:
        return "<p>Not checked.</p>"
    return (
        '<div class="plots">'
        + _figure("distance of the two samples", finding, charts.gauge(finding.score, finding.threshold))
        + _figure("where the rows lie", None, charts.plane(sample_ND, window.embedding_ND))
        + "</div>"
    )


def _row(f: Finding) -> str:
    state = '<b class="tag">drift</b>' if f.alarm else ""
    psi = "" if f.psi is None else f"{f.psi:.3f}"
    return (
        f"<tr{' class=alarm' if f.alarm else ''}><th>{say(f.feature)} {state}</th><td class=n>{TESTS[f.test]}</td>"
        f"<td class=n>{f.score:.3g}</td><td class=n>{psi}</td><td class=n>{f.adjusted:.2g}</td>"
        f"<td class=n>{f.rows:,}</td><td class=long>{say(f.words)}</td></tr>"
    )
