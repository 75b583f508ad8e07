"""Fewer heads, widths and channels: in every family, with what is left proved, loadable, trainable, exportable."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance import subjects
from conformance.subjects import PARITY, Subject, gap
from lab.compress.cuttable import batch_of, case_names, equal, fresh_of, marks, run, subject_of, trains
from torch import nn

from fuseline.errors import FuselineError
from fuseline.lab.compress.channels import find_channels
from fuseline.lab.compress.gates import taylor
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.probe import Part, steady
from fuseline.lab.compress.prune import prune
from fuseline.lab.compress.shapes import fit_shapes
from fuseline.lab.compress.units import cut_units
from fuseline.lab.compress.widths import find_heads, find_widths
from fuseline.lab.encoders.layers import AFTER_RELU, StandardisedConv2d
from fuseline.lab.encoders.tuning import apply_tuning

# case -> how many layers lose heads, feed-forward widths, channels at a share of 0.5
LAYERS: dict[str, dict[str, int]] = {
    "text-small": {"heads": 1, "feed_forward": 1},
    "text-minilm": {"heads": 6, "feed_forward": 6},
    "text-hf-bert": {"heads": 2, "feed_forward": 2},
    "text-hf-roberta": {"heads": 2, "feed_forward": 2},
    "text-hf-distilbert": {"heads": 2, "feed_forward": 2},
    "text-hf-mpnet": {"heads": 2, "feed_forward": 2},
    "text-hf-deberta": {"heads": 2, "feed_forward": 2},
    "text-hf-t5": {"heads": 2, "feed_forward": 2},
    "image-small": {"channels": 6},
    "image-efficientnet-lite0": {"channels": 23},
    "image-vgg": {"channels": 7},
    "image-hf-resnet": {"channels": 2},
    "image-hf-vit": {"heads": 2, "feed_forward": 2},
    "image-hf-convnext": {"feed_forward": 4},
    "image-hf-dinov2": {"heads": 2, "feed_forward": 2},
    "image-hf-swin": {"heads": 2, "feed_forward": 2},
    "image-hf-clip": {"heads": 2, "feed_forward": 2},
    "audio-small": {"channels": 7},
    "audio-hf-wav2vec2": {"heads": 2, "feed_forward": 2, "channels": 2},
    "audio-hf-wav2vec2-layer": {"heads": 2, "feed_forward": 2},
    "audio-hf-hubert": {"heads": 2, "feed_forward": 2, "channels": 2},
    # Its attention hands raw weights to a function that wants them as wide as the model.
    "audio-hf-wavlm": {"feed_forward": 2, "channels": 2},
    "audio-hf-whisper": {"heads": 2, "feed_forward": 2, "channels": 1},
    "audio-hf-ast": {"heads": 2, "feed_forward": 2},
    "tabular-small": {"heads": 1, "feed_forward": 1},
    "video-small": {"heads": 1, "feed_forward": 1, "channels": 1},
    "video-hf-videomae": {"heads": 2, "feed_forward": 2},
    "images-small": {"channels": 1},
    "texts-small": {"heads": 1, "feed_forward": 1},
    "document-small": {"heads": 1, "feed_forward": 1},
}
FUSIONS: dict[str, dict[str, int]] = {
    "fusion-sum": {},
    "fusion-concat": {"feed_forward": 1},
    "fusion-gated": {},
    "fusion-low_rank": {},
    "fusion-attention": {"heads": 2, "feed_forward": 2},
    "fusion-cross_attention": {"heads": 16, "feed_forward": 16},
}


def _counts(record: dict[str, dict[str, list[int]]]) -> dict[str, int]:
    return {what: len(paths) for what, paths in record.items()}


def _check(subject: Subject, part: str, expected: dict[str, int]) -> None:
    model, batch = subject.model, batch_of(subject)
    model.train()
    marked, whole = marks(model), sum(w.numel() for w in model.parameters())
    record = prune(model, part, 0.5, [batch])
    assert _counts(record) == expected
    assert marks(model) == marked, "modes or gradients were not given back"
    model.eval()
    assert (sum(w.numel() for w in model.parameters()) < whole) is bool(expected)
    assert all(w.grad is None for w in model.parameters())
    for what, paths in record.items():
        for before, after in paths.values():
            assert 0 < after < before
            assert what == "heads" or after % 8 == 0
    cut, fresh = run(model, batch), fresh_of(subject)
    fit_shapes(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert equal(cut, run(fresh, batch))
    assert _numbers(fresh) == _numbers(model)
    assert trains(fresh, batch)


def _numbers(model: nn.Module) -> list[str]:
    """How every module describes itself: in_features, groups and the like."""
    return [f"{path} {module.extra_repr()}" for path, module in model.named_modules()]


@pytest.mark.parametrize("name", case_names("text", "image", "audio", "tabular", "video", "document"))
def test_encoders_of_every_family(name: str, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    width = subject.model.encoders[0].width
    _check(subject, subject.names[0], LAYERS[name])
    assert subject.model.encoders[0].width == width


@pytest.mark.parametrize("name", case_names("fusion"))
def test_every_fusion(name: str, tmp_path: Path) -> None:
    _check(subject_of(name, tmp_path), FUSION, FUSIONS[name])


def test_small_encoders_of_every_modality_are_exported(tmp_path: Path) -> None:
    subject = subject_of("fusion-attention", tmp_path)
    for part in (*subject.names, FUSION):
        assert prune(subject.model, part, 0.5, [batch_of(subject)])
    theirs = subject.predictor.backend.run(subject.parser.arrays(subject.rows))
    assert gap(subject.run(subject.rows), theirs) < PARITY


def _silence(layer: Any, places: list[int]) -> None:
    with torch.no_grad():
        layer.weight[:, places] = 0.0


@pytest.mark.parametrize(
    ("name", "find", "kind"),
    [
        ("text-small", find_heads, "heads"),
        ("text-small", find_widths, "feed_forward"),
        ("image-vgg", find_channels, "channels"),
    ],
)
def test_what_nothing_reads_goes_first(name: str, find: Callable[[Part], list[Any]], kind: Any, tmp_path: Path) -> None:
    """Half of every layer's units silenced: exactly these are cut, and the answer stays."""
    subject = subject_of(name, tmp_path)
    model, batch = subject.model, batch_of(subject)
    with steady(model), torch.no_grad():
        for units in find(Part(model, subject.names[0], batch)):
            for axis in units.read:
                _silence(model.get_submodule(axis.module), axis.places_UK[1::2].flatten().tolist())
    before = run(model, batch)
    assert _counts(prune(model, subject.names[0], 0.5, [batch], what=[kind]))[kind]
    after = run(model, batch)
    assert gap({k: v.numpy() for k, v in before.items()}, {k: v.numpy() for k, v in after.items()}) < 1e-4


