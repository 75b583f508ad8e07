"""Do recent rows look like those that the model was made from? Every part of the profile gets its test; an alarm needs
both: a difference that chance does not explain, corrected for the number of tests, and one large enough to matter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fuseline.monitor import drift, reference
from fuseline.monitor.window import Window

ALPHA = 0.001
"""chance of any false alarm in one check, over all features together: a server checks about a thousand times a day"""
EMBEDDING_PART = 0.2
"""share of ALPHA that the embedding has for itself: its p-value costs shuffles, so it may not grow with the features"""
MIN_ROWS = 50
MIN_VALUES = 30
PSI_FLOOR = 0.1
"""what the field calls a moderate shift"""
SHARE_FLOOR = 0.05
"""difference of two shares of rows: absent inputs, broken cells"""


@dataclass(frozen=True)
class Finding:
    """One feature's test."""

    feature: str
    """`input.statistic`, `input absent`, `column broken`, `predictions label`, `predictions confidence`, `embedding`"""
    test: str
    """ks, chi2, share or mmd"""
    score: float
    """ks: distance; chi2: PSI beyond chance; share: difference of the shares; mmd: squared discrepancy"""
    threshold: float
    """the score that this test has to reach, next to the p-value"""
    p: float
    adjusted: float
    """p after the correction for all tests of this check"""
    rows: int
    alarm: bool
    words: str
    """what changed, for a person"""
    psi: float | None = None
    """population stability index beyond chance"""


@dataclass(frozen=True)
class DriftResult:
    rows: int
    findings: tuple[Finding, ...]
    """worst first"""
    notes: tuple[str, ...]
    """what was not checked, and why"""
    alpha: float = ALPHA
    since: str = ""
    until: str = ""

    @property
    def alarm(self) -> bool:
        return any(f.alarm for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "alarm": self.alarm}


def compare(
    profile: Mapping[str, Any] | None, window: Window, *, alpha: float = ALPHA, ignore: Collection[str] = ()
) -> DriftResult:
    """Test every part of the window that the profile describes.

    Args:
        profile: the package's profile.json.
        window: the rows.
        alpha: chance of any false alarm in this check, where the rows are independent.
        ignore: features, statistics or inputs left out, e.g. a date, which moves on with time.
    """
    if not profile:
        return DriftResult(window.rows, (), ("the package has no profile: nothing to compare with",), alpha)
    profile = {key: entry for key, entry in profile.items() if isinstance(entry, Mapping)}
    done = DriftResult(window.rows, (), (), alpha, window.since, window.until)
    if window.rows < MIN_ROWS:
        return replace(done, notes=(f"{window.rows} rows are too few to judge; {MIN_ROWS} are needed",))
    left_out = set(ignore)
    tested = [
        *_inputs(profile, window),
        *_broken(profile, window),
        *_predictions(profile, window),
    ]
    tested = [f for f in tested if not _named(f.feature, left_out)]
    adjusted = drift.holm([f.p for f in tested])
    findings = [
        replace(
            f,
            adjusted=(q := min(1.0, a / (1 - EMBEDDING_PART))),
            alarm=q <= alpha and max(f.score if f.psi is None else f.psi, 0.0) >= _floor(f),
        )
        for f, a in zip(tested, adjusted, strict=True)
    ]
    notes = list(_unchecked(profile, window))
    if "embedding" not in left_out:
        found = _embedding(profile, window, alpha)
        findings += [found] if isinstance(found, Finding) else []
        notes += [found] if isinstance(found, str) else []
    findings.sort(key=lambda f: (not f.alarm, f.adjusted, -(f.psi or abs(f.score))))
    return replace(done, findings=tuple(findings), notes=tuple(notes))


def _named(feature: str, names: set[str]) -> bool:
    return bool(names) and bool({feature, feature.split(" ", 1)[0], feature.split(".", 1)[0]} & names)


def _floor(finding: Finding) -> float:
    return SHARE_FLOOR if finding.test == "share" else PSI_FLOOR


def _inputs(profile: Mapping[str, Any], window: Window) -> Iterator[Finding]:
    for name, entry in profile.items():
        if entry.get("kind") != "input":
            continue
        base = (int(entry["absent"]), int(entry["rows"]))
        if name in window.absent:
            yield _share(f"{name} absent", base, (window.absent[name], window.read))
        for key, sketch in profile.items():
            if not key.startswith(f"{name}."):
                continue
            own = (int(sketch["absent"]), base[1])
            # A picture's brightness lacks where the picture lacks: one test, not two.
            if key in window.absent and (own != base or window.absent[key] != window.absent.get(name)):
                yield _share(f"{key} absent", own, (window.absent[key], window.read))
            if key in window.numbers:
                yield from _number(key, reference.numbers(sketch), window.numbers[key])
            elif key in window.texts:
                yield from _category(key, reference.categories(sketch), window.texts[key])


def _broken(profile: Mapping[str, Any], window: Window) -> Iterator[Finding]:
    known = profile.get("errors", {})
    if known.get("kind") != "errors":
        return
    for column in sorted({*known["columns"], *window.broken}):
        base = (int(known["columns"].get(column, 0)), int(known["rows"]))
        yield _share(f"{column} broken", base, (window.broken[column], window.rows))


