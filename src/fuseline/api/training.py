"""Training from Python: train, resume, compare."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseline.api.run import Run
from fuseline.api.sources import PART, UNLABELLED, path_of, recipe_and_table, with_cache_folder
from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice, voice
from fuseline.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from fuseline.data.split import Split
    from fuseline.lab.training.cache import Cache
    from fuseline.lab.training.team import Team


def train(
    source: Any,
    *,
    target: str | None = None,
    table: Any = None,
    out: str | Path | None = None,
    on_error: str | None = None,
    quiet: bool = False,
    cache: Cache | None = None,
    cache_folder: str | Path | None = None,
    split: Split | None = None,
    workers: int = 1,
    engine: str = "local",
    strategy: str = "ddp",
    init: str | Path | None = None,
) -> Run:
    """Train, evaluate, package and report one run (or one a fold).

    Under torchrun every process calls this with the same arguments, `out` among them; the first one's run is the run.

    Args:
        source: a recipe (YAML path, dict or Recipe), or a table, then with `target`.
        target: the column to predict, where `source` is a table.
        table: the table, where the recipe names none or another is meant.
        out: the run's folder; must not hold a run. Default: runs/NAME-TIME.
        on_error: "stop" or "quarantine" instead of the recipe's table.on_error.
        quiet: say nothing.
        cache: memory shared between runs (decoded cells, frozen encoders' tokens); instead of the recipe's, the folder
            on disk included.
        cache_folder: where frozen encoders' tokens are kept for later runs, or "off", instead of the recipe's
            training.cache_folder.
        split: a split made by the caller instead of the recipe's.
        workers: processes that train together (data parallel); `training.batch_size` is of all of them.
        engine: who starts them: "local" (torchrun, on this machine) or "ray" (Ray Train, on a cluster).
        strategy: "ddp": each process has the whole model; "fsdp": weights, gradients and the optimiser's state are
            split over them, for a model that is too large for one. What is learned is the same.
        init: a folder of :func:`fuseline.pretrain` to begin from, instead of the recipe's `init`.

    Raises:
        FuselineError: with the row, column or recipe path at fault. KeyboardInterrupt after Ctrl-C: see :func:`resume`.
    """
    need_training()
    recipe, opened, path = recipe_and_table(source, table, target)
    if on_error is not None:
        data = recipe.model_dump()
        data["table"]["on_error"] = on_error
        recipe = parse_recipe(data)
    recipe = with_cache_folder(recipe, cache_folder)
    if init is not None:
        recipe = recipe.model_copy(update={"init": str(Path(init).expanduser().absolute())})
    from fuseline.lab.training.team import Team

    team = Team.of_environment(strategy=strategy)
    if team.size > 1:
        return _member(team, recipe, opened, path, out, quiet)
    speak = voice("quiet" if quiet else "auto")
    _can_be_split(workers, strategy)
    if recipe.evaluation.ensemble:
        from fuseline.lab.ensemble.same import check_ensemble

        check_ensemble(recipe)
        if split is not None:
            raise FuselineError("bad_recipe", "an ensemble is of the recipe's own folds", "leave split=... away")
    folder = new_folder(out, path)
    if workers > 1 or engine != "local":
        _can_be_shared(recipe, path, split)
        assert path is not None
        from fuseline.lab.scale.launch import train_together

        with _resumable(folder, speak):
            train_together(recipe, path, folder, workers=workers, engine=engine, strategy=strategy, quiet=quiet)
        return Run(folder)
    if (
        recipe.split.column == PART or UNLABELLED in opened.columns
    ):  # resuming and the report need the joined rows again
        path = folder / "table.parquet"
        opened.take(np.arange(opened.n_rows)).write_parquet(path)
    with _resumable(folder, speak):
        if recipe.split.folds and split is None:
            return _cross_validate(recipe, opened, path, folder, speak, cache)
        from fuseline.lab.training.run import run

        run(recipe, opened, folder, voice=speak, cache=cache, split=split, table_path=path)
    return Run(folder)


def _can_be_split(workers: int, strategy: str) -> None:
    """Raises FuselineError ``bad_team`` for one process."""
    if strategy == "fsdp" and workers == 1:
        raise FuselineError("bad_team", "strategy fsdp splits a model over several processes", "--workers 2 or more")


def _can_be_shared(recipe: Recipe, path: Path | None, split: Split | None) -> None:
    """Raises FuselineError ``bad_team`` for what several processes cannot train."""
    if recipe.split.folds:
        raise FuselineError(
            "bad_team", "folds are trained one after the other, each by one process", "leave split.folds, or --workers"
        )
    if recipe.training.adversarial is not None:
        raise FuselineError(
            "bad_team", "adversarial training by several processes was never tried", "leave training.adversarial"
        )
    if recipe.training.unlabelled is not None or recipe.training.ema:
        raise FuselineError(
            "bad_team",
            "rows without a target and averaged weights were never tried with several processes",
            "leave training.unlabelled and training.ema, or --workers",
        )
    if path is None or split is not None or recipe.split.column == PART:
        raise FuselineError(
            "bad_team", "a table in memory is in one process only", "give a file that all processes can read"
        )


def _member(team: Team, recipe: Recipe, table: Table, path: Path | None, out: str | Path | None, quiet: bool) -> Run:
    """One of the processes that torchrun started."""
    from fuseline.lab.training.run import run
    from fuseline.lab.training.team import begun

    _can_be_shared(recipe, path, None)
    if out is None:
        raise FuselineError("bad_usage", "all processes must mean the same folder", "give --out")
    folder = Path(out)
    team.meet()
    restarted = begun(folder) and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if not restarted and team.first:
        new_folder(out, path)
    team.wait()
    speak = voice("quiet" if quiet or not team.first else "auto")
    run(recipe, table, folder, voice=speak, table_path=path, resume=restarted, team=team)
    return Run(folder)


def resume(
    folder: str | Path,
    *,
    table: Any = None,
    quiet: bool = False,
    workers: int = 1,
    engine: str = "local",
    strategy: str = "ddp",
) -> Run:
    """Go on with a run that was interrupted; ends with the weights that an uninterrupted run would have.

    Args:
        folder: the run's folder; of a cross-validation the one that holds its folds.
        table: the table, where the run was given one that is not a file.
        quiet: say nothing.
        workers: as in :func:`train`; as many as before or not.
        engine: as in :func:`train`.
        strategy: as in :func:`train`; the one of before or not.
    """
    need_training()
    from fuseline.lab.training.run import Record, run
    from fuseline.lab.training.team import Team

    path = Path(folder)
    first = path / "fold-0"
    folds = (first / "run.json").exists()
    record = Record.open(first if folds else path)
    recipe = load_recipe(record.folder / "recipe.yaml")
    if recipe.split.folds and not folds:
        raise FuselineError(
            "bad_usage", f"{path} is one fold of a cross-validation", f"go on with all of it: --resume {path.parent}"
        )
    given = table if table is not None else record.data["table"]["path"]
    if given is None:
        raise FuselineError("no_table", "the run was given a table in memory", "pass the same table again: table=...")
    opened = open_table(given, recipe.table)
    team = Team.of_environment(strategy=strategy)
    if team.size > 1:  # by torchrun: alone, each process would write the same folder
        _can_be_shared(recipe, path_of(given), None)
        run(recipe, opened, path, voice=voice("quiet" if quiet or not team.first else "auto"), resume=True, team=team)
        return Run(path)
    _can_be_split(workers, strategy)
    speak = voice("quiet" if quiet else "auto")
    with _resumable(path, speak):
        if folds:
            return _cross_validate(
                recipe, opened, path_of(record.data["table"]["path"]), path, speak, None, resume=True
            )
        if workers > 1 or engine != "local":
            file = path_of(given)
            _can_be_shared(recipe, file, None)
            assert file is not None
            from fuseline.lab.scale.launch import train_together

            train_together(recipe, file, path, workers=workers, engine=engine, strategy=strategy, quiet=quiet)
        else:
            run(recipe, opened, path, voice=speak, resume=True)
    return Run(path)


@contextmanager
def _resumable(folder: Path, speak: Voice) -> Iterator[None]:
    """After Ctrl-C, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "run.json").exists() or (folder / "fold-0" / "run.json").exists():
            speak.say(f"to go on: fuseline train --resume {folder}")
        raise


