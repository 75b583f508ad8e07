"""From a recipe to all that training needs: split, fitted modalities, checked cells. Nothing here trains."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.data.digest import CellsDigest
from fuseline.data.edges import Edges, edge_leaks
from fuseline.data.leaks import Leak, check_leaks, row_leak
from fuseline.data.profile import ProfileBuilder
from fuseline.data.quarantine import Quarantine
from fuseline.data.split import Split, make_folds, make_split
from fuseline.data.table import Table
from fuseline.data.windows import Windows, keep_apart
from fuseline.errors import FuselineError
from fuseline.lab.augment import augment_class
from fuseline.lab.build import Plan, plan_inputs
from fuseline.lab.heads import head_class
from fuseline.lab.pretrain.init import open_init
from fuseline.lab.stacked.options import few_rows
from fuseline.lab.training.bucket import WORTH, length_of, saved
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.reader import Reader, Row
from fuseline.lab.training.unlabelled import check_threshold, unlabelled_rows
from fuseline.modalities import Cells, MediaRoot, modality_class
from fuseline.modalities.graph import Graph
from fuseline.modalities.rows import RowParser
from fuseline.modalities.timeseries import TimeSeriesConfig
from fuseline.progress import Voice
from fuseline.recipe import Recipe, read_options
from fuseline.tasks import Task, TaskConfig, task_class
from fuseline.tasks.bootstrap import group_codes

PARTS = ("train", "val", "test")
CALIBRATION = 3
"""in `Prepared.part`: validation rows that early stopping does not see (evaluation.calibration_share)"""
CHUNK = 256
TAKEN = " taken as absent"
"""end of a note of a broken cell, as RowParser writes it"""
LISTS = ("images", "texts", "video")
"""modalities whose cells may be lists: their items are compared one by one"""


@dataclass
class Prepared:
    """A table ready to train on. `part` holds 0 train, 1 val, 2 test, 3 kept for calibration, -1 unused for each
    row."""

    recipe: Recipe
    table: Table
    part: np.ndarray
    plans: dict[str, Plan]
    parser: RowParser
    task: Task
    reader: Reader
    notes: list[str]
    data: dict[str, Any]
    profile: dict[str, Any] = field(default_factory=dict)
    quarantined: int = 0
    length_N: np.ndarray | None = None
    """of each row, where batches are of rows of like length"""
    groups: np.ndarray | None = None
    """group of each row as an integer, where the split is by group or rows are windows: the bootstrap resamples whole
    groups"""
    unlabelled: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """numbers of the rows that train without a target; their `part` is -1"""
    cells: str = ""
    """digest of every cell that a row of a part has"""

    def rows(self, part: str) -> np.ndarray:
        return np.flatnonzero(self.part == PARTS.index(part))

    def fingerprint(self) -> str:
        """Tells whether a resumed run sees the table that it started on."""
        text = hashlib.sha256(self.part.tobytes() + self.unlabelled.tobytes())
        text.update(repr((self.table.columns, self.table.n_rows, self.cells)).encode())
        return text.hexdigest()


def read_task(recipe: Recipe) -> tuple[type[Task], TaskConfig]:
    """The task's class and its options. Raises FuselineError ``unknown_kind``, ``bad_recipe``."""
    kind, options = task_class(recipe.task.kind), recipe.task.options
    config = read_options(kind.Config, options, "task")
    more = head_class(recipe.task.kind).task_options(config)
    return kind, read_options(kind.Config, {**more, **options}, "task") if more else config


def split_rows(recipe: Recipe, table: Table) -> Split:
    """The recipe's split of its table."""
    kind, config = read_task(recipe)
    split = make_split(table, recipe.split, target_column=_needed(config), stratify=kind.stratify, spread=config.spread)
    return keep_apart(table, recipe.split, [split])[0]


def fold_rows(recipe: Recipe, table: Table) -> list[Split]:
    """The recipe's folds of its table."""
    kind, config = read_task(recipe)
    splits = make_folds(
        table, recipe.split, target_column=_needed(config), stratify=kind.stratify, spread=config.spread
    )
    return keep_apart(table, recipe.split, splits)


def _needed(config: TaskConfig) -> str | None:
    """The target that a row must have to be in any part."""
    return config.columns[0] if config.columns and not config.targets_may_be_absent else None


