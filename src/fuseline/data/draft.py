"""A commented recipe from what was inferred about a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

import yaml

from fuseline.data.infer import Column, Inferred
from fuseline.errors import FuselineError

TABULAR = ("number", "category", "boolean", "date")
MEDIA = ("text", "image", "audio", "video", "images", "texts", "graph", "timeseries")


def draft_recipe(path: str, inferred: Inferred, target: str | None) -> str:
    """YAML that :func:`fuseline.recipe.parse_recipe` takes. Numbers, categories, booleans and dates are one input.

    Args:
        path: the table as the recipe should name it; empty for a table that is no file.
        inferred: of the same table and target.
        target: None leaves a word in its place that no table has.

    Raises:
        FuselineError: ``no_inputs`` where no column can be used.
    """
    columns = inferred.columns
    if not any(c.kind in (*TABULAR, *MEDIA, "words") for c in columns):
        reasons = "; ".join(f"{c.name}: {c.reason}" for c in columns[:5] if c.kind != "target")
        raise FuselineError("no_inputs", f"no column that a model could read: {reasons}", "write the recipe by hand")
    lines = [f"# A draft: read it, change what is wrong. The table has {inferred.rows} rows.", "version: 1"]
    if path:
        lines += ["table:", f"  path: {scalar(path)}   # files named in cells are looked for beside it"]
    taken = {"present"}
    by_side = {
        side: list(_inputs([c for c in columns if c.name in names], taken, f"{side}_table"))
        for side, names in inferred.sides.items()
    }
    inputs = [line for some in by_side.values() for line in some] or list(_inputs(columns, taken))
    lines += ["", "inputs:", *inputs]
    unused = [c for c in columns if c.kind in ("ignored", "group", "split")]
    if unused:
        lines += ["", "# Not read by the model:"]
        lines += [f"#   {_plain(c.name)}: {_comment(c)}" for c in unused]
    lines += ["", "task:", *(_pair(by_side) if by_side else _task(inferred, target))]
    lines += ["", f"split:   # {_plain(inferred.split_reason)}"]
    lines += [f"  {key}: {scalar(str(value))}" for key, value in inferred.split.items()]
    if inferred.split["kind"] != "given":
        lines += ["  val: 0.15", "  test: 0.15", "  # folds: 5   # cross-validation instead of one test part"]
    lines += ["", "# fusion: {kind: attention}   # or sum, concat, gated, low_rank, cross_attention", ""]
    return "\n".join(lines)


def _inputs(columns: list[Column], taken: set[str], table: str = "tabular") -> Iterable[str]:
    tabular = [c for c in columns if c.kind in TABULAR]
    pictures = [c for c in columns if c.kind == "image"]
    words = [c for c in columns if c.kind == "words"]
    page = pictures[0] if len(pictures) == len(words) == 1 else None
    for column in words:
        yield f"  {scalar(_input_name(column.name, taken))}:   # {_comment(column)}"
        yield "    modality: document"
        yield "    columns:"
        if page is not None:
            yield f"      {scalar(page.name)}: image   # {_comment(page)}"
        yield f"      {scalar(column.name)}: words"
        if page is None:
            yield "    # boxes: share   # or thousand: pixels need a picture, or the page's width and height"
    for column in columns:
        if column.kind in MEDIA and column is not page:
            name = _input_name(column.name, taken)
            yield f"  {scalar(name)}:   # {_comment(column)}"
            yield f"    modality: {column.kind}"
            if name != column.name:
                yield f"    column: {scalar(column.name)}"
            if column.edges is not None:
                yield f"    edges: {scalar(column.edges)}"
    leaks = [c for c in columns if c.kind == "leak"]
    if tabular:
        yield f"  {_input_name(table, taken)}:"
        yield "    modality: tabular"
        order = next((c.slash for c in tabular if c.slash), None)
        if order:
            yield f"    slash_dates: {order}"
        yield "    columns:"
        for column in tabular:
            if column.slash and column.slash != order:
                yield f"      # {scalar(column.name)}: date   # written the other way round than the dates above"
            else:
                yield f"      {scalar(column.name)}: {column.kind}   # {_comment(column)}"
    for column in leaks:
        yield f"      # {scalar(column.name)}: {column.otherwise}   # {_comment(column)}"


def _task(inferred: Inferred, target: str | None) -> Iterable[str]:
    if target is None or inferred.task is None:
        yield "  kind: classification   # or regression, detection"
        yield "  target: TARGET   # the column to predict"
        return
    if inferred.task["kind"] == "multi":
        yield f"  kind: multi   # {_plain(inferred.task_reason)}"
        yield "  tasks:"
        for name, task in inferred.task["tasks"].items():
            options = ", ".join(f"{key}: {scalar(str(value))}" for key, value in task.items())
            yield f"    {scalar(_input_name(name, set()))}: {{{options}}}"
        return
    for key, value in inferred.task.items():
        comment = f"   # {_plain(inferred.task_reason)}" if key == "target" else ""
        text = str(value).lower() if isinstance(value, bool) else scalar(str(value))
        yield f"  {key}: {text}{comment}"


def _pair(by_side: Mapping[str, list[str]]) -> Iterable[str]:
    yield "  kind: retrieval"
    for side, lines in by_side.items():
        names = yaml.safe_load("\n".join(lines))
        yield f"  {side}: [{', '.join(scalar(str(name)) for name in names)}]"


def _input_name(column: str, taken: set[str]) -> str:
    """The column's name as an input's: no dots, printable, not taken."""
    base = "".join("_" if c == "." or not c.isprintable() else c for c in column) or "input"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _comment(column: Column) -> str:
    absent = f"{column.absent:.0%} absent; " if column.absent >= 0.005 else ""
    return _plain(absent + column.reason)


def _plain(text: str) -> str:
    """For a comment: one line, nothing that YAML does not print."""
    return "".join(c if c.isprintable() and c != "\ufeff" else " " for c in text)


def scalar(text: str) -> str:
    """A YAML scalar that is read back as `text`."""
    if text.isidentifier() or PurePath(text).name.replace(".", "_").replace("-", "_").isidentifier():
        try:
            if yaml.safe_load(f"{text}: {text}") == {text: text}:  # a value may not be what a key may, "-" say
                return text
        except yaml.YAMLError:
            pass
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    return f"\\U{ord(character):08X}"