def test_importance_is_the_slope_of_the_loss(tmp_path: Path) -> None:
    """Of one row: |L(gate 1.5) - L(gate 0.5)|, the gate being a factor on all that is read of the unit."""
    subject = subject_of("text-small", tmp_path)
    model, batch = subject.model.double(), batch_of(subject)
    with steady(model), torch.no_grad():
        part = Part(model, "note", batch)
        units = find_widths(part)[0]
        batch.arrays = {k: v[:1].double() if v.is_floating_point() else v[:1] for k, v in batch.arrays.items()}
        assert batch.targets is not None
        batch.present_BM, batch.targets, batch.rows = batch.present_BM[:1], batch.targets[:1], batch.rows[:1]
        scores = taylor(model, [units], [batch])[0]
        reader: Any = model.get_submodule(units.read[0].module)
        whole = reader.weight.clone()

        def loss(unit: int, gate: float) -> float:
            reader.weight[:, unit] = whole[:, unit] * gate
            out: float = model.head.loss(model(batch.arrays, batch.present_BM), batch.targets).item()
            reader.weight.copy_(whole)
            return out

        for unit in scores.argsort(descending=True)[:3].tolist():  # the loss has 32 bits
            slope = loss(unit, 1.5) - loss(unit, 0.5)
            assert scores[unit].item() == pytest.approx(abs(slope), rel=0.02)


def test_rows_weigh_the_same_in_any_batch(tmp_path: Path) -> None:
    subject = subject_of("tabular-small", tmp_path)
    model, batch = subject.model, batch_of(subject)
    singles = []
    for i in range(len(batch.rows)):
        assert batch.targets is not None
        arrays = {k: v[i : i + 1] for k, v in batch.arrays.items()}
        row = type(batch)(arrays, batch.present_BM[i : i + 1], batch.targets[i : i + 1], batch.rows[i : i + 1])
        singles.append(row)
    with steady(model), torch.no_grad():
        found = find_heads(Part(model, "vitals", batch))
        together, alone = taylor(model, found, [batch])[0], taylor(model, found, singles)[0]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-7)


def test_over_all_layers_an_idle_one_loses_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subjects.ENCODER_OPTIONS, ("text", "small"), {"layers": 2})
    subject = subject_of("text-small", tmp_path)
    blocks: Any = subject.model.encoders[0].blocks
    with torch.no_grad():
        blocks[0].mlp[3].weight.mul_(1e-3)
    record = prune(subject.model, "note", 0.5, [batch_of(subject)], what=["feed_forward"], scope="all")
    assert record == {"feed_forward": {"encoders.0.blocks.0.mlp.0": [256, 8]}}