def prepare(
    recipe: Recipe,
    table: Table,
    *,
    folder: Path,
    voice: Voice,
    cache: Cache,
    split: Split | None = None,
    task: Task | None = None,
) -> Prepared:
    """Check everything that can be checked before the first step, in the order in which it fails fastest.

    `task`: instead of the recipe's, whose target columns need not be there then.
    """
    plans = plan_inputs(recipe)
    for plan in plans.values():
        augment = augment_class(plan.modality)
        if plan.augment is not None and augment is not None:
            augment.check(plan.augment)
    task_type, task_config = read_task(recipe)
    targets = list(task_config.columns) if task is None else []
    wanted = [c for name in recipe.inputs for c in recipe.columns_of(name)]
    table.require([*wanted, *targets])
    begun = open_init(recipe, plans)
    both = set(wanted) & set(targets)
    if both and not task_config.targets_may_be_inputs:
        raise FuselineError("bad_recipe", f"{', '.join(sorted(both))}: both an input and the target", "remove one")
    notes = [*table.notes, *(note for plan in plans.values() for note in plan.notes)]

    if split is None:
        split = split_rows(recipe, table)
    part = split.part.copy()
    unlabelled = np.empty(0, dtype=np.int64)
    if recipe.training.unlabelled is None:
        notes += split.notes
        part = _without_target(table, targets, part, notes)
    else:
        unlabelled, said = unlabelled_rows(recipe, table, part, targets)
        notes += [n for n in split.notes if not n.endswith(f"rows have no {targets[0]} and are left out")] + said
        part = _without_target(table, targets, part, [])
    media = MediaRoot(recipe.table.media_root or (str(table.folder) if table.folder else None))

    train = np.flatnonzero(part == 0)
    if not len(train):
        raise FuselineError("empty_table", "no row is left to train on", "check the split and the target column")
    if task is None:
        try:
            task = task_type.fit(task_config, _targets(table, train, targets))
        except FuselineError as error:
            if error.row is not None:  # of the training rows; the user knows the table's
                error.row = int(train[error.row])
            raise
    notes += [*getattr(task, "notes", ()), *few_rows(recipe, task)]
    modalities = {}
    for name, plan in plans.items():
        if begun is not None and not begun.why_not[name]:  # its weights mean something for this state only
            modalities[name] = modality_class(plan.modality).from_state(begun.state(name))
            continue
        spec = recipe.inputs[name]
        kinds = dict(spec.columns) if spec.columns else dict.fromkeys(recipe.columns_of(name), "")
        modalities[name] = modality_class(plan.modality).fit(
            _named_channels(plan.modality_config, table, kinds),
            kinds,
            _cells(table, recipe, name, part, unlabelled),
            media,
        )
    notes += [f"{name}: {note}" for name, m in modalities.items() for note in m.notes]
    task.check(modalities)
    check_threshold(recipe, task)
    parser = RowParser(recipe, modalities)
    reader = Reader(table, parser, task, media, cache)
    if cache.store is not None:
        reader.addressed = frozenset(name for name, plan in plans.items() if plan.stays)
    done = Prepared(recipe, table, part, plans, parser, task, reader, notes, {}, unlabelled=unlabelled)
    if recipe.training.bucket:
        done.length_N = np.zeros(table.n_rows, np.float32)
    _scan(done, folder, voice)
    _bucket(done)
    _leaks(done, split, media)
    if recipe.split.group and recipe.split.group in table.columns:
        _, codes = np.unique(np.array([str(v) for v in table.column(recipe.split.group)]), return_inverse=True)
        done.groups = codes
    elif isinstance(table, Windows):
        done.groups = table.store.blocks()
    set_apart(done, done.groups)
    return done


def _bucket(prepared: Prepared) -> None:
    """Say what buckets save, and leave them where `auto` finds that too little."""
    if prepared.length_N is None:
        return
    spec = prepared.recipe.training
    share = saved(prepared.rows("train"), prepared.length_N, spec.batch_size, spec.seed)
    if spec.bucket == "auto" and share < WORTH:
        prepared.length_N = None
    else:
        prepared.notes.append(f"batches of rows of like length: about {share:.0%} less to compute than in random ones")


