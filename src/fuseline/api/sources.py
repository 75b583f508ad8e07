"""What the caller gave as a recipe and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseline.data.draft import draft_recipe
from fuseline.data.draft_forecast import draft_forecast
from fuseline.data.infer import infer, infer_many, infer_pair
from fuseline.data.table import Table
from fuseline.data.windows import open_windows
from fuseline.errors import FuselineError
from fuseline.package.files import write_text
from fuseline.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from fuseline.data.infer import Inferred

RECIPE_ENDINGS = (".yaml", ".yml")
PART = "part given by file"
UNLABELLED = "unlabelled by file"


def init(
    table: Any,
    target: str | Sequence[str] | None = None,
    *,
    left: Sequence[str] = (),
    right: Sequence[str] = (),
    horizon: int | None = None,
    history: int | None = None,
) -> tuple[str, Inferred]:
    """A commented recipe for a table, and what was decided about each column and why.

    Args:
        table: a path, or a pandas, polars, Arrow or Hugging Face table.
        target: the column to predict, or several for a model of as many tasks; None leaves a place for it.
        left: columns that are to find those of `right` (a retrieval model), instead of a target.
        right: see `left`.
        horizon: of a long table, a row a moment: the steps of the target to forecast.
        history: steps that a forecast looks back on; default: twice the horizon.
    """
    opened = Table.open(table)
    path = str(table) if isinstance(table, (str, Path)) else ""
    targets = [target] if isinstance(target, str) else list(target or ())
    if (left or right) and targets:
        raise FuselineError("bad_usage", "retrieval has no target", "give left and right, or a target")
    if horizon is not None:
        if len(targets) != 1:
            raise FuselineError("bad_usage", "a forecast is of one column", "give it as the target, with horizon")
        return draft_forecast(path, opened, targets[0], horizon=horizon, history=history)
    if left or right:
        inferred = infer_pair(opened, left, right)
    elif len(targets) > 1:
        inferred = infer_many(opened, targets)
    else:
        inferred = infer(opened, targets[0] if targets else None)
    return draft_recipe(path, inferred, inferred.target), inferred


def with_cache_folder(recipe: Recipe, folder: str | Path | None) -> Recipe:
    """The recipe with another training.cache_folder; None: as it is."""
    if folder is None:
        return recipe
    named = "off" if str(folder) == "off" else str(Path(folder).expanduser().absolute())
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"cache_folder": named})})


def recipe_and_table(source: Any, table: Any, target: str | None) -> tuple[Recipe, Table, Path | None]:
    """Resolve what the caller gave: a recipe (object, dict, YAML path), or a table and its target."""
    base: Path | None = None
    is_file = isinstance(source, (str, Path)) and Path(source).suffix.lower() in RECIPE_ENDINGS
    if target is not None and (is_file or isinstance(source, (Recipe, Mapping))):
        raise FuselineError("bad_usage", "a recipe names its target itself", "leave it away, or edit task.target")
    if is_file:
        recipe = load_recipe(source)
        base = Path(source).resolve().parent
    elif isinstance(source, Recipe):
        recipe = source
    elif isinstance(source, Mapping):
        recipe = parse_recipe(dict(source))
    else:
        if target is None:
            raise FuselineError("no_target", "which column is to be predicted?", "give target=... (--target COLUMN)")
        text, _ = init(source, target)
        import yaml

        recipe, table = parse_recipe(yaml.safe_load(text)), source
    if table is None:
        if recipe.table.path is None:
            raise FuselineError("no_table", "the recipe names no table", "set table.path, or pass table=...")
        named = Path(recipe.table.path)
        table = named if named.is_absolute() or base is None else base / named
    path = path_of(table)
    opened = table if isinstance(table, Table) else Table.open(table, absent=recipe.table.absent)
    if recipe.split.val_path or recipe.split.test_path:
        recipe, opened = _given_files(recipe, opened, base)
        path = None
    if recipe.training.unlabelled is not None and recipe.training.unlabelled.rows != "auto":
        recipe, opened = _with_unlabelled(recipe, opened, base)
        path = None
    return recipe, open_windows(opened, recipe.table.windows), path


def _given_files(recipe: Recipe, table: Table, base: Path | None) -> tuple[Recipe, Table]:
    """The table and the files that the split names as one table, with a column that says which part a row is."""
    import polars as pl

    tables = {"train": table}
    for part, name in (("val", recipe.split.val_path), ("test", recipe.split.test_path)):
        if name is not None:
            path = Path(name) if Path(name).is_absolute() or base is None else base / name
            tables[part] = Table.open(path, absent=recipe.table.absent)
            if tables[part].folder != table.folder:
                raise FuselineError(
                    "bad_recipe",
                    f"split.{part}_path: {name} lies in another folder than the table",
                    "file cells are relative to one folder: put the tables side by side",
                )
            tables[part].require(table.columns)
    frames = [t.take(np.arange(t.n_rows), table.columns).with_columns(pl.lit(p).alias(PART)) for p, t in tables.items()]
    whole = Table.open(pl.concat(frames, how="vertical_relaxed"), absent=recipe.table.absent)
    whole.folder = table.folder
    whole.joined = tuple((t.name or "the table", t.n_rows) for t in tables.values())
    data = recipe.model_dump()
    data["split"] |= {"kind": "given", "column": PART, "val_path": None, "test_path": None}
    data["table"]["media_root"] = recipe.table.media_root or (str(table.folder) if table.folder else None)
    return parse_recipe(data), whole


def _with_unlabelled(recipe: Recipe, table: Table, base: Path | None) -> tuple[Recipe, Table]:
    """The table, then the rows of the file that `training.unlabelled.rows` names, with their targets (if any) taken
    away and a column that says which they are. The recipe says `rows: auto` from then on."""
    import polars as pl

    assert recipe.training.unlabelled is not None
    name = recipe.training.unlabelled.rows
    path = Path(name) if Path(name).is_absolute() or base is None else base / name
    more = Table.open(path, absent=recipe.table.absent)
    if more.folder != table.folder:
        raise FuselineError(
            "bad_recipe",
            f"training.unlabelled.rows: {name} lies in another folder than the table",
            "file cells are relative to one folder: put the tables side by side",
        )
    read = [c for i in recipe.inputs for c in recipe.columns_of(i)]
    more.require(read)
    told = (recipe.task.options.get(k) for k in ("target", "targets"))
    targets = {str(t) for one in told for t in ([one] if isinstance(one, str) else one or ())}
    shared = [c for c in table.columns if c in more.columns and (c not in targets or c in read)]
    frames = [
        table.take(np.arange(table.n_rows), table.columns).with_columns(pl.lit(False).alias(UNLABELLED)),
        more.take(np.arange(more.n_rows), shared).with_columns(pl.lit(True).alias(UNLABELLED)),
    ]
    try:
        joined = pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise FuselineError(
            "bad_table",
            f"training.unlabelled.rows: {name} does not go with the table: {line}",
            "the same columns hold the same kinds of cells in both",
        ) from None
    whole = Table.open(joined, absent=recipe.table.absent)
    whole.folder = table.folder
    whole.joined = (*(table.joined or ((table.name or "the table", table.n_rows),)), (more.name, more.n_rows))
    data = recipe.model_dump()
    data["training"]["unlabelled"]["rows"] = "auto"
    data["table"]["media_root"] = recipe.table.media_root or (str(table.folder) if table.folder else None)
    return parse_recipe(data), whole


def path_of(table: Any) -> Path | None:
    return Path(table) if isinstance(table, (str, Path)) else None


def write_recipe(text: str, path: Path, *, force: bool = False) -> None:
    """Write a drafted recipe; an existing file is kept unless `force`."""
    if path.exists() and not force:
        raise FuselineError("file_exists", f"{path} exists", "choose another name with -o, or overwrite with --force")
    write_text(path, text)
