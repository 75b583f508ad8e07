"""Fits what a package promises on rows that training never saw, under every set of inputs. Dimensions: N rows, M
inputs.

Every row stands for each set of inputs that it could have had: those it lacks stay absent, others are hidden by the
presence mask. That tells how the model does with just these inputs, on rows of which they happened to be absent at
random; where a cell's absence itself says something (an X-ray that nobody needed), it may do otherwise, which the check
on rows that really lack them shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.sure.calibrate import Apart, choose
from fuseline.lab.training.evaluate import Outputs
from fuseline.lab.training.prepare import CALIBRATION, Prepared
from fuseline.modalities.odd import fit_odd
from fuseline.recipe import AbstainSpec, EvaluationSpec, Recipe
from fuseline.tasks import Task
from fuseline.tasks.bins import Bins
from fuseline.tasks.classification import Classification
from fuseline.tasks.conformal import FEWEST, Key, fit_conformal, scores_of
from fuseline.tasks.degradation import subsets
from fuseline.tasks.multi import Multi, own_outputs
from fuseline.tasks.selective import promise
from fuseline.tasks.sure import Abstain, Sure, leaves

ALL_SETS_UP_TO = 5
"""inputs of which every set is fitted"""
ODD_ROWS = 1000
"""rows that are read for the odd inputs' quantiles at most"""


def wants(spec: EvaluationSpec) -> bool:
    """Whether the recipe asks for anything that is fitted here."""
    return spec.calibration != "none" or spec.conformal is not None or spec.abstain is not None or spec.odd


def check(recipe: Recipe, prepared: Prepared) -> None:
    """Before any training. Raises FuselineError ``bad_recipe``, ``missing_column``."""
    spec, task = recipe.evaluation, prepared.task
    by = () if spec.conformal is None else spec.conformal.by
    prepared.table.require([*by, *spec.slices])
    if not wants(spec):
        return
    own = [one for _, one, _ in leaves(task, {})]
    classes = [t for t in [task, *getattr(task, "tasks", {}).values()] if isinstance(t, Classification)]
    if spec.conformal is not None and not own:
        message = f"evaluation.conformal: a {task.name} answers with nothing that a set or an interval could hold"
        raise FuselineError("bad_recipe", message, "it is for one class of many, for numbers and for forecasts")
    if spec.calibration != "none" and not classes:
        message = f"evaluation.calibration: a {task.name} states no chances of classes"
        raise FuselineError("bad_recipe", message, "remove it; `conformal` gives numbers and forecasts an interval")
    if spec.abstain is not None and not any(isinstance(t, Classification) for t in own):
        message = f"evaluation.abstain: a {task.name} is never simply right or wrong"
        raise FuselineError("bad_recipe", message, "it is for one class of many; use `conformal` elsewhere")
    if not len(calibration_rows(prepared)):
        raise FuselineError(
            "bad_recipe",
            "evaluation.calibration, conformal, abstain and odd need validation rows, and the split has none",
            "set split.val above 0",
        )


def calibration_rows(prepared: Prepared) -> np.ndarray:
    """The rows set apart for it, else the validation rows."""
    apart = np.flatnonzero(prepared.part == CALIBRATION)
    return apart if len(apart) else prepared.rows("val")


def sets_of(names: Sequence[str], present_NM: np.ndarray) -> list[Key]:
    """Which sets of inputs are fitted and checked, all of them first: every one, no input at all among them, or of many
    inputs those of the degradation table and those that rows have."""
    if len(names) <= ALL_SETS_UP_TO:
        return [c for k in range(len(names), -1, -1) for c in combinations(names, k)]
    natural = {tuple(n for n, p in zip(names, row, strict=True) if p) for row in np.unique(present_NM, axis=0)}
    known = subsets(names)
    return [*known, *sorted(natural - set(known) - {()}), ()]


def shown(outputs: Outputs, names: Sequence[str]) -> Iterator[tuple[Key | None, np.ndarray, dict[str, np.ndarray]]]:
    """(inputs, which rows have all of them, what is said of those rows with just these); first, under None, all rows as
    they come."""
    every = np.arange(len(outputs.targets))
    yield None, every, outputs.full
    for key, arrays in outputs.by_subset.items():
        rows = np.flatnonzero(outputs.present_NM[:, [n in key for n in names]].all(axis=1))
        yield key, rows, {k: v[rows] for k, v in arrays.items()}