def set_apart(prepared: Prepared, groups: np.ndarray | None) -> None:
    """Keep a share of the validation rows from early stopping, whole groups of them, or the last ones in time.

    `groups`: of every row of the table.
    """
    share, rows = prepared.recipe.evaluation.calibration_share, prepared.rows("val")
    if not share or not len(rows):
        return
    codes_N = group_codes(len(rows), None if groups is None else groups[rows])
    count = int(codes_N.max()) + 1
    order_G = np.arange(count)
    if prepared.recipe.split.kind != "time":
        order_G = np.random.default_rng(prepared.recipe.training.seed).permutation(count)
    last = order_G[count - min(max(round(share * count), 1), count - 1) :] if count > 1 else order_G[:0]
    if not len(last):
        raise FuselineError(
            "bad_recipe", "evaluation.calibration_share: the validation rows are one group", "raise split.val"
        )
    prepared.part[rows[np.isin(codes_N, last)]] = CALIBRATION
    prepared.notes.append(f"{int((prepared.part == CALIBRATION).sum())} validation rows are kept for calibration")


def _named_channels(config: Any, table: Table, columns: Mapping[str, str]) -> Any:
    """A table of windows knows its series' channels by name."""
    if isinstance(table, Windows) and isinstance(config, TimeSeriesConfig) and not config.channels:
        names = [table.store.channels(c) for c in columns if table.store.has(c)]
        return config.model_copy(update={"channels": names[0]}) if names else config
    return config


def _without_target(table: Table, targets: list[str], part: np.ndarray, notes: list[str]) -> np.ndarray:
    if not targets:
        return part
    absent = np.ones(table.n_rows, dtype=bool)
    for column in targets:
        absent &= table.column(column).is_null().to_numpy()
    lost = int((absent & (part >= 0)).sum())
    if lost:
        notes.append(f"{lost} rows have no {', '.join(targets)} and are left out")
    return np.where(absent, -1, part).astype(np.int8)


def _cells(table: Table, recipe: Recipe, name: str, part: np.ndarray, unlabelled: np.ndarray) -> Iterator[Cells]:
    """The training rows' cells of one input, streamed, those without a target among them."""
    columns = recipe.columns_of(name)
    trains = part == 0
    trains[unlabelled] = True
    absent = frozenset(recipe.table.absent)
    for start, frame in table.batches(list(dict.fromkeys(columns)), 4096):
        for i, row in enumerate(Table.rows(frame)):
            if trains[start + i]:
                yield {c: None if isinstance(v, str) and v.strip() in absent else v for c, v in row.items()}


def _scan(prepared: Prepared, folder: Path, voice: Voice) -> None:
    """Read every cell once: bad ones are named now, not after an hour; the profile and the absent shares come along."""
    table, parser, part = prepared.table, prepared.parser, prepared.part
    spec = prepared.recipe.table
    bad = Quarantine(folder / "quarantine.csv", table, mode=spec.on_error, max_share=spec.max_bad_share)
    builder = ProfileBuilder()
    absent = {name: np.zeros((len(PARTS), 2), int) for name in parser.names}
    cells_absent = {column: np.zeros((len(PARTS), 2), int) for column in parser.columns}
    taken: dict[str, int] = {}
    broken: dict[str, int] = {}
    used = 0
    digest = CellsDigest()
    teaches = np.zeros(table.n_rows, dtype=bool)
    teaches[prepared.unlabelled] = True
    # Tokens that were computed once are not computed for their padding either.
    computed = {n: m for n, m in parser.modalities.items() if not prepared.plans[n].stays}
    with voice.track("reading cells", table.n_rows) as advance:
        for start, frame in table.batches(prepared.reader.columns, CHUNK):
            dicts = Table.rows(frame)
            chosen = [i for i in range(len(dicts)) if part[start + i] >= 0 or teaches[start + i]]
            for i in chosen:
                digest.add(dicts[i].values())
            rows = prepared.reader.read_dicts([dicts[i] for i in chosen], [start + i for i in chosen])
            for row, i in zip(rows, chosen, strict=True):
                used += 1
                if row.error is not None:
                    bad.add(row.index, row.error, dicts[i])
                    if row.error.column is not None:
                        broken[row.error.column] = broken.get(row.error.column, 0) + 1
                    part[row.index] = -1
                    teaches[row.index] = False
                    continue
                for note in row.notes if row.target is not None or teaches[row.index] else ():
                    taken[note.split(":", 1)[0]] = taken.get(note.split(":", 1)[0], 0) + 1
                if row.target is None or part[row.index] < 0:
                    part[row.index] = -1
                    continue
                _count(row, part[row.index], parser, absent, builder)
                if prepared.length_N is not None:
                    prepared.length_N[row.index] = length_of(computed, row.values)
                for column, counts in cells_absent.items():
                    counts[part[row.index]] += (parser.cell(dicts[i].get(column)) is None, 1)
            advance(len(dicts))
    bad.finish(used)
    prepared.cells = digest.hex()
    prepared.unlabelled = np.flatnonzero(teaches)
    prepared.quarantined = len(bad)
    if len(bad):
        prepared.notes.append(f"{len(bad)} rows with broken cells were left out: see quarantine.csv")
    prepared.notes += [f"{text} in {count} rows" for text, count in taken.items()]
    for index, name in enumerate(PARTS):
        if name == "train" and not (part == index).any():
            raise FuselineError("empty_table", "every row has a broken cell", "see quarantine.csv")
    prepared.profile = builder.to_dict()
    for text, count in taken.items():
        if text.endswith(TAKEN):
            broken[text.removesuffix(TAKEN)] = count
    if "errors" not in parser.names:  # of all parts: whether a cell can be read does not depend on the split
        prepared.profile["errors"] = {"kind": "errors", "rows": used, "columns": broken}
    prepared.data = {
        "columns": [
            {
                "input": name,
                "column": column,
                "modality": parser.modalities[name].name,
                "kind": (prepared.recipe.inputs[name].columns or {}).get(column, ""),
                "absent": {
                    p: _share((absent[name] if len(parser.modalities[name].columns) == 1 else cells_absent[column])[i])
                    for i, p in enumerate(PARTS)
                },
                "summary": {k: v for k, v in prepared.profile.items() if k.split(".")[0] == name},
            }
            for name in parser.names
            for column in parser.modalities[name].columns
        ],
        "target": _target_summary(prepared),
        "leaks": [],
    }
    for name in parser.names:
        if absent[name][0][1] and absent[name][0][0] == absent[name][0][1]:
            prepared.notes.append(f"{name} is absent in every training row: the model cannot learn from it")


