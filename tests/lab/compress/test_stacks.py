"""Which layers can be left out, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conformance import subjects
from lab.compress.cuttable import batch_of, case_names, equal, marks, run, subject_of

from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.stacks import Stack, find_stacks

BOTH = (0, 1)
ENCODERS: dict[str, dict[str, tuple[tuple[int, ...], int, int]]] = {
    # case -> path below the first encoder -> removable, length, least
    "text-small": {"blocks": ((0,), 1, 0)},
    "text-minilm": {"backbone.model.encoder.layer": ((0, 1, 2, 3, 4, 5), 6, 0)},
    "text-hf-bert": {"backbone.model.encoder.layer": (BOTH, 2, 0)},
    "text-hf-roberta": {"backbone.model.encoder.layer": (BOTH, 2, 0)},
    "text-hf-distilbert": {"backbone.model.transformer.layer": (BOTH, 2, 0)},
    "text-hf-mpnet": {"backbone.model.encoder.layer": (BOTH, 2, 0)},
    "text-hf-deberta": {"backbone.model.encoder.layer": (BOTH, 2, 1)},
    # The first block makes the position biases of all.
    "text-hf-t5": {"backbone.model.block": ((1,), 2, 1)},
    "image-small": {},  # one block a stage, and each halves the map
    "image-efficientnet-lite0": {"net._blocks": ((2, 4, 6, 7, 9, 10, 12, 13, 14), 16, 7)},
    "image-vgg": {},
    "image-hf-resnet": {"model.encoder.stages.0.layers": ((0,), 1, 0)},
    "image-hf-vit": {"model.layers": (BOTH, 2, 0)},
    "image-hf-convnext": {f"model.encoder.stages.{i}.layers": ((0,), 1, 0) for i in range(4)},
    "image-hf-dinov2": {"model.encoder.layer": (BOTH, 2, 0)},
    "image-hf-swin": {f"model.encoder.layers.{i}.blocks": ((0,), 1, 0) for i in range(2)},
    "image-hf-clip": {"model.encoder.layers": (BOTH, 2, 0)},
    "audio-small": {},
    "audio-hf-wav2vec2": {"backbone.encoder.layers": (BOTH, 2, 0)},
    "audio-hf-wav2vec2-layer": {"backbone.encoder.layers": (BOTH, 2, 0)},
    "audio-hf-hubert": {"backbone.encoder.layers": (BOTH, 2, 0)},
    "audio-hf-wavlm": {"backbone.encoder.layers": ((1,), 2, 1)},
    "audio-hf-whisper": {"backbone.model.layers": (BOTH, 2, 0)},
    "audio-hf-ast": {"backbone.model.layers": (BOTH, 2, 0)},
    "tabular-small": {"blocks": ((0,), 1, 0)},
    "video-small": {"blocks": ((0,), 1, 0), "motion": ((0,), 1, 0)},
    "video-hf-videomae": {"model.encoder.layer": (BOTH, 2, 0)},
    "images-small": {},
    "texts-small": {"item.blocks": ((0,), 1, 0)},
    "document-small": {"blocks": ((0,), 1, 0)},
}
FUSIONS: dict[str, dict[str, tuple[tuple[int, ...], int, int]]] = {
    "fusion-sum": {"functions": ((0, 1, 2, 3), 4, 2)},  # it calls its first and its last by name
    "fusion-concat": {},
    "fusion-gated": {},
    "fusion-low_rank": {},
    "fusion-attention": {"blocks": (BOTH, 2, 1)},  # without any, CLS hears no input
    "fusion-cross_attention": {
        f"streams.{i}.{name}": ((0,), 1, 0) for i in range(4) for name in ("cross.0", "cross.1", "cross.2", "alone")
    },
}


def _below(stacks: list[Stack], part: str, prefix: str) -> dict[str, tuple[tuple[int, ...], int, int]]:
    own = [s for s in stacks if s.part == part]
    assert all(s.path.startswith(prefix) for s in own)
    return {s.path.removeprefix(prefix): (s.removable, s.length, s.least) for s in own}


@pytest.mark.parametrize("name", case_names("text", "image", "audio", "tabular", "video", "document"))
def test_encoders_of_every_family(name: str, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    batch = batch_of(subject)
    before, marked = run(subject.model, batch), marks(subject.model)
    stacks = find_stacks(subject.model, batch)
    assert _below(stacks, subject.names[0], "encoders.0.") == ENCODERS[name]
    assert equal(before, run(subject.model, batch)), "looking changed the model"
    assert marks(subject.model) == marked


@pytest.mark.parametrize("name", case_names("fusion"))
def test_every_fusion(name: str, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    assert _below(find_stacks(subject.model, batch_of(subject)), FUSION, "fusion.") == FUSIONS[name]


def test_deeper_encoders_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for modality, options in (("image", {"blocks": 2}), ("audio", {"blocks": 2, "layers": 2}), ("text", {"layers": 3})):
        monkeypatch.setitem(subjects.ENCODER_OPTIONS, (modality, "small"), options)
    subject = subject_of("fusion-attention", tmp_path)
    stacks = find_stacks(subject.model, batch_of(subject))
    assert {s.path: s.removable for s in stacks if s.part != FUSION} == {
        "encoders.0.stages": (1, 3, 5),
        "encoders.1.blocks": (0, 1, 2),
        "encoders.2.stages": (1, 3, 5),
        "encoders.2.blocks": (0, 1),
        "encoders.3.blocks": (0,),
    }


def test_tokens_in_place_of_cells_hide_an_encoder(tmp_path: Path) -> None:
    subject = subject_of("text-small", tmp_path)
    batch = batch_of(subject)
    with torch.no_grad():
        tokens = subject.model.encoders[0](batch.arrays.pop("note.ids"), batch.arrays.pop("note.mask"))
    batch.arrays |= {"note.tokens": tokens.values_BTD, "note.tokens_mask": tokens.mask_BT}
    assert {s.part for s in find_stacks(subject.model, batch)} == {"vitals", FUSION}
