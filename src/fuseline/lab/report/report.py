"""RUN/report.html: one file, made from what the run left in its folder, readable without a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fuseline.lab.report.answers import quality_plots
from fuseline.lab.report.augmented import augmented
from fuseline.lab.report.fair import fair
from fuseline.lab.report.gallery import gallery
from fuseline.lab.report.headline import headline
from fuseline.lab.report.matches import matches
from fuseline.lab.report.plots import Line, Plot, curves
from fuseline.lab.report.read import RunFiles, listing, mapping, number, read_run
from fuseline.lab.report.robust import robust
from fuseline.lab.report.several import blocks
from fuseline.lab.report.sure import sureness
from fuseline.lab.report.tables import (
    PARTS,
    columns,
    confusion,
    degradation,
    folds,
    inputs,
    leaks,
    metric_table,
    per_class,
    target_counts,
)
from fuseline.lab.report.texts import texts
from fuseline.lab.report.unlabelled import unlabelled
from fuseline.lab.report.words import amount, clean, count, fmt, label, seconds
from fuseline.package.files import write_text

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    # Autoescape for every template, whatever its name: each text here may come from a hostile table.
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: clean(v) if type(v) is str else v,
    )


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page from one of `templates/`; texts are escaped and freed of control characters."""
    return _environment().get_template(template).render(values)


def write_report(run: Path) -> Path:
    """Write RUN/report.html and return its path. Absent files shorten the report; FuselineError if it is no run."""
    files = read_run(run)
    path = Path(run) / "report.html"
    write_text(path, render("report.html.j2", _values(files)))
    return path


def _values(files: RunFiles) -> dict[str, Any]:
    part = files.main
    details = part.details if part else {}
    metric_parts, metrics = metric_table(files)
    fold_headings, fold_rows = folds(files)
    class_headings, class_rows = per_class(details)
    best_line, training = learning(files)
    target = mapping(files.data.get("target"))
    values: dict[str, Any] = {
        "version": str(files.run.get("fuseline_version") or ""),
        "head": headline(files),
        "said": said(files),
        "target": clean(files.target, 80),
        "part_names": PARTS,
        "columns": columns(files),
        "counts": target_counts(files),
        "quantiles": _quantiles(target.get("quantiles")),
        "leaks": leaks(files),
        "inputs": inputs(files),
        "model_line": _model_line(files),
        "best_line": best_line,
        "training": training,
        "metric_parts": metric_parts,
        "metrics": metrics,
        "fold_headings": fold_headings,
        "fold_rows": fold_rows,
        "fold_sums": len(fold_rows) - len(listing(files.folds.get("folds"))),
        "measured_on": f"Measured on the {count(part.rows)} rows of the {part.name} part." if part else "",
        "confusion": confusion(details),
        "quality": quality_plots(files, part),
        "class_headings": class_headings,
        "class_rows": class_rows,
        "class_title": "By target" if files.task == "regression" else "By class",
        "class_caption": "Each target in its own units."
        if files.task == "regression"
        else "Each class against all others.",
        "matches": matches(files, part),
        "several": blocks(files, part),
        "texts": texts(files, part),
        "degradation": degradation(files),
        "sure": sureness(files),
        "fair": fair(files),
        "augmented": augmented(files),
        "unlabelled": unlabelled(files),
        "robust": robust(files),
        "gallery": gallery(files),
        "parity": _parity(files),
        "versions": [[clean(k, 60), clean(v, 60)] for k, v in mapping(files.run.get("versions")).items()],
        "recipe": files.recipe_text,
        "missing": _missing(files),
    }
    return values | {"sections": _sections(values)}


def _sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The page's contents: only what is there."""
    shown = (
        ("said", "Said aloud", values["said"]),
        ("data", "Data", values["columns"] or values["counts"] or values["leaks"]),
        ("model", "Model", values["inputs"]),
        ("training", "Training", values["training"]),
        ("augmented", "What training sees", values["augmented"]),
        ("unlabelled", "Rows without a target", values["unlabelled"]),
        ("metrics", "Metrics", values["metrics"] or values["fold_rows"]),
        ("answers", "Answers and truth", values["confusion"] or values["quality"] or values["class_rows"]),
        ("tasks", "Task by task", values["several"]),
        ("found", "What is found", values["matches"]),
        ("texts", "Texts", values["texts"]),
        ("absent", "When inputs are absent", values["degradation"]),
        ("sure", "How sure", values["sure"]),
        ("fair", "Group by group", values["fair"]),
        ("robust", "Noise, absence, attack", values["robust"]),
        ("errors", "Worst errors", values["gallery"]),
        ("again", "How to reproduce", True),
    )
    return [(key, name) for key, name, there in shown if there]


def said(files: RunFiles) -> list[str]:
    """The run's notes; leaks have their own list, and rows that were set aside are named in any case."""
    found = listing(files.run.get("notes"))
    for part in files.parts:
        found += [f"{part.name}: {n}" for n in listing(part.details.get("notes"))]
    notes = [clean(n, 600) for n in found]
    if listing(files.data.get("leaks")):
        notes = [n for n in notes if not n.startswith("leak: ")]
    away = number(mapping(files.run.get("parts")).get("quarantined"))
    if away and not any("quarantine" in n for n in notes):
        notes.insert(0, f"{count(away)} rows with broken cells were set aside: see quarantine.csv.")
    return notes