def own_targets(task: Task, name: str, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a task's target (N,), and the targets of those."""
    if isinstance(task, Multi):
        known_N = task.known(name, targets)
        return known_N, task.unpack(name, targets[known_N])
    return np.ones(len(targets), dtype=bool), targets


def fit_sure(
    task: Task,
    spec: EvaluationSpec,
    names: Sequence[str],
    outputs: Outputs,
    *,
    cells: Sequence[Mapping[str, Any]],
    groups: np.ndarray | None,
    seed: int,
    odd: Mapping[str, Any],
    about: Mapping[str, Any],
) -> tuple[Sure, list[str]]:
    """Sets the classifications' `calibration`; gives the rest, and what is to be said of it.

    Args:
        task: fitted. Its former calibration is thrown away.
        spec: what is wanted.
        names: the inputs.
        outputs: of the held-out rows, with what is said of them for every set of inputs.
        cells: each row's cells of `conformal.by`.
        groups: (N,) rows of one are never divided.
        seed: of the folds.
        odd: as :func:`odd_of` gives it.
        about: what is kept in sure.json of the rows.
    """
    notes: list[str] = []
    calibrated: dict[str, Any] = {}
    apart: dict[str, Apart] = {}
    own = task.tasks.items() if isinstance(task, Multi) else [("", task)]
    for name, one in own:
        if isinstance(one, Classification):
            known_N, targets = own_targets(task, name, outputs.targets)
            logits_NC = (own_outputs(name, outputs.full) if name else outputs.full)["logits"][known_N]
            kept = None if groups is None else groups[known_N]
            one.calibration, apart[name], told = choose(
                one, spec.calibration, targets, logits_NC, groups=kept, seed=seed
            )
            calibrated[name] = told
            if "why" in told:
                notes.append(f"{_of(name)}chances are not calibrated: {told['why']}")
    by = [] if spec.conformal is None else [Bins.fit(c, [row.get(c) for row in cells]) for c in spec.conformal.by]
    sure = Sure(by=by, odd=odd, about={**about, "calibration": calibrated})
    keys = [sure.key_of(row) for row in cells]
    for name, leaf, _ in leaves(task, outputs.full):
        known_N, _ = own_targets(task, name, outputs.targets)
        if spec.conformal is not None:
            scores = []
            for key, rows, arrays in shown(outputs, names):
                there = known_N[rows]
                _, targets = own_targets(task, name, outputs.targets[rows])
                mine = {k: v[there] for k, v in (own_outputs(name, arrays) if name else arrays).items()}
                columns = [k for i in rows[there] if (k := keys[i]) is not None] if by else None
                scores.append((key, scores_of(leaf, spec.conformal.method, targets, mine), columns))
            sure.conformal[name] = fit_conformal(scores, coverage=spec.conformal.coverage, method=spec.conformal.method)
            if not sure.conformal[name].groups:
                notes.append(f"{_of(name)}no guarantee: {int(known_N.sum())} held-out rows are fewer than {FEWEST}")
        if spec.abstain is not None and isinstance(leaf, Classification):
            sure.abstain[name] = _abstain(task, name, leaf, spec.abstain, names, outputs, apart[name])
            found = dict(sure.abstain[name].groups)[None]
            if found["threshold"] is None:
                notes.append(
                    f"{_of(name)}every answer is withheld: of {found['rows']} "
                    f"held-out rows no share can be shown to be wrong in at most {100 * spec.abstain.error:g} %; give "
                    "it more validation rows or state a larger error (evaluation.abstain)"
                )
    return sure, notes


def _of(name: str) -> str:
    return f"{name}: " if name else ""


def _abstain(
    task: Task, name: str, leaf: Classification, spec: AbstainSpec, names: Sequence[str], outputs: Outputs, apart: Apart
) -> Abstain:
    """Thresholds for rows as they come and for every set of inputs, on chances by maps that did not see the row."""
    known_N, _ = own_targets(task, name, outputs.targets)
    place_N = np.cumsum(known_N) - 1  # of a row among those that `apart` knows
    groups: list[tuple[Key | None, dict[str, Any]]] = []
    for key, rows, arrays in shown(outputs, names):
        there = known_N[rows]
        _, targets = own_targets(task, name, outputs.targets[rows])
        logits_NC = (own_outputs(name, arrays) if name else arrays)["logits"][there]
        one = Apart(apart.fold_N[place_N[rows[there]]], apart.maps)
        chance_NC = np.exp(one.log_chances(leaf, logits_NC))
        wrong_N = chance_NC.argmax(axis=1) != targets.reshape(-1)
        if key is None or len(wrong_N) >= FEWEST:
            found = promise(chance_NC.max(axis=1), wrong_N, error=spec.error, confidence=spec.confidence)
            groups.append((key, found))
    return Abstain(spec.error, spec.confidence, tuple(groups))


def by_cells(prepared: Prepared, rows: np.ndarray) -> list[dict[str, Any]]:
    """The cells of `conformal.by`."""
    columns = list(dict.fromkeys(prepared.parser.by))
    if not columns:
        return [{} for _ in rows]
    found = Table.rows(prepared.table.take(rows, columns))
    return [{c: prepared.parser.cell(v) for c, v in row.items()} for row in found]


def odd_of(prepared: Prepared, profile: Mapping[str, Any], rows: np.ndarray, seed: int) -> dict[str, Any]:
    """How odd held-out rows are, input by input, read as a caller's rows are read."""
    if len(rows) > ODD_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, ODD_ROWS, replace=False))
    parser = prepared.parser
    stats: dict[str, list[dict[str, float | str]]] = {name: [] for name in parser.names}
    for start in range(0, len(rows), 64):
        for cells in Table.rows(prepared.table.take(rows[start : start + 64], list(parser.columns))):
            parsed = parser.parse(cells, prepared.reader.media)
            for name, value in parsed.values.items():
                if value is not None:
                    stats[name].append(parser.modalities[name].summary(value))
    return fit_odd(profile, stats)
