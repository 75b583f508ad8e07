"""Leaving out layers: which, how, and that what is left is a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.subjects import PARITY, gap
from lab.compress.cuttable import batch_of, case_names, equal, fresh_of, run, subject_of, trains

from fuseline.errors import FuselineError
from fuseline.lab.compress.crop import choose, crop, importance
from fuseline.lab.compress.stacks import Stack, find_stacks

SIX = Stack("note", "layer", (0, 1, 2, 3, 4, 5), 6, 0)
BLOCKS = Stack("picture", "blocks", (2, 4, 6), 8, 5)


def test_choose() -> None:
    scores = {0: 3.0, 1: 0.5, 2: 0.1, 3: 2.0, 4: 0.2, 5: 5.0}
    assert choose(SIX, scores, 3, "importance") == [0, 3, 5]
    assert choose(SIX, scores, 3, "last") == [0, 1, 2]
    assert choose(SIX, scores, 3, "every") == [0, 3, 5]
    assert choose(SIX, scores, 1, "every") == [0]
    twelve = Stack("note", "layer", tuple(range(12)), 12, 0)
    assert choose(twelve, {}, 6, "every") == [0, 2, 4, 7, 9, 11], "as DistilBERT was made from BERT"
    assert choose(SIX, scores, 9, "last") == list(range(6))


def test_choose_keeps_what_cannot_go_and_what_the_code_needs() -> None:
    scores = {2: 1.0, 4: 2.0, 6: 0.0}
    assert choose(BLOCKS, scores, 1, "importance") == [0, 1, 3, 4, 5, 7]
    assert choose(BLOCKS, scores, 0, "importance") == [0, 1, 3, 5, 7]
    assert choose(Stack("fusion.head", "functions", (0, 1, 2), 3, 2), scores, 0, "last") == [0, 1]


LISTS = (
    *("text-small", "text-hf-bert", "text-hf-t5", "image-vgg", "image-hf-convnext", "image-hf-swin"),
    *("audio-hf-wav2vec2", "audio-hf-whisper", "video-small", "timeseries-small", "graph-small", "document-small"),
    *("fusion-sum", "fusion-attention", "fusion-cross_attention", "task-detection-0"),
)
"""every way of holding layers; that layers are found in every family is in test_stacks.py"""


@pytest.mark.parametrize("name", [name for name in case_names() if name in LISTS])
def test_a_fresh_model_takes_the_same_crop(name: str, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    batch = batch_of(subject)
    stacks = find_stacks(subject.model, batch)
    keep = {s.path: choose(s, {}, len(s.removable) // 2, "last") for s in stacks}
    before = sum(w.numel() for w in subject.model.parameters())
    crop(subject.model, keep)
    assert sum(w.numel() for w in subject.model.parameters()) < before
    cut, fresh = run(subject.model, batch), fresh_of(subject)
    crop(fresh, keep)
    fresh.load_state_dict(subject.model.state_dict(), strict=True)
    assert equal(cut, run(fresh, batch))
    assert trains(subject.model, batch)


def test_nested_lists_are_cut_by_their_old_paths() -> None:
    inner = [torch.nn.ModuleList(torch.nn.Linear(1, n) for n in (1, 2, 3)) for _ in range(3)]
    model = torch.nn.Sequential(torch.nn.ModuleList(inner))
    crop(model, {"0": [0, 2], "0.2": [1], "0.1": [0]})
    assert [[layer.out_features for layer in layers] for layers in model[0]] == [[1, 2, 3], [2]]  # type: ignore[union-attr]
    assert set(model.state_dict()) == {f"0.{i}.{w}" for i in ("0.0", "0.1", "0.2", "1.0") for w in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "count", "after"),
    [
        ("text-hf-bert", "num_hidden_layers", 1),
        ("text-hf-distilbert", "n_layers", 1),
        ("text-hf-t5", "num_layers", 1),
        ("audio-hf-whisper", "encoder_layers", 1),
        ("image-hf-vit", "num_hidden_layers", 1),
        ("image-hf-convnext", "depths", [0, 0, 0, 0]),
        ("image-hf-swin", "depths", [0, 0]),
    ],
)
def test_configs_follow(name: str, count: str, after: Any, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    stacks = [s for s in find_stacks(subject.model, batch_of(subject)) if s.part == subject.names[0]]
    crop(subject.model, {s.path: choose(s, {}, len(s.removable) // 2, "last") for s in stacks})
    encoder: Any = subject.model.encoders[0]
    hf = encoder.model if hasattr(encoder, "model") else encoder.backbone.model
    assert getattr(hf.config, count) == after


def test_a_cropped_model_is_exported(tmp_path: Path) -> None:
    subject = subject_of("text-hf-bert", tmp_path)
    stacks = find_stacks(subject.model, batch_of(subject))
    crop(subject.model, {s.path: choose(s, {}, 1, "last") for s in stacks})
    arrays = subject.parser.arrays(subject.rows)
    theirs = subject.predictor.backend.run(arrays)  # what it was replayed for, too, when it was written
    assert gap(subject.run(subject.rows), theirs) < PARITY


def test_what_does_nothing_matters_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conformance import subjects

    monkeypatch.setitem(subjects.ENCODER_OPTIONS, ("text", "small"), {"layers": 3})
    subject = subject_of("text-small", tmp_path)
    model, batch = subject.model, batch_of(subject)
    idle: Any = model.encoders[0].blocks[1]  # type: ignore[index, union-attr]
    with torch.no_grad():
        for layer in (idle.out, idle.mlp[3]):
            layer.weight.zero_()
            layer.bias.zero_()
    stack = next(s for s in find_stacks(model, batch) if s.part == "note")
    before = run(model, batch)
    scores = importance(model, stack, [batch, batch])
    assert equal(before, run(model, batch))
    assert scores[1] < 1e-3 < min(scores[0], scores[2])
    crop(model, {stack.path: choose(stack, scores, 2)})
    after = run(model, batch)
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)


@pytest.mark.parametrize("name", ["fusion-sum", "fusion-cross_attention", "image-efficientnet-lite0", "audio-hf-wavlm"])
def test_importance_is_a_number_for_every_layer(name: str, tmp_path: Path) -> None:
    if name not in case_names():
        pytest.skip("weights are not installed")
    subject = subject_of(name, tmp_path)
    batch = batch_of(subject)
    for stack in find_stacks(subject.model, batch):
        scores = importance(subject.model, stack, [batch])
        assert set(scores) == set(stack.removable)
        assert all(0 < score < 100 for score in scores.values())


@pytest.mark.parametrize("keep", [{"encoders.0.nothing": [0]}, {"encoders.0.blocks": [0, 4]}, {"head.project": [0]}])
def test_a_cut_of_another_model_is_refused(keep: dict[str, list[int]], tmp_path: Path) -> None:
    model = subject_of("text-small", tmp_path).model
    with pytest.raises(FuselineError) as caught:
        crop(model, keep)
    assert caught.value.code == "bad_cut"