def test_a_frozen_encoder_stays_frozen(tmp_path: Path) -> None:
    subject = subject_of("image-vgg", tmp_path)
    model, batch = subject.model, batch_of(subject)
    encoder: Any = model.encoders[0]
    apply_tuning(encoder, "frozen")
    model.train()
    assert prune(model, "picture", 0.5, [batch])
    assert not any(m.training for m in encoder.modules())
    assert not any(w.requires_grad for w in encoder.parameters())
    assert any(w.requires_grad for w in model.fusion.parameters())


def test_numbers_stay_in_their_format(tmp_path: Path) -> None:
    subject = subject_of("text-small", tmp_path)
    model, batch = subject.model.double(), batch_of(subject)
    batch.arrays = {k: v.double() if v.is_floating_point() else v for k, v in batch.arrays.items()}
    block: Any = model.encoders[0].blocks[0]  # type: ignore[index, union-attr]
    block.qkv.weight.requires_grad_(False)
    assert _counts(prune(model, "note", 0.5, [batch])) == {"heads": 1, "feed_forward": 1}
    assert all(w.dtype == torch.float64 for w in model.parameters())
    assert not block.qkv.weight.requires_grad
    assert block.qkv.bias.requires_grad


def test_a_group_norm_keeps_its_groups(tmp_path: Path) -> None:
    """As many channels stay in each: no channel is normalised with others than before."""
    subject = subject_of("image-small", tmp_path)
    before: Any = copy.deepcopy(subject.model.encoders[0].stages[1].norm_out)  # type: ignore[index, union-attr]
    prune(subject.model, "picture", 0.5, [batch_of(subject)])
    after: Any = subject.model.encoders[0].stages[1].norm_out  # type: ignore[index, union-attr]
    assert after.num_groups == before.num_groups
    each = before.num_channels // before.num_groups
    kept = [(before.weight == w).nonzero()[0, 0].item() // each for w in after.weight]
    assert kept == [g for g in range(after.num_groups) for _ in range(after.num_channels // after.num_groups)]


def test_a_standardised_filter_weighs_what_it_weighed() -> None:
    """Inputs that it had no weight on go without a trace, up to the filter's mean."""
    from fuseline.lab.compress.units import _standardised_inputs

    torch.manual_seed(0)
    conv = StandardisedConv2d(8, 4, 3, gain=AFTER_RELU)
    with torch.no_grad():
        conv.weight[:, 4:] = conv.weight.mean((1, 2, 3), keepdim=True)
        conv.weight -= conv.weight.mean((1, 2, 3), keepdim=True)
        conv.weight[:, 4:] = 0.0
        conv.weight[:, :4] -= conv.weight[:, :4].mean((1, 2, 3), keepdim=True)
    x = torch.randn(2, 8, 5, 5)
    before = conv(x)
    _standardised_inputs(conv, torch.arange(4))
    torch.testing.assert_close(conv(x[:, :4]), before, atol=1e-4, rtol=1e-3)


class _Counts(nn.Module):
    """A network that another place counts on: its hidden width is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.side = nn.Linear(4, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x).relu()
        out: torch.Tensor = self.down(hidden) + self.side(hidden)
        return out


def test_a_cut_that_would_change_the_answer_is_taken_back() -> None:
    from fuseline.lab.compress.units import Units, inputs_of, outputs_of

    torch.manual_seed(0)
    model, x, one = _Counts(), torch.randn(3, 4), torch.arange(16)[:, None]
    good = Units(
        "feed_forward", "up", outputs_of(model.up, "up", one), (inputs_of("down", one), inputs_of("side", one))
    )
    bad = Units("feed_forward", "up", outputs_of(model.up, "up", one), (inputs_of("down", one),))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        assert cut_units(model, [(bad, torch.arange(8))], lambda: [model(x)]) == []
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert (model.up.out_features, model.down.in_features) == (16, 16)
        assert cut_units(model, [(good, torch.arange(8))], lambda: [model(x)]) == [
            (good, pytest.approx(torch.arange(8)))
        ]
    assert (model.up.out_features, model.down.in_features, model.side.in_features) == (8, 8, 8)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_out_of_bounds_is_refused(share: float, tmp_path: Path) -> None:
    subject = subject_of("text-small", tmp_path)
    with pytest.raises(FuselineError) as caught:
        prune(subject.model, "note", share, [batch_of(subject)])
    assert caught.value.code == "bad_cut"


def test_little_or_nothing_to_cut(tmp_path: Path) -> None:
    subject = subject_of("text-small", tmp_path)
    batch = batch_of(subject)
    assert prune(subject.model, "note", 1.0, [batch]) == {}
    record = prune(subject.model, "note", 0.01, [batch])
    assert {k: list(v.values()) for k, v in record.items()} == {"heads": [[4, 1]], "feed_forward": [[256, 8]]}
    assert prune(subject.model, "note", 0.5, [batch]) == {}
