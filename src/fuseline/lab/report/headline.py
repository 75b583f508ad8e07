"""The first screen: what was reached, on what, and what to be careful about, in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from fuseline.lab.report.read import Estimate, Part, RunFiles, listing, mapping, number
from fuseline.lab.report.words import amount, clean, count, estimate, fmt, is_bounded, join, label, seconds, size

FEW_ROWS = 100
"""test rows below which every figure is called rough"""
FEW_OF_A_CLASS = 10
FAR_APART = 0.2
"""relative difference of validation and test that is called out where there are no intervals to compare"""

GUESS = {"auroc": 0.5, "auroc_macro": 0.5, "r2": 0.0}
"""what an uninformed answer scores"""


@dataclass(frozen=True)
class Headline:
    title: str
    sentence: str
    value: str
    metric: str
    interval: str
    facts: list[tuple[str, str]]
    cautions: list[str]


def headline(files: RunFiles) -> Headline:
    part = files.main
    watched = watched_metric(files, part)
    low_high = ""
    if part is not None and watched is not None and watched.low is not None and watched.high is not None:
        inside = f"{fmt(watched.low)} to {fmt(watched.high)}"
        low_high = f"folds from {inside}" if part.name == "folds" else f"95 % interval {inside}"
    return Headline(
        title=files.name,
        sentence=_sentence(files, part, watched),
        value=fmt(watched.value) if watched else "–",
        metric=label(watched.name) if watched else "not evaluated",
        interval=low_high,
        facts=_facts(files),
        cautions=cautions(files),
    )


def watched_metric(files: RunFiles, part: Part | None) -> Estimate | None:
    """The metric of the run, or the first one there is."""
    if part is None:
        return None
    return part.metrics.get(files.metric) or next(iter(part.metrics.values()))


def _sentence(files: RunFiles, part: Part | None, watched: Estimate | None) -> str:
    inputs = [clean(i.get("name", ""), 60) for i in files.inputs]
    task = f"A {files.task} model" if files.task else "A model"
    subject = f"{task} of “{clean(files.target, 80)}”" if files.target else task
    source = f" from {join(inputs)}" if inputs else ""
    if part is None or watched is None:
        return f"{subject}{source}. It has not been evaluated, so nothing is known about its quality."
    if part.name == "folds":
        text = f"{subject}{source}. Over the folds of a cross-validation, {label(watched.name)} is {fmt(watched.value)}"
        return f"{text} on average; the folds lie between {fmt(watched.low)} and {fmt(watched.high)}."
    apart, chose = "test rows that took no part in training", "validation rows, the same that chose it"
    where = apart if part.name == "test" else chose
    text = f"{subject}{source}. On {count(part.rows)} {where}, {label(watched.name)} is {fmt(watched.value)}"
    if watched.low is not None and watched.high is not None:
        text += (
            f"; were other rows drawn from the same source, it would be expected to lie between "
            f"{fmt(watched.low)} and {fmt(watched.high)} (95 % bootstrap interval)"
        )
    return text + "."


def _facts(files: RunFiles) -> list[tuple[str, str]]:
    parts = {k: number(v) for k, v in mapping(files.run.get("parts")).items()}
    parameters = mapping(files.run.get("parameters"))
    spent = [s for v in mapping(files.run.get("seconds")).values() if (s := number(v)) is not None]
    out = [("Task", files.task), ("Target", clean(files.target, 60))]
    rows = [f"{count(parts[k])} {k}" for k in ("train", "val", "test", "unlabelled") if parts.get(k)]
    out.append(("Rows", " · ".join(rows)))
    if total := number(parameters.get("total")):
        trained = number(parameters.get("trainable"))
        out.append(("Parameters", amount(total) + (f" ({amount(trained)} trained)" if trained is not None else "")))
    out.append(("Time", seconds(sum(spent)) if spent else ""))
    out.append(("Package", size(files.package_bytes) if files.package_bytes else ""))
    out.append(("Made", clean(files.run.get("created") or "")[:16].replace("T", " ")))
    return [(k, v) for k, v in out if v]


def cautions(files: RunFiles) -> list[str]:
    """What a reader must know before believing the figure above."""
    test, val, out = files.part("test"), files.part("val"), []
    if test is None and val is not None:
        out.append("There is no test part: the figures are of validation rows, which also chose the model.")
    if test is not None:
        if 0 < test.rows < FEW_ROWS:
            out.append(f"The test part has only {count(test.rows)} rows: read every figure with its interval.")
        out += _scarce_classes(files)
        out += _guesses(files, test)
    if test is not None and val is not None:
        watched = watched_metric(files, test)
        other = val.metrics.get(watched.name) if watched else None
        if watched and other and _far(watched, other):
            out.append(
                f"Validation and test disagree: {label(watched.name)} is {estimate(other)} on validation rows and "
                f"{estimate(watched)} on test rows. The parts may differ in kind, or one of them is too small."
            )
    out += _silent(files)
    # Short and common texts are notes, told under Data: that they are alike says little.
    leaks = [leak for leak in listing(mapping(files.data).get("leaks")) if mapping(leak).get("severity") != "note"]
    if leaks:
        where = "one finding" if len(leaks) == 1 else f"{len(leaks)} findings"
        out.append(
            f"The same content stands in several parts of the table ({where}, listed under Data): "
            "the figures may flatter the model."
        )
    return out


def _silent(files: RunFiles) -> list[str]:
    """Where the model as packaged abstains on every row, the figures above are of answers that nobody will get."""
    out = []
    for name, own in mapping(mapping(files.metrics.get("sure")).get("tasks")).items():
        checked = listing(mapping(mapping(mapping(own).get("selective")).get("abstain")).get("checked"))
        if checked and number(mapping(checked[0]).get("answered")) == 0:
            of = f" of {clean(name, 60)}" if name else ""
            out.append(
                f"As packaged it withholds every answer{of}: it could not be shown to be wrong as rarely as "
                "evaluation.abstain states (see How sure). The figures are of what it leans to."
            )
    return out


def _scarce_classes(files: RunFiles) -> list[str]:
    counts = mapping(mapping(mapping(files.data.get("target")).get("counts")).get("test"))
    found = [(clean(k, 30), number(c)) for k, c in counts.items()]
    few = [f"{name} ({n:.0f})" for name, n in found if n is not None and n < FEW_OF_A_CLASS]
    if not few or len(counts) < 2:
        return []
    shown = join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
    return [f"Fewer than {FEW_OF_A_CLASS} test rows of {shown}: what is said of these is rough."]


def _guesses(files: RunFiles, test: Part) -> list[str]:
    watched = watched_metric(files, test)
    guess = GUESS.get(watched.name) if watched else None
    if watched is None or guess is None or watched.low is None or watched.low > guess:
        return []
    return [
        f"The interval of {label(watched.name)} reaches {fmt(guess)}, the score of a guess: "
        "these rows do not show that the model has learned anything."
    ]


def _far(a: Estimate, b: Estimate) -> bool:
    if a.value is None or b.value is None:
        return False
    if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        return a.high < b.low or b.high < a.low
    scale = 1.0 if is_bounded(a.name) else max(abs(a.value), abs(b.value))
    return abs(a.value - b.value) > FAR_APART * scale