def _share(counts: np.ndarray) -> float | None:
    return float(counts[0] / counts[1]) if counts[1] else None


def _count(row: Row, part: int, parser: RowParser, absent: dict[str, np.ndarray], builder: ProfileBuilder) -> None:
    for name, value in row.values.items():
        absent[name][part] += (value is None, 1)
        if part != 0:
            continue
        stats = None if value is None else parser.modalities[name].summary(value)
        if stats is None:
            builder.add(name, None)
        else:
            builder.add(name, stats)


def _target_summary(prepared: Prepared) -> dict[str, Any]:
    columns = list(prepared.task.columns)
    cells = {part: _targets(prepared.table, prepared.rows(part), columns) for part in PARTS}
    return {"column": ", ".join(columns), **prepared.task.summary(cells)}


def _targets(table: Table, rows: np.ndarray, columns: list[str]) -> dict[str, list[Any]]:
    """Column -> cells; a task may have no target column at all."""
    if not columns:
        return {}
    frame = table.take(rows, columns)
    return {column: frame[column].to_list() for column in columns}


def _leaks(prepared: Prepared, split: Split, media: MediaRoot) -> None:
    kinds = {name: prepared.parser.modalities[name] for name in prepared.parser.names}
    part = prepared.part.copy()
    part[prepared.unlabelled] = 0  # they train: what they share with a test row is seen, too
    found = check_leaks(
        prepared.table,
        Split(part, split.notes),
        media_columns=[m.columns[0] for m in kinds.values() if m.file and m.name not in LISTS],
        text_columns=[m.columns[0] for m in kinds.values() if m.name == "text"],
        media_root=media.folder,
        item_columns={m.columns[0]: m.file for m in kinds.values() if m.name in LISTS},
    )
    if len(prepared.unlabelled):  # often made of the whole table: then those who test taught, too
        taught = np.where(prepared.part == 0, -1, part)
        taught[prepared.unlabelled] = 0
        leak = row_leak(prepared.table, taught, prepared.parser.columns)
        found += [] if leak is None else [leak]
    for modality in kinds.values():
        if isinstance(modality, Graph):
            found += _edge_leaks(prepared, modality)
    prepared.data["leaks"] = [
        {"column": leak.column, "message": leak.message, "count": leak.count, "severity": leak.severity}
        for leak in found
    ]
    words = {"warning": "leak", "note": "note"}
    prepared.notes += [f"{words[leak.severity]}: {leak.message}" for leak in found]


def _edge_leaks(prepared: Prepared, graph: Graph) -> list[Leak]:
    edges = Edges(graph.entities, graph.relations, graph.triples)
    targets = list(prepared.task.columns)
    frame = prepared.table.take(prepared.rows("train"), [graph.columns[0], *targets])
    return [leak for t in targets for leak in edge_leaks(edges, graph.columns[0], frame[graph.columns[0]], t, frame[t])]
