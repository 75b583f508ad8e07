"""Fuseline from Python: init, train, evaluate, predict, compare."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseline.data.draft import draft_recipe
from fuseline.data.infer import infer
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.package.files import finite, write_json, write_text
from fuseline.progress import Voice, voice
from fuseline.recipe import Recipe, load_recipe, parse_recipe
from fuseline.runtime import Predictor, load

if TYPE_CHECKING:
    from fuseline.data.infer import Inferred
    from fuseline.data.split import Split
    from fuseline.lab.training.cache import Cache

RECIPE_ENDINGS = (".yaml", ".yml")
PART = "part given by file"


@dataclass(frozen=True)
class Run:
    """A training run's folder and what is in it."""

    folder: Path

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FuselineError(
                "no_such_run", f"{self.folder} has no {name}", "did the training finish? see `fuseline train --resume`"
            ) from None

    @property
    def record(self) -> dict[str, Any]:
        """run.json: seed, parts, seconds, notes said aloud, versions."""
        return dict(self._json("run.json"))

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; of a cross-validation folds.json."""
        return dict(self._json("folds.json" if (self.folder / "folds.json").exists() else "metrics.json"))

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def package(self) -> Path:
        return self.folder / "model.fuse"

    def load(self) -> Predictor:
        """The packaged model, verified and without torch."""
        return load(self.folder)

    def score(self, metric: str | None = None, part: str = "test") -> float:
        """One metric of one part (of a cross-validation: its mean over folds)."""
        metrics = self.metrics
        name = metric or metrics["metric"]
        if "mean" in metrics:
            return float(metrics["mean"][name])
        return float(metrics["parts"][part]["metrics"][name]["value"])


def init(table: Any, target: str | None = None) -> tuple[str, Inferred]:
    """A commented recipe for a table, and what was decided about each column and why.

    Args:
        table: a path, or a pandas, polars, Arrow or Hugging Face table.
        target: the column to predict; None leaves a place for it.
    """
    opened = Table.open(table)
    inferred = infer(opened, target)
    path = str(table) if isinstance(table, (str, Path)) else ""
    return draft_recipe(path, inferred, target), inferred


def _recipe_and_table(source: Any, table: Any, target: str | None) -> tuple[Recipe, Table, Path | None]:
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
    path = _path(table)
    opened = table if isinstance(table, Table) else Table.open(table, absent=recipe.table.absent)
    if recipe.split.val_path or recipe.split.test_path:
        recipe, opened = _given_files(recipe, opened, base)
        path = None
    return recipe, opened, path


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
    data = recipe.model_dump()
    data["split"] |= {"kind": "given", "column": PART, "val_path": None, "test_path": None}
    data["table"]["media_root"] = recipe.table.media_root or (str(table.folder) if table.folder else None)
    return parse_recipe(data), whole


def _path(table: Any) -> Path | None:
    return Path(table) if isinstance(table, (str, Path)) else None


def train(
    source: Any,
    *,
    target: str | None = None,
    table: Any = None,
    out: str | Path | None = None,
    on_error: str | None = None,
    quiet: bool = False,
    cache: Cache | None = None,
    split: Split | None = None,
) -> Run:
    """Train, evaluate, package and report one run (or one a fold).

    Args:
        source: a recipe (YAML path, dict or Recipe), or a table, then with `target`.
        target: the column to predict, where `source` is a table.
        table: the table, where the recipe names none or another is meant.
        out: the run's folder; must not hold a run. Default: runs/NAME-TIME.
        on_error: "stop" or "quarantine" instead of the recipe's table.on_error.
        quiet: say nothing.
        cache: memory shared between runs (decoded cells, frozen encoders' tokens).
        split: a split made by the caller instead of the recipe's.

    Raises:
        FuselineError: with the row, column or recipe path at fault. KeyboardInterrupt after Ctrl-C: see :func:`resume`.
    """
    _need_training()
    recipe, opened, path = _recipe_and_table(source, table, target)
    if on_error is not None:
        data = recipe.model_dump()
        data["table"]["on_error"] = on_error
        recipe = parse_recipe(data)
    speak = voice("quiet" if quiet else "auto")
    folder = _new_folder(out, path)
    if recipe.split.column == PART:  # resuming and the report need the joined rows again
        path = folder / "table.parquet"
        opened.take(np.arange(opened.n_rows)).write_parquet(path)
    with _resumable(folder, speak):
        if recipe.split.folds and split is None:
            return _cross_validate(recipe, opened, path, folder, speak, cache)
        from fuseline.lab.training.run import run

        run(recipe, opened, folder, voice=speak, cache=cache, split=split, table_path=path)
    return Run(folder)


def resume(folder: str | Path, *, table: Any = None, quiet: bool = False) -> Run:
    """Go on with a run that was interrupted; ends with the weights that an uninterrupted run would have.

    Args:
        folder: the run's folder; of a cross-validation the one that holds its folds.
        table: the table, where the run was given one that is not a file.
        quiet: say nothing.
    """
    _need_training()
    from fuseline.lab.training.run import Record, run

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
    opened = Table.open(given, absent=recipe.table.absent)
    speak = voice("quiet" if quiet else "auto")
    with _resumable(path, speak):
        if folds:
            return _cross_validate(recipe, opened, _path(record.data["table"]["path"]), path, speak, None, resume=True)
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


def _need_training() -> None:
    import importlib.util

    missing = [m for m in ("torch", "pytorch_lightning", "transformers") if importlib.util.find_spec(m) is None]
    if missing:
        raise FuselineError(
            "missing_extra", f"training needs {', '.join(missing)}", "pip install 'fuseline[train]' on this machine"
        )


def _new_folder(out: str | Path | None, table: Path | None) -> Path:
    if out is None:
        out = Path("runs") / f"{table.stem if table else 'run'}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(out)
    if _is_begun(folder):
        raise FuselineError(
            "run_exists", f"{folder} holds a run already", "choose another folder, or go on with it: --resume"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FuselineError("cannot_write", f"cannot make the folder {folder}: {error.strerror}", "") from None
    return folder


def _is_begun(folder: Path) -> bool:
    """Whether a run got past its preparation: one that stopped at a bad cell may be started anew in its folder."""
    if (folder / "folds.json").exists():
        return True
    for file in (folder / "run.json", folder / "fold-0" / "run.json"):
        try:
            if "fingerprint" in json.loads(file.read_text(encoding="utf-8")):
                return True
        except FileNotFoundError:
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
    from fuseline.data.split import make_folds
    from fuseline.lab.training.cache import Cache as NewCache
    from fuseline.lab.training.prepare import target_columns
    from fuseline.lab.training.run import run

    cache = cache or NewCache(recipe.training.cache_mb)
    folds: list[dict[str, Any]] = []
    splits = make_folds(table, recipe.split, target_column=target_columns(recipe)[0], task_kind=recipe.task.kind)
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
    write_json(
        folder / "folds.json",
        finite(
            {
                "task": metrics["task"],
                "metric": metrics["metric"],
                "folds": folds,
                "mean": {n: np.nanmean(v) if np.isfinite(v).any() else None for n, v in values.items()},
                "std": {n: np.nanstd(v) if np.isfinite(v).any() else None for n, v in values.items()},
            }
        ),
    )
    if recipe.evaluation.report:
        from fuseline.lab.report import write_report

        write_report(folder)
    return Run(folder)


def _is_done(run: Run, recipe: Recipe) -> bool:
    return run.record["stage"] == "done" and (run.report.exists() or not recipe.evaluation.report)


def _table_for(
    predictor: Predictor,
    table: Any,
    absent: Sequence[str],
    extra: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> Table:
    """Open a table for a package. A column that the package reads must be there unless it is named in `absent`."""
    recipe = predictor.package.recipe
    opened = Table.open(table, absent=recipe.table.absent, cache_dir=cache_dir)
    for name in absent:
        if name not in recipe.inputs and name not in predictor.rows.columns:
            raise FuselineError(
                "unknown_column", f"the model has no input {name!r}", f"it has: {', '.join(recipe.inputs)}"
            )
    needed = [
        column
        for name, spec in recipe.inputs.items()
        for column in recipe.columns_of(name)
        if spec.required and name not in absent and column not in absent
    ]
    opened.require([*dict.fromkeys(needed), *extra])
    return opened


def _columns_there(table: Table, wanted: Sequence[str], absent: Sequence[str], predictor: Predictor) -> list[str]:
    hidden = {c for n in absent if n in predictor.rows.names for c in predictor.package.recipe.columns_of(n)} | set(
        absent
    )
    return [c for c in dict.fromkeys(wanted) if c in table.columns and c not in hidden]


def evaluate(
    model: str | Path | Predictor,
    table: Any,
    *,
    absent: Sequence[str] = (),
    bootstrap: int = 1000,
    subsets: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Metrics of a package on a labelled table, as metrics.json holds them. Needs no torch.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: anything that :func:`train` takes as a table, with the target column.
        absent: inputs to treat as absent in every row, whether or not the table has them.
        bootstrap: resamples of the 95 % intervals.
        subsets: also measure every subset of inputs (the degradation table).
        quiet: say nothing.
    """
    from fuseline.runtime.evaluate import evaluate_frames

    predictor = model if isinstance(model, Predictor) else load(model)
    opened = _table_for(predictor, table, absent, predictor.task.columns)
    columns = _columns_there(opened, [*predictor.rows.columns, *predictor.task.columns], absent, predictor)
    return evaluate_frames(
        predictor,
        opened.batches(columns, 256),
        rows=opened.n_rows,
        media=_media(predictor, opened),
        voice=voice("quiet" if quiet else "auto"),
        bootstrap=bootstrap,
        subsets_too=subsets,
    )


def _media(predictor: Predictor, table: Table) -> MediaRoot:
    root = predictor.package.recipe.table.media_root
    return MediaRoot(root or (str(table.folder) if table.folder else None))


def predict(
    model: str | Path | Predictor,
    table: Any,
    out: str | Path,
    *,
    absent: Sequence[str] = (),
    batch_size: int = 32,
    quiet: bool = False,
) -> dict[str, int]:
    """Answer every row of a table into a file (.csv, .jsonl or .parquet), streaming. Returns counts of rows and errors.

    A row that cannot be read gets its error in the `error` column; the rest goes on.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: the rows.
        out: where the answers go; written whole or not at all.
        absent: inputs to treat as absent in every row.
        batch_size: rows run at once.
        quiet: say nothing.
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    target = Path(out)
    kind = target.suffix.lower()
    if kind not in (".csv", ".jsonl", ".parquet"):
        raise FuselineError("bad_output", f"cannot write {target.name}", "the name ends in .csv, .jsonl or .parquet")
    opened = _table_for(predictor, table, absent)
    columns = _columns_there(opened, predictor.rows.columns, absent, predictor)
    counts = {"rows": 0, "errors": 0}
    speak = voice("quiet" if quiet else "auto")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(target.name + ".new")
    with new.open("w", encoding="utf-8", newline="") as file, speak.track("predicting", opened.n_rows) as advance:
        writer = csv.writer(file)
        if kind == ".csv":
            writer.writerow(["row", "value", "confidence", "probabilities", "used", "absent", "notes", "error"])
        frames = opened.batches(columns, 256)
        for start, answers in predictor.predict_frames(frames, media=_media(predictor, opened), batch_size=batch_size):
            for i, answer in enumerate(answers):
                counts["rows"] += 1
                counts["errors"] += answer.error is not None
                confidence = max(answer.probabilities.values()) if answer.probabilities else None
                if kind == ".csv":
                    writer.writerow(
                        [
                            start + i,
                            answer.value if isinstance(answer.value, (str, int, float)) else _dump(answer.value),
                            confidence,
                            _dump(answer.probabilities),
                            _dump(answer.used),
                            _dump(answer.absent),
                            _dump(answer.notes),
                            str(answer.error) if answer.error else "",
                        ]
                    )
                else:
                    plain = answer.to_dict()
                    if kind == ".parquet":  # one column a key, nested values as JSON text
                        plain = {k: v if isinstance(v, str) else _dump(v) for k, v in plain.items()}
                    file.write(json.dumps({"row": start + i, **plain}, ensure_ascii=False) + "\n")
            advance(len(answers))
    if kind == ".parquet":
        import polars as pl

        schema = {"row": pl.Int64, "value": pl.String, "probabilities": pl.String, "used": pl.String}
        schema |= {"absent": pl.String, "interval": pl.String, "notes": pl.String, "error": pl.String}
        lines = target.with_name(target.name + ".lines")
        pl.scan_ndjson(new, schema=schema).sink_parquet(lines)
        new.unlink()
        new = lines
    new.replace(target)
    return counts


def batch(
    model: str | Path | Predictor,
    table: Any,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    batch_size: int = 32,
    shard_rows: int = 10_000,
    resume: bool = True,
    absent: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, int]:
    """Answer every row of a large table into Parquet parts of a folder. A run that was killed goes on where it was.

    Columns of a part: row, value, confidence and p_LABEL (a class's probability) or low and high (an interval), used,
    absent, notes, error. A row that cannot be read has only its error; the rest goes on.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: the rows; streamed where it is a file.
        out: a folder of its own for the parts. Read it as `part-*.parquet`.
        engine: "local", with every core of this process, or "ray": Ray Data, on a cluster if there is one.
        workers: processes of the Ray engine. Default: one a core.
        batch_size: rows run at once.
        shard_rows: rows of a part; what a kill can cost.
        resume: go on with the parts that the folder holds; False: throw them away.
        absent: inputs to treat as absent in every row.
        quiet: say nothing.

    Returns:
        Counts: rows, errors, parts, kept (parts that were there before).

    Raises:
        FuselineError: ``changed`` where the folder's parts were made from another package, table or options;
            ``cannot_write``, ``missing_column``, ``empty_table`` and the like.
    """
    from fuseline.runtime.batch import fingerprint_of, score_table
    from fuseline.runtime.parts import Parts

    predictor = model if isinstance(model, Predictor) else load(model)
    parts = Parts(Path(out).resolve())
    parts.check()
    opened = _table_for(predictor, table, absent, cache_dir=parts.table)
    return score_table(
        predictor,
        opened,
        parts.folder,
        columns=_columns_there(opened, predictor.rows.columns, absent, predictor),
        media=_media(predictor, opened),
        fingerprint=fingerprint_of(table, opened),
        absent=absent,
        engine=engine,
        workers=workers,
        batch_size=batch_size,
        shard_rows=shard_rows,
        resume=resume,
        voice=voice("quiet" if quiet else "auto"),
    )


def _dump(value: Any) -> str:
    return "" if value is None or value == [] else json.dumps(value, ensure_ascii=False, default=str)


def compare(runs: Sequence[str | Path | Run], *, out: str | Path | None = None) -> Any:
    """Runs side by side: metrics with intervals, cost, and where their recipes differ.

    Args:
        runs: run folders (or Runs).
        out: also write an HTML page there.
    """
    _need_training()
    from fuseline.lab.report.compare import compare as compare_folders
    from fuseline.lab.report.compare import write_comparison

    folders = [r.folder if isinstance(r, Run) else Path(r) for r in runs]
    if out is not None:
        write_comparison(folders, Path(out))
    return compare_folders(folders)


def write_recipe(text: str, path: Path, *, force: bool = False) -> None:
    """Write a drafted recipe; an existing file is kept unless `force`."""
    if path.exists() and not force:
        raise FuselineError("file_exists", f"{path} exists", "choose another name with -o, or overwrite with --force")
    write_text(path, text)
