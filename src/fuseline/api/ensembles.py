"""One package of a cross-validation's folds, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseline.api.run import Run
from fuseline.api.training import need_training
from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice, voice
from fuseline.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from fuseline.data.split import Split
    from fuseline.lab.training.cache import Cache


def written(
    recipe: Recipe, table: Table, splits: list[Split], folder: Path, speak: Voice, cache: Cache
) -> dict[str, Any]:
    """Write the package; what its metrics.json says of rows out of fold."""
    from fuseline.lab.ensemble.make import write_ensemble

    speak.say(f"one package of {len(splits)} folds, replayed without torch")
    _, metrics = write_ensemble(recipe, table, splits, folder, voice=speak, cache=cache)
    return {k: m["value"] for k, m in metrics["parts"]["test"]["metrics"].items()}


def ensemble(folder: str | Path, *, table: Any = None, quiet: bool = False) -> Run:
    """One package, RUN/model.fuse, of a finished cross-validation's folds; it answers by their mean.

    Args:
        folder: the run's folder, which holds fold-0, fold-1, ...
        table: the table, where the run was given one that is not a file.
        quiet: say nothing.

    Raises:
        FuselineError: ``bad_recipe`` where the task's answers have no mean, ``unlike_folds`` where the folds do not
            read cells alike. See docs/ensembles.md.
    """
    need_training()
    from fuseline.lab.training.disk.where import open_cache
    from fuseline.lab.training.prepare import fold_rows

    path = Path(folder)
    if not (path / "fold-0").is_dir():
        message = f"{path} is no cross-validation: it has no folds"
        raise FuselineError("no_such_run", message, "train with split: {folds: 5}, and name that run's folder")
    first = Run(path / "fold-0")
    given = table if table is not None else first.record["table"]["path"]
    if given is None:
        raise FuselineError("no_table", "the run was given a table in memory", "pass the same table again: table=...")
    recipe = load_recipe(first.folder / "recipe.yaml")
    opened = open_table(given, recipe.table)
    splits = fold_rows(recipe, opened)
    summed = Run(path).metrics
    scores = written(recipe, opened, splits, path, voice("quiet" if quiet else "auto"), open_cache(recipe.training))
    write_json(path / "folds.json", finite({**summed, "out_of_fold": scores}))
    return Run(path)
