"""Rounding while training: on the grid inside, the same float model outside, and better for it afterwards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab.compress import taught
from torch import nn

from fuseline.lab.compress.heal import standing
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.qat import INT8, RoundedInput, RoundedWeight, quantisation_aware, roundable, rounded
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.encoders.layers import StandardisedConv2d
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.prepare import Prepared


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return taught.prepared(taught.rows(tmp_path_factory.mktemp("qat")))


@pytest.fixture(scope="module")
def whole(ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> FusionModel:
    return taught.trained(ready, tmp_path_factory.mktemp("whole") / "run")


def heavy(model: FusionModel, factor: float = 300.0) -> FusionModel:
    """The same answers from weights of heavy tails: one feature of every norm is small, and its weights are large.

    Pretrained Transformers are like that; a scale that holds the few large weights leaves no steps for the others.
    """
    out = copy.deepcopy(model)
    with torch.no_grad():
        for block in out.fusion.blocks:  # type: ignore[union-attr]
            for norm, layers in (
                (block.norm_attention, (block.attention.q, block.attention.kv)),  # type: ignore[union-attr]
                (block.norm_mlp, (block.mlp[0],)),  # type: ignore[union-attr,index]
            ):
                norm.weight[::8] /= factor
                norm.bias[::8] /= factor
                for layer in layers:
                    layer.weight[:, ::8] *= factor
    return out


def test_inside_all_is_on_the_grid_and_outside_nothing_changed(ready: Prepared, whole: FusionModel) -> None:
    model = copy.deepcopy(whole)
    before = taught.copied(model)
    batch = ready.reader.batch(ready.rows("val"))
    with torch.no_grad():
        plain = model(batch.arrays, batch.present_BM)["logits"]
        with rounded(model, ["note", FUSION], [batch]) as roundings:
            assert roundings.keys() == roundable(whole, ["note", FUSION]).keys()
            assert "head.project" in roundings
            assert "adapters.0.project" in roundings
            assert not any(path.startswith(("encoders.1", "adapters.1")) for path in roundings)
            weight = model.get_submodule("fusion.blocks.0.mlp.0").weight
            assert isinstance(weight, torch.Tensor)
            steps = weight / (weight.abs().amax(1, keepdim=True) / INT8)
            assert (steps - steps.round()).abs().max() < 1e-3
            assert steps.unique().numel() > 100
            inside = model(batch.arrays, batch.present_BM)["logits"]
        after = model(batch.arrays, batch.present_BM)["logits"]
    assert taught.same(before, model.state_dict())
    assert torch.equal(plain, after)
    assert 0 < (plain - inside).abs().max() < 0.5
    assert not [m for m in model.modules() if hasattr(m, "rounded_input")]
    with pytest.raises(ZeroDivisionError), rounded(model, ["note"], [batch]):
        raise ZeroDivisionError
    assert taught.same(before, model.state_dict())


def test_a_weight_keeps_its_largest_and_passes_its_gradient() -> None:
    weight = torch.randn(4, 9, requires_grad=True)
    got = RoundedWeight(False)(weight)
    scale = weight.detach().abs().amax(1, keepdim=True) / INT8
    torch.testing.assert_close(got, (weight / scale).round() * scale)
    torch.testing.assert_close(got.abs().amax(1), weight.abs().amax(1))
    got.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))  # type: ignore[arg-type]


def test_a_standardised_filter_is_rounded_as_it_is_used() -> None:
    layer = StandardisedConv2d(8, 4, 3)
    x = torch.randn(2, 8, 6, 6)
    variance, mean = torch.var_mean(layer.weight, dim=(1, 2, 3), keepdim=True, correction=0)
    used = (layer.weight - mean) * torch.rsqrt(variance * 72 + 1e-4) * layer.gain
    scale = used.abs().amax((1, 2, 3), keepdim=True) / INT8
    expected = nn.functional.conv2d(x, (used / scale).round() * scale, layer.bias, padding=1)
    plain = layer(x)
    nn.utils.parametrize.register_parametrization(layer, "weight", RoundedWeight(True))
    assert (layer(x) - expected).abs().max() < 0.2 * (plain - expected).abs().max()


def test_the_range_of_an_input_moves_then_stands() -> None:
    own = RoundedInput(100.0)
    own.calibrating = True
    for high in (2.0, 4.0):
        own(torch.tensor([[-1.0, 0.5, high]]))
    own.calibrating = False
    assert (float(own.low), float(own.high)) == (-1.0, 3.0)
    own.steps = 2
    own.eval()(torch.tensor([[100.0]]))
    own.train()
    seen = []
    for _ in range(4):
        own(torch.tensor([[-1.0, 13.0]]))
        seen.append(round(float(own.high), 3))
    assert seen == [4.0, 4.9, 4.9, 4.9]
    x = torch.tensor([[-3.0, 0.0, 1.234, 9.0]], requires_grad=True)
    got = own.eval()(x)
    assert got[0, 1] == 0  # zero, which padding is, stays exact
    step = 5.9 / 255
    torch.testing.assert_close(got.detach(), torch.tensor([[-1.0, 0.0, 1.234, 4.9]]), atol=step, rtol=0)
    got.sum().backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))  # type: ignore[arg-type]


def test_a_range_sees_every_feature_and_leaves_out_the_tails() -> None:
    own = RoundedInput(100.0)
    own.calibrating = True
    x = torch.zeros(512, 1024)  # four times the sample: a plain stride of 4 would miss feature 3
    x[:, 3] = 7.0
    own(x)
    assert own.high == 7.0
    tailed = RoundedInput(99.0)
    tailed.calibrating = True
    tailed(torch.arange(1000.0)[None])
    assert (float(tailed.low), float(tailed.high)) == (0.0, 990.0)


def test_what_cannot_be_rounded_by_its_calls_is_left_out() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 3))
            self.plain = nn.Linear(8, 8)

    model: Any = nn.Module()
    model.names, model.encoders = ("x",), nn.ModuleList([Odd()])
    model.adapters = nn.ModuleList([nn.Identity()])
    assert list(roundable(model, ["x"])) == ["encoders.0.plain"]


def distance(model: FusionModel, ready: Prepared, teacher: Teacher, parts: list[str]) -> float:
    from fuseline.lab.compress.distil import DistilConfig, Distillation

    objective = Distillation(DistilConfig(), teacher, model, ready)
    batches = list(ready.reader.batches(ready.rows("train"), 16))
    with rounded(model, parts, batches):
        found = standing(model, ready, ready.rows("val"), objective).distance
    assert found is not None
    return found


def test_a_model_that_loses_under_int8_loses_less_afterwards(
    ready: Prepared, whole: FusionModel, tmp_path: Path
) -> None:
    model = heavy(whole)
    batch = ready.reader.batch(ready.rows("val"))
    with torch.no_grad():
        torch.testing.assert_close(
            model(batch.arrays, batch.present_BM)["logits"],
            whole(batch.arrays, batch.present_BM)["logits"],
            atol=1e-2,
            rtol=1e-2,
        )
    parts = ["note", "vitals", FUSION]
    teacher = Teacher.of_models([whole], ready)
    before = distance(model, ready, teacher, parts)
    assert before > 100 * distance(whole, ready, teacher, parts)  # the tails are what costs
    names = list(model.state_dict())
    report = quantisation_aware(model, teacher, ready, tmp_path, parts=parts, epochs=10)
    after = distance(model, ready, teacher, parts)
    assert after < 0.1 * before
    assert report.after.distance is not None
    assert report.before.distance is not None
    assert report.after.distance < 0.1 * report.before.distance
    assert list(model.state_dict()) == names
    assert not model.training


def test_an_interrupted_tuning_goes_on_to_the_same_weights(
    ready: Prepared, whole: FusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.compress.test_distil import press_ctrl_c_in_interval, with_checkpoints

    ready = with_checkpoints(ready)
    teacher = Teacher.of_models([whole], ready)

    def go(folder: str) -> FusionModel:
        model = copy.deepcopy(whole)
        quantisation_aware(model, teacher, ready, tmp_path / folder, parts=["note"], epochs=6)
        return model

    expected = go("whole")
    with monkeypatch.context() as patch:
        press_ctrl_c_in_interval(patch, 2)  # while ranges still move
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert taught.same(expected.state_dict(), go("broken").state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", None)
        assert taught.same(expected.state_dict(), go("broken").state_dict())
    assert np.isfinite(next(iter(expected.state_dict().values())).numpy()).all()
