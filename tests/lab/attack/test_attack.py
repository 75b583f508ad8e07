"""Attacks: within their radius, upwards, and leaving the model alone."""

from __future__ import annotations

from typing import Any

import made
import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.data.table import Table
from fuseline.lab.attack.attack import Attack
from fuseline.lab.attack.points import Point, array_points, length_of
from fuseline.lab.build import build_model
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.lab.training.reader import Batch
from fuseline.progress import voice
from fuseline.recipe import Radii, parse_recipe

NAMES = ("picture", "note", "sound", "vitals", "pulse", "remarks", "who")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, FusionModel, Batch]:
    folder = tmp_path_factory.mktemp("attack")
    recipe = parse_recipe(made.recipe(made.make_table(folder, 24), inputs={n: made.INPUTS[n] for n in NAMES}))
    prepared = prepare(recipe, Table.open(folder / "table.csv"), folder=folder, voice=voice("quiet"), cache=Cache(64))
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task).eval()
    return prepared, model, prepared.reader.batch(np.arange(12))


def attacked(
    opened: tuple[Prepared, FusionModel, Batch], attack: Attack, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    prepared, model, batch = opened
    targets = batch.targets
    assert targets is not None

    def loss(outputs: dict[str, Tensor]) -> Tensor:
        lost: Tensor = model.head.loss(outputs, targets)
        return lost

    outputs = attack(model, prepared.parser.modalities, batch.arrays, batch.present_BM, loss, seed=seed)
    return outputs, float(loss(outputs).detach())


@pytest.mark.parametrize("steps", [0, 2])
def test_attacks_raise_the_loss_and_leave_the_model_alone(
    steps: int, opened: tuple[Prepared, FusionModel, Batch]
) -> None:
    _, model, batch = opened
    before = {k: v.clone() for k, v in model.state_dict().items()}
    arrays = {k: v.clone() for k, v in batch.arrays.items()}
    assert batch.targets is not None
    plain = float(model.head.loss(model(batch.arrays, batch.present_BM), batch.targets).detach())
    outputs, lost = attacked(opened, Attack(Radii(), steps))
    assert lost > plain + 1e-3
    assert attacked(opened, Attack(Radii(), steps, strength=2.0))[1] > lost
    again, _ = attacked(opened, Attack(Radii(), steps))
    assert torch.equal(again["logits"], outputs["logits"])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(v, arrays[k]) for k, v in batch.arrays.items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_each_input_alone_is_pushed_where_it_is_present(name: str, opened: tuple[Prepared, FusionModel, Batch]) -> None:
    _, model, batch = opened
    with torch.no_grad():
        plain = model(batch.arrays, batch.present_BM)["logits"]
    outputs, _ = attacked(opened, Attack(Radii(), 2, inputs=(name,)))
    moved_B = (outputs["logits"] - plain).detach().abs().amax(dim=1) > 1e-7
    there_B = batch.present_BM[:, NAMES.index(name)]
    if name == "who":  # an entity has no small change
        assert not moved_B.any()
        return
    assert not moved_B[~there_B].any()
    assert moved_B[there_B].all()


def test_points_stay_within_radius_range_and_what_is_there(opened: tuple[Prepared, FusionModel, Batch]) -> None:
    prepared, _, batch = opened
    generator = torch.Generator().manual_seed(0)
    for name in ("picture", "sound", "vitals", "pulse"):
        own: dict[str, Any] = own_arrays(name, batch.arrays)
        for point in array_points(own, prepared.parser.modalities[name], Radii()).values():
            change = point.project(point.start(generator) * 5)
            assert (change.abs() <= point.radius + 1e-4).all()
            if point.kind == "pixels":
                assert (point.plain + change).min() >= 0
                assert (point.plain + change).max() <= 255
            if point.kind == "numbers":
                assert not change[~own["numbers_present"]].any()
            if point.kind == "series":
                assert not change[~own["known"]].any()


def test_vectors_go_their_whole_length_even_where_gradients_are_tiny() -> None:
    plain = torch.randn(3, 5, 4)
    point = Point(plain, 0.1 * length_of(plain), "embeddings")
    step = point.step(1e-25 * torch.randn(3, 5, 4), 1.0)
    assert torch.allclose(length_of(step), point.radius, rtol=1e-4)
    assert torch.allclose(length_of(point.project(3 * step)), point.radius, rtol=1e-4)
    assert not point.step(torch.zeros(3, 5, 4), 1.0).any()