def need_training() -> None:
    import importlib.util

    missing = [m for m in ("torch", "pytorch_lightning", "transformers") if importlib.util.find_spec(m) is None]
    if missing:
        raise FuselineError(
            "missing_extra", f"training needs {', '.join(missing)}", "pip install 'fuseline[train]' on this machine"
        )


def new_folder(out: str | Path | None, table: Path | None, word: str = "run") -> Path:
    if out is None:
        out = Path("runs") / f"{table.stem if table else word}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(out)
    if _is_begun(folder):
        raise FuselineError(
            "run_exists", f"{folder} holds a run already", "choose another folder, or go on with it: --resume"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {folder}: {error.strerror}"
        raise FuselineError("cannot_write", message, "name another") from None
    return folder


def _is_begun(folder: Path) -> bool:
    """Whether a run got past its preparation: one that stopped at a bad cell may be started anew in its folder. Runs of
    before 2026-12 have another name for their table's digest."""
    if (folder / "folds.json").exists() or (folder / "pretrained.json").exists():
        return True
    for file in (folder / "run.json", folder / "fold-0" / "run.json", folder / "pretraining.json"):
        try:
            if {"table_digest", "fingerprint"} & set(json.loads(file.read_text(encoding="utf-8"))):
                return True
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError):
            return True
    return False


