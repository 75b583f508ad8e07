"""The robustness report: one metric, clean, under noise, with inputs absent, and attacked.

Dimensions: N rows, B batch, M inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseline.lab.attack.attack import Attack
from fuseline.lab.attack.points import array_points
from fuseline.lab.augment.base import Draw
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.robustness.noise import noise_of, noisy
from fuseline.lab.steps import steps_of, to_numpy
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.held_out import held_out_rows
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch, Reader
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice
from fuseline.recipe import Radii
from fuseline.tasks.decoding import complete

STRENGTHS = (0.5, 1.0, 2.0)
SHARES = (0.25, 0.5, 0.75, 1.0)
"""of the rows that have an input, how many lose it"""
STEPS = 10
"""of PGD"""
ROWS = 400
"""rows measured at most: an attack costs eleven passes a strength and input"""
ALL = "all inputs"

Outputs = dict[str, np.ndarray]
Key = tuple[str, str, float]
"""noise, absent or attacked; the input; strength or share"""


@dataclass
class _Sum:
    """Outputs of all batches under every condition."""

    outputs: dict[Key, list[Outputs]] = field(default_factory=dict)

    def add(self, key: Key, outputs: Outputs) -> None:
        self.outputs.setdefault(key, []).append(outputs)


def write_robustness(prepared: Prepared, model: FusionModel, folder: Path, voice: Voice) -> None:
    """RUN/robustness.json, on the run's held-out rows."""
    spec = prepared.recipe.evaluation
    prepared.reader.let_go()  # an attack pushes cells, not the tokens that were kept of them
    part, rows = held_out_rows(prepared)
    found = robustness(
        model,
        prepared.reader,
        rows,
        radii=spec.radii,
        voice=voice,
        seed=prepared.recipe.training.seed,
        bootstrap=min(200, spec.bootstrap),
        groups=prepared.groups,
    )
    write_json(folder / "robustness.json", {**found, "of": part})


