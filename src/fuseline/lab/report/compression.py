"""FOLDER/compress.html: what a search over smaller models found, one file, readable without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuseline import __version__
from fuseline.lab.report.compression_plots import NUMBERED, Dot, sensitivity, trade_off
from fuseline.lab.report.compression_read import Search, Trial, read_search
from fuseline.lab.report.compression_tables import (
    by_speed,
    effect_rows,
    effect_sentence,
    effects,
    failures,
    front_rows,
    moves,
    subsets,
    trial_rows,
    versus,
)
from fuseline.lab.report.compression_words import calls, head
from fuseline.lab.report.plots import Plot
from fuseline.lab.report.read import listing, mapping, number
from fuseline.lab.report.report import render
from fuseline.lab.report.words import SPACE, clean, count, label, seconds
from fuseline.package.files import write_text

PAGE = "compress.html"
PART = {"val": "validation"}
STAGES = {"structure": "cutting and healing", "quantise": "quantising", "measure": "measuring"}
ROWS = (("train", "to heal with"), ("select", "to choose with"), ("test", "unseen"))


def write_compression(folder: Path) -> Path:
    """Write FOLDER/compress.html from FOLDER/compress.json and return its path. FuselineError where there is none."""
    search = read_search(Path(folder))
    path = Path(folder) / PAGE
    write_text(path, render("compression.html.j2", _values(search)))
    return path


def _values(search: Search) -> dict[str, Any]:
    rows, most = front_rows(search), effects(search)
    values: dict[str, Any] = {
        "version": __version__,
        "head": head(search),
        "metric": label(search.metric),
        "unit": search.unit,
        "limit": search.max_drop,
        "spans": [calls(n) for n in search.spans],
        "versus": versus(search),
        "chosen_notes": [clean(n, 600) for n in search.chosen.notes] if search.chosen else [],
        "subsets": subsets(search),
        "parts": _parts(search),
        "plots": _plots(search),
        "front": rows if len(search.trials) > 1 else [],
        "numbered": len(rows) <= NUMBERED,
        "trials": trial_rows(search),
        "failures": failures(search),
        "sensitivity": sensitivity("Change of the answers", most, f"change, {_short_moves(search)}"),
        "effect_sentence": effect_sentence(search),
        "effects": effect_rows(search),
        "moves": moves(search),
        "method": _method(search),
        "lineage": _lineage(search),
        "role": search.role,
        "alone": search.alone,
        "row_notes": [clean(n, 600) for n in _notes(search)],
    }
    return values | {"sections": _sections(search, values)}


def _sections(search: Search, values: dict[str, Any]) -> list[tuple[str, str]]:
    """The page's contents: only what is there."""
    shown = (
        ("result", "The float model" if values["alone"] else f"Float and {search.role}", values["versus"]),
        ("absent", "When inputs are absent", values["subsets"]),
        ("trade", "What size and speed cost", values["plots"] or values["front"]),
        ("trials", "All models", values["trials"] or values["failures"]),
        ("sensitivity", "Sensitivity", values["effects"]),
        ("how", "How it was measured", True),
    )
    return [(key, name) for key, name, there in shown if there]


def _parts(search: Search) -> list[str]:
    """Headings over the subsets' two groups of columns."""
    found = ["Rows that chose"]
    return found + ([f"Unseen {clean(search.unseen.of, 30)} rows"] if search.unseen else [])


def _plots(search: Search) -> list[Plot]:
    first = next(iter(search.spans), None)
    order = {t.key: i + 1 for i, t in enumerate(by_speed(search, search.pareto))}

    def dots(x: Callable[[Trial], float | None]) -> list[Dot]:
        out = []
        for trial in search.trials:
            at = x(trial)
            if trial.failed is not None or at is None:
                continue
            mark = "base" if trial is search.base else "chosen" if trial is search.chosen else ""
            mark = mark or ("front" if trial.key in order else "")
            value = trial.drop.value if trial is not search.base or trial.drop.value is not None else 0.0
            drop = trial.drop if value is trial.drop.value else type(trial.drop)("drop", value)
            out.append(Dot(at, drop, mark, order.get(trial.key)))
        return out

    limit = search.max_drop
    y = f"drop of {label(search.metric)}, {'points' if search.unit == 'points' else 'percent'}"
    drawn = [
        trade_off(
            "Drop and latency",
            dots(lambda t: t.median(first)),
            f"latency {calls(first)}, ms",
            y,
            x_unit="ms",
            x_limit=search.limit("max_latency_ms"),
            y_limit=limit,
            y_unit=search.unit,
            chosen=search.role,
        ),
        trade_off(
            "Drop and size",
            dots(lambda t: t.size / 1e6 if t.size else None),
            "size, MB (logarithmic)",
            y,
            x_unit="MB",
            x_limit=search.limit("max_size_mb"),
            y_limit=limit,
            y_unit=search.unit,
            chosen=search.role,
            log=True,
        ),
    ]
    return [p for p in drawn if p is not None]


def _notes(search: Search) -> list[Any]:
    """Of the rows, and why the search ended before it was done."""
    return [
        *listing(mapping(search.raw.get("rows")).get("notes")),
        *([stopped] if (stopped := search.raw.get("stopped")) else []),
    ]


def _short_moves(search: Search) -> str:
    return "standard deviations" if search.raw.get("task") == "regression" else "mean of |Δp|"


def _method(search: Search) -> str:
    rows = mapping(search.raw.get("rows"))
    select, of = number(rows.get("select")), clean(rows.get("of") or "", 30)
    where = (
        f"the same {count(select)} rows" + (f" of the {PART.get(of, of)} part" if of else "")
        if select
        else "the same rows"
    )
    unit = "hundredths of the metric" if search.unit == "points" else "percent of the float model's value"
    return (
        "Every candidate is the float model with fewer layers, widths or words, healed by a short training towards the "
        f"float model's answers where something was cut, written in smaller numbers, and asked {where}. Latencies are "
        "medians, with quartiles, of runs taken in turns with the float model's; a drop is the difference on the same "
        f"rows, in {unit}, with its 95{SPACE}% interval from a paired bootstrap."
    )


def _lineage(search: Search) -> list[list[str]]:
    raw, rows = search.raw, mapping(search.raw.get("rows"))
    model = mapping(raw.get("model"))
    asked = [f"{count(n)} {word}" for k, word in ROWS if (n := number(rows.get(k)))]
    spent: dict[str, float] = {}
    for trial in search.trials:
        for stage, one in trial.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + one
    stages = ", ".join(f"{STAGES.get(k) or clean(k, 20)} {seconds(v)}" for k, v in list(spent.items())[:8] if v)
    took = seconds(number(raw.get("seconds"))) + (f" (of it: {stages})" if stages else "")
    found = [
        ("Model", clean(model.get("name") or "", 120)),
        ("Version", clean(model.get("version") or "", 80)),
        ("Package", clean(model.get("path") or "", 300)),
        ("Table", clean(raw.get("table") or "", 300)),
        ("Task", clean(raw.get("task") or "", 60)),
        ("Metric", label(clean(search.metric, 60)) + ("" if search.up else ", lower is better")),
        ("Rows", " · ".join(asked)),
        ("Seed", clean(raw["seed"], 40) if raw.get("seed") is not None else ""),
        ("Machine", clean(raw.get("machine") or "", 300)),
        ("Time", took),
        ("Made", clean(raw.get("created") or "", 40)),
    ]
    return [[k, str(v)] for k, v in found if v]
