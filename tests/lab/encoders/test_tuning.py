from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from fuseline.errors import FuselineError
from fuseline.lab.encoders.audio_pretrained import HFAudio
from fuseline.lab.encoders.image_pretrained import HFImage
from fuseline.lab.encoders.text_pretrained import HFText
from fuseline.lab.encoders.tuning import apply_tuning, merge_lora

sys.path.insert(0, str(Path(__file__).parent))
from tiny import audio_modality, image_modality, make_tiny, text_modality

TEXT = {"ids": torch.tensor([[6, 7, 8, 9], [9, 8, 0, 0]]), "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
IMAGE = {"pixels": torch.arange(2 * 64 * 64 * 3).remainder(251).to(torch.uint8).view(2, 64, 64, 3)}
AUDIO = {"waveform": torch.sin(torch.arange(2 * 600) / 7.0).view(2, 600), "length": torch.tensor([600, 600])}


def _bert(folder: Path) -> HFText:
    return HFText(HFText.Config(source=str(make_tiny("bert", folder))), text_modality())


def _encoder(kind: str, folder: Path) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    make_tiny(kind, folder)
    if kind == "bert":
        return HFText(HFText.Config(source=str(folder)), text_modality()), TEXT
    if kind in ("resnet", "convnext", "vit"):
        size = 32 if kind == "vit" else 64
        pixels = IMAGE["pixels"][:, :size, :size]
        return HFImage(HFImage.Config(source=str(folder)), image_modality(size)), {"pixels": pixels}
    return HFAudio(HFAudio.Config(source=str(folder)), audio_modality()), AUDIO


def test_frozen_stays_in_eval_mode_whatever_its_parent_does(tmp_path: Path) -> None:
    encoder = _bert(tmp_path)
    parent = nn.Sequential(encoder, nn.Dropout())
    apply_tuning(encoder, "frozen")
    for module in (parent, copy.deepcopy(parent)):
        module.train()
        assert module[1].training
        assert not any(m.training for m in module[0].modules())
        assert not any(p.requires_grad for p in module[0].parameters())
    with torch.no_grad():
        assert torch.equal(encoder(**TEXT).values_BTD, encoder(**TEXT).values_BTD)


def test_full_trains_everything(tmp_path: Path) -> None:
    encoder = _bert(tmp_path)
    encoder.requires_grad_(False)
    apply_tuning(encoder, "full")
    assert all(p.requires_grad for p in encoder.parameters())
    assert encoder.train().backbone.training


@pytest.mark.parametrize("kind", ["bert", "resnet", "convnext", "vit", "wav2vec2", "wavlm", "whisper"])
def test_lora_starts_as_the_base_learns_and_merges(kind: str, tmp_path: Path) -> None:
    encoder, arrays = _encoder(kind, tmp_path)
    encoder.eval()
    keys = list(encoder.state_dict())
    with torch.no_grad():
        base = encoder(**arrays).values_BTD
    torch.manual_seed(0)
    apply_tuning(encoder, "lora", rank=4, alpha=8)
    names = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in n for n in names)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(**arrays).values_BTD, base)

    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.5)
    for step in range(2):
        optimiser.zero_grad()
        encoder(**arrays).values_BTD.square().mean().backward()
        # No adapter that could never learn: B moves from the first step on (A only once B has left zero).
        dead = [n for n, p in encoder.named_parameters() if "lora_B" in n and (p.grad is None or not p.grad.any())]
        assert step or not dead
        optimiser.step()
    with torch.no_grad():
        tuned = encoder(**arrays).values_BTD
        assert (tuned - base).abs().max() > 1e-3
        merge_lora(encoder)
        torch.testing.assert_close(encoder(**arrays).values_BTD, tuned, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(m, BaseTunerLayer) for m in encoder.modules())
    assert list(encoder.state_dict()) == keys


def test_lora_batch_norms_stay_still_in_training(tmp_path: Path) -> None:
    encoder, arrays = _encoder("resnet", tmp_path)
    apply_tuning(encoder, "lora")
    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(**arrays)
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())


def test_lora_counts_in_torchs_own_transformer_layer_at_evaluation() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    encoder = nn.Sequential(layer)
    x = torch.randn(2, 5, 16)
    apply_tuning(encoder, "lora", rank=2)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    want = encoder.train()(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x), want)
        merge_lora(encoder)
        torch.testing.assert_close(encoder(x), want, atol=1e-5, rtol=1e-4)


def test_lora_rank_sets_the_trainable_count_and_bad_options_are_named() -> None:
    encoder = nn.Sequential(nn.Linear(10, 6), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 8, 1))
    apply_tuning(encoder, "lora", rank=3)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 3 * (10 + 6) + 3 * (4 + 8)
    with pytest.raises(FuselineError, match="rank >= 1"):
        apply_tuning(nn.Linear(2, 2), "lora", rank=0)
    with pytest.raises(FuselineError, match="no layer that lora can adapt"):
        apply_tuning(nn.Sequential(nn.LayerNorm(3)), "lora")