def _predictions(profile: Mapping[str, Any], window: Window) -> Iterator[Finding]:
    entry = profile.get("predictions", {})
    if entry.get("kind") != "predictions":
        return
    if window.labels:
        yield from _category("predictions label", reference.labels(entry), window.labels)
    yield from _number("predictions confidence", reference.numbers(entry.get("confidence")), window.confidence)
    yield from _number("predictions value", reference.numbers(entry.get("value")), window.values)


def _share(feature: str, base: tuple[int, int], now: tuple[int, int]) -> Finding:
    p = drift.share_p(*base, *now)
    was, being = base[0] / max(1, base[1]), now[0] / max(1, now[1])
    words = f"{feature} in {being:.1%} of rows, was {was:.1%}"
    return Finding(feature, "share", abs(being - was), SHARE_FLOOR, p, p, now[1], False, words)


def _number(feature: str, known: reference.Numbers | None, values: np.ndarray) -> Iterator[Finding]:
    if known is None or len(values) < MIN_VALUES:
        return
    distance = drift.ks_distance(known.at, known.share, values, strictly=known.strictly)
    p = drift.ks_p(distance, len(values), known.rows)
    reference_K, now_K, _ = known.bins(values)
    index = drift.psi_beyond_chance(reference_K, now_K)
    words = f"median {_brief(float(np.median(values)))}, was {_brief(known.median)}; PSI {index:.2f}"
    yield Finding(feature, "ks", distance, _critical(len(values), known.rows), p, p, len(values), False, words, index)


def _critical(n: int, m: int) -> float:
    """The distance whose p-value is ALPHA on its own (Smirnov's limit): a mark for a chart, the alarm also corrects."""
    return float(np.sqrt(-np.log(ALPHA / 2) / 2 * (n + m) / (n * m)))


def _category(feature: str, known: reference.Categories | None, now: Mapping[str, int]) -> Iterator[Finding]:
    if known is None or sum(now.values()) < MIN_VALUES:
        return
    names, reference_K, now_K = known.table(now)
    a, b = drift.pool(reference_K, now_K)
    p = drift.chi_square(a, b).p
    if len(a) < 2:  # too few rows for chi-square's approximation: exactly, the reference's commonest against the rest
        place = int(reference_K.argmax())
        a, b = (np.array([x[place], x.sum() - x[place]]) for x in (reference_K, now_K))
        p = drift.share_p(round(a[0]), round(a.sum()), round(b[0]), round(b.sum()))
    index = drift.psi_beyond_chance(a, b)
    was_K, being_K = reference_K / reference_K.sum(), now_K / now_K.sum()
    most = int(np.abs(being_K - was_K).argmax())
    words = f"{names[most]!r} in {being_K[most]:.1%} of rows, was {was_K[most]:.1%}; PSI {index:.2f}"
    rows = int(now_K.sum())
    yield Finding(feature, "chi2", index, PSI_FLOOR, p, p, rows, False, words, index)


def _embedding(profile: Mapping[str, Any], window: Window, alpha: float) -> Finding | str:
    sample_ND, now_ND = reference.embedding(profile.get("embedding")), window.embedding_ND
    if sample_ND is None:
        return "the package's profile holds no embedding: its drift is not checked"
    if now_ND is None or len(now_ND) < MIN_VALUES:
        return "too few rows carry their embedding: its drift is not checked"
    if sample_ND.shape[1] != now_ND.shape[1]:
        return f"embeddings of width {now_ND.shape[1]} are not those of this package ({sample_ND.shape[1]})"
    level = alpha * EMBEDDING_PART
    found = drift.mmd(sample_ND, now_ND, level=level)
    adjusted = min(1.0, found.p / EMBEDDING_PART)
    words = f"squared MMD {found.value:.2g}; {found.threshold:.2g} is reached by chance in {level:.2%} of checks"
    alarm = adjusted <= alpha and found.value > 0
    return Finding("embedding", "mmd", found.value, found.threshold, found.p, adjusted, len(now_ND), alarm, words)


def _unchecked(profile: Mapping[str, Any], window: Window) -> Iterator[str]:
    if profile.get("predictions", {}).get("kind") != "predictions":
        yield "the package's profile holds no predictions: their shift is not checked"
    if profile.get("errors", {}).get("kind") != "errors":
        yield "the package's profile holds no share of broken cells: it is not checked"
    hidden = [k for k, v in profile.items() if v.get("kind") in ("number", "category") and k not in window.absent]
    if hidden:
        yield f"not in the log, so not checked: {', '.join(hidden)}"
    few = [k for k, v in window.numbers.items() if len(v) < MIN_VALUES and profile[k]["count"]]
    few += [k for k, v in window.texts.items() if sum(v.values()) < MIN_VALUES and profile[k]["count"]]
    if few:
        yield f"fewer than {MIN_VALUES} values, so only their absence is checked: {', '.join(few)}"


def _brief(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.6g}"
