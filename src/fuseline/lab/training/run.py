"""One run's folder, from the recipe to the report. Every stage writes whole files, so a kill loses at most a stage's
current interval and `resume` goes on from there."""

from __future__ import annotations

import datetime
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import fuseline
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.augment.sheet import write_sheet
from fuseline.lab.build import build_model
from fuseline.lab.export import export_package
from fuseline.lab.export.datasheet import DATASHEET, datasheet
from fuseline.lab.model import FusionModel
from fuseline.lab.pretrain.init import in_folder, keep_copy, load_init, open_init
from fuseline.lab.report import write_report
from fuseline.lab.robustness.measure import write_robustness
from fuseline.lab.stacked.choose import choose, learns_end_to_end, packaged
from fuseline.lab.stacked.options import boosts, check_stacked
from fuseline.lab.stacked.raw import RawTable
from fuseline.lab.sure.fit import check as check_sure
from fuseline.lab.sure.run import checked, sets_for, settle, slice_rows
from fuseline.lab.training import loop
from fuseline.lab.training.begin import begin
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.callbacks import Watch
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.evaluate import Outputs, run_rows
from fuseline.lab.training.held_out import held_out_profile, held_out_rows
from fuseline.lab.training.loggers import closes_trackers, log_result
from fuseline.lab.training.prepare import PARTS, Prepared, prepare
from fuseline.lab.training.reasons import write_reasons
from fuseline.lab.training.team import Team, begun
from fuseline.lab.training.unlabelled import check_unlabelled
from fuseline.package.files import finite, write_json, write_text
from fuseline.progress import Voice
from fuseline.recipe import Recipe, dump_recipe
from fuseline.tasks.degradation import degradation, subsets
from fuseline.tasks.sure import MEMBER, Sure

PARITY_ROWS = 16
KINDS = {"confidence": pl.Float64, "probabilities": pl.String, "error": pl.Float64}
"""of columns of predictions.parquet that may be absent in every row of a part"""