def _cross_validate(
    recipe: Recipe,
    table: Table,
    path: Path | None,
    folder: Path,
    speak: Voice,
    cache: Cache | None,
    resume: bool = False,
) -> Run:
    from fuseline.lab.training.disk.where import open_cache
    from fuseline.lab.training.prepare import fold_rows
    from fuseline.lab.training.run import run

    cache = cache or open_cache(recipe.training)
    folds: list[dict[str, Any]] = []
    splits = fold_rows(recipe, table)
    metrics: dict[str, Any] = {}
    for i, split in enumerate(splits):
        speak.say(f"fold {i + 1} of {len(splits)}")
        part = folder / f"fold-{i}"
        part.mkdir(exist_ok=True)
        begun = resume and (part / "run.json").exists()
        if begun and _is_done(Run(part), recipe):
            metrics = Run(part).metrics
        else:
            metrics = run(recipe, table, part, voice=speak, cache=cache, split=split, table_path=path, resume=begun)
        scores = {k: m["value"] for k, m in metrics["parts"]["test"]["metrics"].items()}
        folds.append({"fold": i, "folder": part.name, "metrics": scores})
    names = list(folds[0]["metrics"])
    values = {n: np.array([f["metrics"][n] for f in folds], dtype=float) for n in names}
    summed = {
        "task": metrics["task"],
        "metric": metrics["metric"],
        "folds": folds,
        "mean": {n: np.nanmean(v) if np.isfinite(v).any() else None for n, v in values.items()},
        "std": {n: np.nanstd(v) if np.isfinite(v).any() else None for n, v in values.items()},
    }
    if recipe.evaluation.ensemble:
        from fuseline.api.ensembles import written

        summed["out_of_fold"] = written(recipe, table, splits, folder, speak, cache)
    write_json(folder / "folds.json", finite(summed))
    if recipe.evaluation.report:
        from fuseline.lab.report import write_report

        write_report(folder)
    return Run(folder)


def _is_done(run: Run, recipe: Recipe) -> bool:
    return run.record["stage"] == "done" and (run.report.exists() or not recipe.evaluation.report)


def compare(runs: Sequence[str | Path | Run], *, out: str | Path | None = None) -> Any:
    """Runs side by side: metrics with intervals, cost, and where their recipes differ.

    Args:
        runs: run folders (or Runs).
        out: also write an HTML page there.
    """
    need_training()
    from fuseline.lab.report.compare import compare as compare_folders
    from fuseline.lab.report.compare import write_comparison

    folders = [r.folder if isinstance(r, Run) else Path(r) for r in runs]
    if out is not None:
        write_comparison(folders, Path(out))
    return compare_folders(folders)
