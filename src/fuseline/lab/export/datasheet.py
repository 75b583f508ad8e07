"""The data sheet: what the table was, from what was found in it (Gebru et al. 2018, "Datasheets for Datasets")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuseline.recipe import Recipe

DATASHEET = "datasheet.md"
PARTS = ("train", "val", "test")
MOST = 30
"""labels, notes and leaks that are listed"""


def datasheet(recipe: Recipe, run: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Markdown. `run`: what run.json holds; `data`: data.json."""
    parts, table = run.get("parts", {}), run.get("table", {})
    lines = [
        f"# Data of {_text(run.get('name', 'this run'))}",
        "",
        "Written from what training found in the table. What it cannot know stands at the end, for a person to add.",
        "",
        "## What it is",
        "",
        f"- table: {_text(str(table['path']).rsplit('/', 1)[-1]) if table.get('path') else 'given in memory'}, "
        f"{table.get('rows', 'unknown')} rows",
        f"- used: {', '.join(f'{parts.get(p, 0)} {p}' for p in PARTS)} rows"
        + (
            f"; set aside for broken cells: {parts['quarantined']} (quarantine.csv)" if parts.get("quarantined") else ""
        ),
        f"- split: {recipe.split.kind}"
        + (f" by `{_text(recipe.split.group)}`" if recipe.split.group else "")
        + (f" by `{_text(recipe.split.time)}`" if recipe.split.time else "")
        + f", seed {recipe.split.seed}",
        "",
        "## Columns that are read",
        "",
        "| column | input | kind | absent: train | val | test |",
        "|---|---|---|---|---|---|",
    ]
    for column in data.get("columns", ()):
        absent = column.get("absent", {})
        shares = " | ".join("" if absent.get(p) is None else f"{100 * absent[p]:.1f} %" for p in PARTS)
        kind = column.get("kind") or column["modality"]
        lines.append(f"| {_text(column['column'])} | {_text(column['input'])} | {_text(kind)} | {shares} |")
    lines += ["", "## Target", "", *_target(data.get("target", {}))]
    lines += ["", "## The same content on both sides of the split", ""]
    leaks = data.get("leaks", [])
    lines += [f"- {_text(leak['message'])}" for leak in leaks[:MOST]] or [
        "None was found among the columns that are read."
    ]
    notes = [n for n in run.get("notes", ()) if not str(n).startswith(("leak:", "note: "))]
    if notes:
        lines += ["", "## Noticed while reading", "", *(f"- {_text(n)}" for n in notes[:MOST])]
    lines += [
        "",
        "## Not known here",
        "",
        "Who collected the rows, why and how they were chosen; whether the people in them agreed; under which licence "
        "the table may be used; who is missing from it. Nothing in the table says so: add it before others "
        "use this model.",
        "",
    ]
    return "\n".join(lines)


def _target(target: Mapping[str, Any]) -> list[str]:
    lines = [f"`{_text(target.get('column', ''))}`"]
    counts = target.get("counts")
    if counts:
        labels = list(dict.fromkeys(label for own in counts.values() for label in own))
        parts = [p for p in PARTS if p in counts]
        lines += ["", f"| label | {' | '.join(parts)} |", "|---|" + "---|" * len(parts)]
        for label in labels[:MOST]:
            lines.append(f"| {_text(label)} | {' | '.join(str(counts[p].get(label, 0)) for p in parts)} |")
        if len(labels) > MOST:
            lines += ["", f"and {len(labels) - MOST} labels more."]
    elif target.get("quantiles"):
        q = target["quantiles"]
        lines += ["", f"From {q[0]:g} to {q[-1]:g}, median {q[len(q) // 2]:g}, in the training rows."]
    for name, own in (target.get("tasks") or {}).items():
        lines += ["", f"### {_text(name)}", "", *_target(own)]
    return lines


def _text(text: Any) -> str:
    """A cell of the table in a line of Markdown: no line breaks, no bars, no tags, no code."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))[:300]
    for sign in "|<>`[]*_#":
        plain = plain.replace(sign, "\\" + sign) if sign != "`" else plain.replace(sign, "'")
    return plain