def robustness(
    model: FusionModel,
    reader: Reader,
    rows: np.ndarray,
    *,
    radii: Radii,
    voice: Voice,
    seed: int = 0,
    bootstrap: int = 200,
    batch_size: int = 64,
    groups: np.ndarray | None = None,
    most: int = ROWS,
) -> dict[str, Any]:
    """What robustness.json holds.

    Every input alone is made noisy (strengths 0.5, 1, 2), taken away from a share of the rows that have it (each
    larger share includes the smaller's rows), and attacked by PGD with ten steps in evaluation mode; so are all inputs
    at once. An attack knows the model and the truth: its figures are what an adversary with the weights can do, and
    the worst that noise of that size can.

    Args:
        model: any device.
        reader: gives cells, not kept tokens: call `let_go` before.
        rows: of which a seeded sample of `most` is measured.
        radii: of attacks of strength 1.
        voice: progress.
        seed: of noise, of what is taken away, and of PGD's starts.
        bootstrap: resamples of the 95 % interval of the clean figure.
        batch_size: rows a pass.
        groups: (N,) group of each row of the table, resampled whole.
        most: rows.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(rows, min(most, len(rows)), replace=False))
    names, modalities = model.names, reader.parser.modalities
    draws_NM = rng.random((len(rows), len(names)))
    model.eval()
    device = next(model.parameters()).device
    total, targets, starts = _Sum(), [], range(0, len(rows), batch_size)
    pushable: dict[str, str] = {}
    with voice.track("measuring robustness", len(rows)) as advance:
        for start in starts:
            batch = _on(reader.batch(rows[start : start + batch_size]), device)
            assert batch.targets is not None
            targets.append(batch.targets.cpu().numpy())
            with torch.no_grad():
                clean = model.encode(batch.arrays)
            one = _Batch(model, reader, batch, clean, draws_NM[start : start + batch_size], radii, (seed, start))
            pushable |= one.pushable()
            for key, outputs in one.conditions():
                total.add(key, complete(reader.task, outputs, steps_of(model)))
            advance(len(batch.rows))
    truth = np.concatenate(targets)
    own_groups = None if groups is None else groups[rows]

    def score(key: Key, resamples: int = 0) -> dict[str, Any]:
        parts = total.outputs[key]
        joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        scores = reader.task.score(truth, joined, bootstrap=resamples, seed=seed, groups=own_groups, details=False)
        return {k: vars(m) for k, m in scores.metrics.items()}

    def curve(kind: str, name: str, at: tuple[float, ...], label: str) -> list[dict[str, Any]]:
        there = [x for x in at if (kind, name, x) in total.outputs]
        return [{label: x, "metrics": {k: m["value"] for k, m in score((kind, name, x)).items()}} for x in there]

    noise = {}
    for name in names:
        known = noise_of(modalities[name])
        if known is not None:
            noise[name] = {"unit": known[1], "base": known[0], "curve": curve("noise", name, STRENGTHS, "strength")}
    attacked = {
        name: {"pushes": pushes, "curve": curve("attacked", name, STRENGTHS, "strength")}
        for name, pushes in {**pushable, **({ALL: ""} if pushable else {})}.items()
    }
    found = {
        "task": reader.task.name,
        "metric": reader.task.metric,
        "rows": len(rows),
        "attack": {"kind": "pgd", "steps": STEPS, "radii": radii.model_dump(mode="json")},
        "clean": score(("clean", "", 0.0), bootstrap),
        "noise": noise,
        "absent": {name: {"curve": curve("absent", name, SHARES, "share")} for name in names},
        "attacked": attacked,
        "not_attacked": [name for name in names if name not in pushable],
    }
    out: dict[str, Any] = finite(found)
    return out


@dataclass
class _Batch:
    """The outputs of one batch under every condition."""

    model: FusionModel
    reader: Reader
    batch: Batch
    clean: Mapping[str, Tokens]
    draws_BM: np.ndarray
    radii: Radii
    seeds: tuple[int, int]

    def pushable(self) -> dict[str, str]:
        """Which inputs an attack can push, and what it pushes there."""
        out = {}
        for name, encoder in zip(self.model.names, self.model.encoders, strict=True):
            own = own_arrays(name, self.batch.arrays)
            kinds = [p.kind for p in array_points(own, self.reader.parser.modalities[name], self.radii).values()]
            kinds += ["embeddings"] if encoder.lookups() else []  # type: ignore[operator]
            if kinds:
                out[name] = ", ".join(dict.fromkeys(kinds))
        return out

    def conditions(self) -> Iterator[tuple[Key, Outputs]]:
        present_BM = self.batch.present_BM
        yield ("clean", "", 0.0), self._answer(self.clean, present_BM)
        for place, name in enumerate(self.model.names):
            modality = self.reader.parser.modalities[name]
            if noise_of(modality) is not None:
                for strength in STRENGTHS:
                    draw = Draw(present_BM.device, *self.seeds, place)  # the same noise, louder
                    own = own_arrays(name, self.batch.arrays)
                    with torch.no_grad():
                        changed = noisy(own, present_BM[:, place], modality, strength, draw)
                        tokens = {**self.clean, name: self.model.encode_input(name, changed)}
                    yield ("noise", name, strength), self._answer(tokens, present_BM)
            for share in SHARES:
                kept_BM = present_BM.clone()
                kept_BM[:, place] &= torch.from_numpy(self.draws_BM[:, place] >= share).to(kept_BM.device)
                yield ("absent", name, share), self._answer(self.clean, kept_BM)
        pushable = self.pushable()
        for name in [*pushable, *([ALL] if pushable else [])]:
            for strength in STRENGTHS:
                aimed = tuple(pushable) if name == ALL else (name,)
                yield ("attacked", name, strength), self._attacked(aimed, strength)

    @torch.no_grad()
    def _answer(self, tokens: Mapping[str, Tokens], present_BM: Tensor) -> Outputs:
        return _plain(self.model.answer(tokens, present_BM))

    def _attacked(self, names: tuple[str, ...], strength: float) -> Outputs:
        targets = self.batch.targets
        assert targets is not None
        loss: Callable[[dict[str, Tensor]], Tensor] = lambda outputs: self.model.head.loss(outputs, targets)  # noqa: E731
        attack = Attack(self.radii, STEPS, strength, names)
        modalities, arrays = self.reader.parser.modalities, self.batch.arrays
        seed = self.seeds[0] * 1_000_003 + self.seeds[1]
        given = {"seed": seed, "clean": self.clean}
        with torch.enable_grad():
            outputs = attack(self.model, modalities, arrays, self.batch.present_BM, loss, **given)  # type: ignore[arg-type]
        return _plain({k: v.detach() for k, v in outputs.items()})


def _plain(outputs: dict[str, Tensor]) -> Outputs:
    return {k: v for k, v in to_numpy(outputs).items() if k != "embedding"}


def _on(batch: Batch, device: torch.device) -> Batch:
    arrays = {k: v.to(device) for k, v in batch.arrays.items()}
    targets = None if batch.targets is None else batch.targets.to(device)
    return Batch(arrays, batch.present_BM.to(device), targets, batch.rows)