def _quantiles(item: Any) -> str:
    """`from 3.1 to 98 (median 41, middle half 30 to 55)`, from equally spaced quantiles or a mapping share -> value."""
    if isinstance(item, dict):
        pairs = sorted((float(k), x) for k, v in item.items() if _is_number(k) and (x := number(v)) is not None)
    else:
        found = [x for v in listing(item) if (x := number(v)) is not None]
        pairs = [(i / max(len(found) - 1, 1), x) for i, x in enumerate(found)]
    if len(pairs) < 2:
        return ""
    at = {round(q, 3): fmt(x) for q, x in pairs}
    text = f"runs from {fmt(pairs[0][1])} to {fmt(pairs[-1][1])}"
    inner = [f"median {at[0.5]}"] if 0.5 in at else []
    if 0.25 in at and 0.75 in at:
        inner.append(f"middle half {at[0.25]} to {at[0.75]}")
    return text + (f" ({', '.join(inner)})" if inner else "") + " in the training rows"


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _model_line(files: RunFiles) -> str:
    found = mapping(files.run.get("parameters"))
    total, trained = number(found.get("total")), number(found.get("trainable"))
    fusion = clean(mapping(files.recipe.get("fusion")).get("kind") or "", 40)
    if chosen := str(mapping(files.run.get("choice")).get("chosen") or ""):
        stacked = f": {_estimator(files)} over embeddings and cells"
        fusion += stacked if chosen == "stacked" else ": end to end was better"
    parts = [f"Fused by {fusion}" if fusion else "", f"{amount(total)} parameters in all" if total else ""]
    parts.append(f"{amount(trained)} of them trained" if total and trained is not None else "")
    return ", ".join(p for p in parts if p) + "." if any(parts) else "Inputs and their encoders."


def learning(files: RunFiles) -> tuple[str, list[Plot]]:
    """A sentence on the kept model and the curves of history.csv."""
    rows = [r for r in files.history if "step" in r]
    best = mapping(files.run.get("best"))
    metric = next((k for r in rows for k in r if k.startswith("val_") and k != "val_loss"), "")
    said_of = str(best.get("metric") or metric)
    step, value = number(best.get("step")), number(best.get("value"))
    sentence = ""
    if step is not None and value is not None:
        sentence = f"The kept model is that of step {count(step)}, where validation {label(said_of)} was {fmt(value)}."
        if (spent := number(mapping(files.run.get("seconds")).get("train"))) is not None:
            sentence += f" Training took {seconds(spent)}."
    sentence += _boosted(files)
    losses = [_line(rows, "train_loss", "training"), _line(rows, "val_loss", "validation")]
    plots = []
    if shown := [line for line in losses if line is not None]:
        plots.append(curves("Loss", shown, "step", "loss"))
    if metric and (line := _line(rows, metric, "validation")) is not None:
        mark = (step, value) if step is not None and value is not None else None
        plots.append(curves(f"Validation {label(metric)}", [line], "step", label(metric), best=mark))
    return sentence, plots


def _boosted(files: RunFiles) -> str:
    """What the estimator reached on validation rows, and the model trained end to end, where there was one."""
    choice = mapping(files.run.get("choice"))
    ours, theirs, trees = (number(choice.get(key)) for key in ("stacked", "end_to_end", "trees"))
    if not choice:
        return ""
    text = f" {count(trees)} boosted trees" if trees is not None else f" {_estimator(files).capitalize()}"
    if ours is not None:
        text += f" reached a validation {label(str(choice.get('metric') or ''))} of {fmt(ours)}"
        text += f", the model trained end to end {fmt(theirs)}" if theirs is not None else ""
    them = "the trees" if trees is not None else "they" if choice.get("estimator") == "prototypes" else "it"
    if choice.get("chosen") == "stacked":
        return text + f": {them} answer{'s' if them == 'it' else ''}."
    return text + f": {them} {'was' if them == 'it' else 'were'} left aside."


def _estimator(files: RunFiles) -> str:
    """What answers from the embeddings, as a word; trees where an older run does not say."""
    kind = str(mapping(files.run.get("choice")).get("estimator") or "")
    return {"linear_probe": "a linear probe", "prototypes": "class means"}.get(kind, "boosted trees")


def _line(rows: list[dict[str, float]], column: str, name: str) -> Line | None:
    found = [(r["step"], r[column]) for r in rows if column in r]
    return Line(name, [x for x, _ in found], [y for _, y in found]) if found else None


def _parity(files: RunFiles) -> str:
    found = files.parity
    difference, tolerance = number(found.get("max_abs_difference")), number(found.get("tolerance"))
    if difference is None:
        return ""
    rows = number(found.get("rows"))
    text = f"The package was replayed without torch on {count(rows)} rows" if rows else "The package was replayed"
    text += f": its answers differ from the trained model's by at most {difference:.1e}"
    return text + (f" (allowed: {tolerance:.1e})." if tolerance is not None else ".")


def _missing(files: RunFiles) -> str:
    parts = []
    if files.absent:
        parts.append(f"Not in the run's folder when this page was written: {', '.join(files.absent)}.")
    if files.broken:
        parts.append(f"Could not be read: {', '.join(sorted(set(files.broken)))}.")
    return " ".join(parts)
