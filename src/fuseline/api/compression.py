"""Compression from Python."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseline.api.training import need_training
from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.package import Package, read_package
from fuseline.progress import voice
from fuseline.recipe import Recipe, load_recipe
from fuseline.runtime import Predictor, load

if TYPE_CHECKING:
    from fuseline.data.split import Split
    from fuseline.lab.training.cache import Cache


@dataclass(frozen=True)
class Compressed:
    """What a search for a smaller model found."""

    folder: Path
    result: dict[str, Any]
    """compress.json"""

    @property
    def met(self) -> bool:
        """Whether the budget was met. If not, the package is the closest that was found."""
        return bool(self.result["status"] == "met")

    @property
    def package(self) -> Path:
        return self.folder / "model.fuse"

    @property
    def report(self) -> Path:
        return self.folder / "compress.html"

    @property
    def chosen(self) -> dict[str, Any]:
        """The trial that was chosen."""
        return next(t for t in self.result["trials"] if t["key"] == self.result["chosen"])

    def load(self) -> Predictor:
        return load(self.package)


def compress(
    model: str | Path,
    table: Any = None,
    *,
    max_latency: str | float | None = None,
    max_size: str | float | None = None,
    max_drop: float | None = None,
    metric: str = "auto",
    out: str | Path | None = None,
    teachers: Sequence[str | Path] = (),
    students: Mapping[str, Recipe | str | Path] | Sequence[str | Path] = (),
    epochs: int = 10,
    max_trials: int = 24,
    max_seconds: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    quiet: bool = False,
    cache: Cache | None = None,
    split: Split | None = None,
) -> Compressed:
    """Find the smallest and fastest model that keeps to a budget, and prove it on rows that were held out.

    Called again with the same `out`, it goes on where it was interrupted and comes to the same choice.

    Args:
        model: a package of float weights, or a run's folder.
        table: the table that the model was trained on; its split is made again. None: the one that the run names.
        max_latency: of one decoded row on this machine, e.g. "30ms".
        max_size: of the package, e.g. "50MB".
        max_drop: of the metric in points (0.5: AUROC 0.860 to 0.855); of errors in units, percent.
        metric: auto: the task's own.
        out: folder of the search. Default: compressed/NAME-TIME.
        teachers: more packages, whose mean answer teaches with the model's own (an ensemble).
        students: recipes of other models of the same inputs or fewer, tried too.
        epochs: of healing after a cut.
        max_trials: candidates measured at most.
        max_seconds: begin no candidate after that time.
        threads: of the packages that are measured. Default: what this process may use.
        seed: of everything.
        quiet: say nothing.
        cache: memory shared between calls.
        split: the parts, where the run was given a split of its own.

    Raises:
        FuselineError: ``bad_budget``, ``already_quantised``, ``cannot_rebuild``, ``changed`` where `out` holds the
            search of another model or table. A budget that cannot be met is no error: see `Compressed.met`.
    """
    need_training()
    from fuseline.lab.compress.run import run_search

    package = read_package(model)
    opened = _table(package, table)
    folder = _folder(out, package)
    named: dict[str, Recipe] = {}
    for name, recipe in students.items() if isinstance(students, Mapping) else [(Path(s).stem, s) for s in students]:
        named[str(name)] = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    result = run_search(
        package,
        opened,
        folder,
        limits=(max_latency, max_size, max_drop),
        metric=metric,
        teachers=[read_package(t) for t in teachers],
        students=named,
        epochs=epochs,
        max_trials=max_trials,
        max_seconds=max_seconds,
        threads=threads,
        seed=seed,
        voice=voice("quiet" if quiet else "auto"),
        cache=cache,
        split=split,
        table_name=str(table) if isinstance(table, (str, Path)) else None,
    )
    return Compressed(folder, result)


def _table(package: Package, table: Any) -> Table:
    from fuseline.lab.compress.subject import table_of

    given = table if table is not None else table_of(package.folder)
    if given is None:
        raise FuselineError("no_table", "nothing says which table the model was trained on", "give it: --data TABLE")
    return open_table(given, package.recipe.table)


def _folder(out: str | Path | None, package: Package) -> Path:
    if out is None:
        out = Path("compressed") / f"{package.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FuselineError("cannot_write", f"cannot make the folder {folder}: {error.strerror}", "") from None
    return folder