@dataclass
class Record:
    """What run.json holds. `stage` is the last finished one: resuming goes on behind it."""

    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    writes: bool = True
    """not in a team's other processes"""

    @classmethod
    def start(cls, folder: Path, recipe: Recipe, table: Table, path: Path | None, team: Team) -> Record:
        data = {
            "name": folder.name,
            "stage": "started",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "fuseline_version": fuseline.__version__,
            "seed": recipe.training.seed,
            "seconds": {},
            "processes": team.size,
            "table": {"path": None if path is None else str(path.resolve()), "rows": table.n_rows},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
        record = cls(folder, data, team.first)
        record.save()
        return record

    @classmethod
    def open(cls, folder: Path) -> Record:
        try:
            return cls(folder, json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            raise FuselineError("no_such_run", f"{folder} holds no run", "start one with `fuseline train`") from None

    def save(self, **more: Any) -> None:
        self.data |= more
        if self.writes:
            write_json(self.folder / "run.json", finite(self.data))

    def timed(self, stage: str, seconds: float) -> None:
        self.data["seconds"][stage] = round(self.data["seconds"].get(stage, 0.0) + seconds, 2)


@closes_trackers
def run(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    voice: Voice,
    cache: Cache | None = None,
    split: Split | None = None,
    table_path: Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """Train, evaluate, export and report. Returns what metrics.json holds.

    `team`: the processes that train together, of which each calls this with the same arguments; the first one alone
    writes and evaluates, the others return nothing once training has ended.

    `watch`: told of every validation, see :data:`Watch`.
    `table_path`: where the table came from, if it was a file: resuming and the report's gallery open it again.

    Raises FuselineError on anything the user can mend, KeyboardInterrupt after Ctrl-C (then `resume` goes on).
    """
    check_stacked(recipe)
    check_unlabelled(recipe)
    team = team or Team()
    team.meet()
    record = Record.open(folder) if resume else Record.start(folder, recipe, table, table_path, team)
    record.writes = team.first
    if not resume and team.first:
        recipe = keep_copy(recipe, folder)
        write_text(folder / "recipe.yaml", dump_recipe(in_folder(recipe)))
    cache = open_cache(recipe.training) if cache is None else cache
    clock = time.monotonic()
    with _own_folder(folder, team) as own:
        prepared = prepare(recipe, table, folder=own, voice=voice, cache=cache, split=split)
    if resume and record.data.get("table_digest", prepared.fingerprint()) != prepared.fingerprint():
        raise FuselineError(
            "table_changed", "the table is not the one that this run started on", "start a new run for a new table"
        )
    if recipe.training.unlabelled is not None and not len(prepared.unlabelled):
        raise FuselineError(
            "bad_recipe",
            "training.unlabelled: no row without a target is left to learn from",
            "remove the section, or name a file of such rows: training.unlabelled.rows",
        )
    check_sure(recipe, prepared)
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
    loop.check_metric(prepared, model)
    loop.begin(prepared, model)
    kept = loop.keep_frozen(prepared, model, voice)
    notes = prepared.notes
    learns = learns_end_to_end(prepared)
    if not learns and (recipe.training.unlabelled is not None or recipe.training.ema):
        raise FuselineError(
            "bad_recipe",
            "training.unlabelled, training.ema: nothing is trained by steps here, trees alone are boosted",
            "remove them, or choose `fusion: auto` or another fusion",
        )
    precision = record.data.get("precision") or (loop.choose_precision(prepared, model, notes) if learns else "float32")
    precision = team.agree(precision)
    for note in notes:
        voice.say(f"· {note}")
    total, trainable = loop.parameters(model)
    trainable = trainable if learns else 0
    record.timed("prepare", time.monotonic() - clock)
    more = {"unlabelled": len(prepared.unlabelled)} if len(prepared.unlabelled) else {}
    record.save(
        table_digest=prepared.fingerprint(),
        precision=precision,
        notes=list(dict.fromkeys([*record.data.get("notes", []), *notes])),
        parts={**{p: len(prepared.rows(p)) for p in PARTS}, **more, "quarantined": prepared.quarantined},
        inputs=_inputs(prepared, model),
        parameters={"total": total, "trainable": trainable},
        cache=kept,
    )
    if team.first:
        write_json(folder / "data.json", finite(prepared.data))
    voice.say(_opening(prepared, total, trainable))

    if not (resume and begun(folder)):
        clock = time.monotonic()
        start = open_init(recipe, prepared.plans)
        begin(model, recipe.training.seed, voice, but=() if start is None else start.taken)
        if start is not None:
            load_init(start, model)
            voice.say(f"· {start.said}")
            record.save(init=start.to_dict(), notes=[*record.data["notes"], start.said])
        record.timed("prepare", time.monotonic() - clock)
    best = None
    if learns:
        if team.first:
            write_sheet(prepared, folder)
        trained = loop.fit(prepared, model, folder, voice, resume=resume, precision=precision, watch=watch, team=team)
        record.data["seconds"]["train"] = round(trained.seconds, 2)
        best = trained.best
        if trained.unlabelled:
            record.data["unlabelled"] = trained.unlabelled
    if not team.first:
        return {}
    if boosts(recipe):
        clock = time.monotonic()
        choice = choose(prepared, model, folder, voice, trained=best, watch=watch)
        record.timed("boost", time.monotonic() - clock)
        model, best = choice.model, choice.best
        record.save(choice=choice.facts, inputs=_inputs(prepared, model))
    record.save(stage="trained", best=best)

    clock = time.monotonic()
    metrics, sure = _evaluate(prepared, model, folder, voice)
    record.timed("evaluate", time.monotonic() - clock)
    record.save(stage="evaluated", notes=list(dict.fromkeys([*record.data["notes"], *prepared.notes])))
    if recipe.evaluation.export and not recipe.evaluation.ensemble:  # that is made of all folds
        clock = time.monotonic()
        voice.say("exporting and replaying without torch")
        _export(prepared, model, folder, record, metrics, sure)
        record.timed("export", time.monotonic() - clock)
    if recipe.evaluation.robustness:
        clock = time.monotonic()
        write_robustness(prepared, model, folder, voice)
        record.timed("robustness", time.monotonic() - clock)
    write_text(folder / DATASHEET, datasheet(recipe, record.data, prepared.data))
    record.save(stage="done")
    if recipe.evaluation.report:
        write_report(folder)
    for note in log_result(recipe, folder, metrics):
        voice.say(f"· {note}")
        record.save(notes=[*record.data["notes"], note])
    return metrics


@contextmanager
def _own_folder(folder: Path, team: Team) -> Iterator[Path]:
    """Where this process may write what it finds in the table: all find the same, and one writes it for the user."""
    if team.first:
        yield folder
        return
    with tempfile.TemporaryDirectory() as own:
        yield Path(own)


def _opening(prepared: Prepared, total: int, trainable: int) -> str:
    parts = ", ".join(f"{len(prepared.rows(p))} {p}" for p in PARTS)
    inputs = ", ".join(f"{n} ({p.encoder}, {p.tune})" for n, p in prepared.plans.items())
    return f"{parts} rows · {inputs} · {trainable:,} of {total:,} parameters train"


def _inputs(prepared: Prepared, model: FusionModel) -> list[dict[str, Any]]:
    out = []
    for name, encoder in zip(model.names, model.encoders, strict=True):
        plan, (total, trainable) = prepared.plans[name], loop.parameters(encoder)
        out.append(
            {
                "name": name,
                "modality": plan.modality,
                "columns": list(prepared.parser.modalities[name].columns),
                "encoder": "cells" if isinstance(encoder, RawTable) else plan.encoder,
                "tune": "none" if isinstance(encoder, RawTable) else plan.tune,
                "parameters": total,
                "trainable": trainable,
            }
        )
    return out


def _evaluate(prepared: Prepared, model: FusionModel, folder: Path, voice: Voice) -> tuple[dict[str, Any], Sure | None]:
    spec, task = prepared.recipe.evaluation, prepared.task
    size = max(64, prepared.recipe.training.batch_size)
    sure = settle(prepared, model, voice, batch_size=size)
    about_sure: dict[str, Any] = {}
    sliced: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    tables: list[pl.DataFrame] = []
    degraded: list[dict[str, Any]] = []
    for part in spec.parts:
        rows = prepared.rows(part)
        if not len(rows):
            continue
        last = part == "test" or not len(prepared.rows("test")) or "test" not in spec.parts
        wanted = subsets(model.names) if spec.degradation and last else [tuple(model.names)]
        if sure is not None and part == "test":
            wanted = list(dict.fromkeys([*wanted, *sets_for(prepared, rows)]))
        outputs = run_rows(
            model, prepared.reader, rows, wanted, batch_size=size, voice=voice, title=f"evaluating {part}"
        )
        if part == "val":
            prepared.notes += task.settle(outputs.targets, outputs.full)
        groups = None if prepared.groups is None else prepared.groups[rows]
        seed = prepared.recipe.training.seed
        scores = task.score(outputs.targets, outputs.full, bootstrap=spec.bootstrap, seed=seed, groups=groups)
        parts[part] = finite(scores.to_dict())
        tables.append(predictions(prepared, outputs, part, model.names))
        if spec.degradation and last:
            degraded = degradation(
                task,
                model.names,
                outputs.present_NM,
                outputs.targets,
                {s: outputs.by_subset[s] for s in subsets(model.names)},
                bootstrap=min(200, spec.bootstrap),
                seed=seed,
                groups=groups,
            )
        if sure is not None and part == "test":
            about_sure = checked(prepared, sure, outputs)
        if spec.slices and last:
            sliced = {"of": part, **slice_rows(prepared, outputs)}
    metrics = {"task": task.name, "metric": task.metric, "parts": parts, "degradation": finite(degraded)}
    if sure is not None:
        metrics["sure"] = finite(about_sure or {"about": sure.about, "rows": 0, "tasks": {}})
    if sliced:
        metrics["slices"] = finite(sliced)
    write_json(folder / "metrics.json", metrics)
    if tables:
        whole = pl.concat(tables)
        whole.write_parquet(folder / "predictions.parquet")
        if spec.report:
            write_reasons(prepared, model, whole, folder, voice)
    return metrics, sure


def predictions(prepared: Prepared, outputs: Outputs, part: str, names: tuple[str, ...]) -> pl.DataFrame:
    """Row by row: target, answer, how sure, what it was based on."""
    decoded = prepared.task.decode(outputs.full)
    columns = list(prepared.task.columns)
    cells = Table.rows(prepared.table.take(outputs.rows, columns)) if columns else [{} for _ in decoded]
    out: dict[str, list[Any]] = {
        "row": [int(r) for r in outputs.rows],
        "part": [part] * len(decoded),
        "target": [_text(c[columns[0]] if len(columns) == 1 else _numbers(c)) for c in cells],
        "value": [_text(d.value) for d in decoded],
        "confidence": [max(d.probabilities.values()) if d.probabilities else None for d in decoded],
        "probabilities": [
            json.dumps(d.probabilities, ensure_ascii=False) if d.probabilities else None for d in decoded
        ],
        "used": [json.dumps([n for n, p in zip(names, row, strict=True) if p]) for row in outputs.present_NM],
    }
    out |= prepared.task.judge(outputs.targets, outputs.full, decoded)
    if any(d.details is not None for d in decoded):
        out["details"] = [json.dumps(finite(d.details), ensure_ascii=False) for d in decoded]
    return pl.DataFrame(out, schema_overrides={k: v for k, v in KINDS.items() if k in out})


def _numbers(cells: dict[str, Any]) -> dict[str, Any]:
    """Several targets are numbers, which a CSV holds as text."""
    return {column: _number(cell) if isinstance(cell, str) else cell for column, cell in cells.items()}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = finite(value.tolist())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _export(
    prepared: Prepared, model: FusionModel, folder: Path, record: Record, metrics: dict[str, Any], sure: Sure | None
) -> None:
    _, rows = held_out_rows(prepared)
    chosen = rows[np.linspace(0, len(rows) - 1, min(PARITY_ROWS, len(rows))).astype(int)]
    parsed = []
    for row in Table.rows(prepared.table.take(chosen, list(prepared.parser.columns))):
        got = prepared.parser.parse(row, prepared.reader.media)
        if got.error is not None:
            raise got.error
        parsed.append(got.values)
    export_package(
        model,
        recipe=packaged(prepared.recipe, model).model_copy(update={"init": None}),
        parser=prepared.parser,
        task=prepared.task,
        rows=parsed,
        target=folder / "model.fuse",
        name=folder.name,
        run=record.data,
        metrics=metrics,
        profile={**prepared.profile, **held_out_profile(prepared, model)},
        extra={} if sure is None else {MEMBER: finite(sure.to_dict())},
        texts={DATASHEET: datasheet(prepared.recipe, record.data, prepared.data)},
    )
