from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.export import Dim

from fuseline.errors import FuselineError
from fuseline.lab.encoders.audio_pretrained import HFAudio
from fuseline.lab.encoders.spectrograms import KaldiMel, WhisperMel

sys.path.insert(0, str(Path(__file__).parent))
from tiny import AUDIO, audio_modality, export_session, make_tiny

RAW = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm")


def _encoder(folder: Path, **options: object) -> HFAudio:
    return HFAudio(HFAudio.Config(source=str(folder), **options), audio_modality()).eval()


def _sound(samples: int, seed: int = 0) -> np.ndarray:
    """A voice-like sound: gliding harmonics, an offset, a loud and a quiet part, little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    tone = sum(np.sin(2 * np.pi * k * (140 + 30 * t) * t + rng.uniform(0, 6)) / k for k in range(1, 9))
    loud = 0.2 * np.exp(-((t - t.mean()) ** 2) / 0.02) + 0.01
    return (tone * loud + 0.02 + rng.normal(0, 1e-3, samples)).astype(np.float32)


def _batch(*lengths: int, extra: int = 0) -> dict[str, torch.Tensor]:
    wave = torch.zeros(len(lengths), max(lengths) + extra)
    for row, length in enumerate(lengths):
        wave[row, :length] = torch.from_numpy(_sound(length, row))
    return {"waveform": wave, "length": torch.tensor(lengths)}


def _library(kind: str, folder: Path, sound: np.ndarray) -> torch.Tensor:
    """The library's extractor and model on one sound alone."""
    features = transformers.AutoFeatureExtractor.from_pretrained(folder)(
        sound, sampling_rate=16_000, return_tensors="pt"
    )
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if kind == "whisper":
        return model.get_encoder()(features["input_features"]).last_hidden_state[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(features["input_values"]).last_hidden_state[0]


def _named(kind: str, folder: Path) -> Path:
    make_tiny(kind, folder)
    name = {"whisper": "WhisperFeatureExtractor", "ast": "ASTFeatureExtractor"}.get(kind, "Wav2Vec2FeatureExtractor")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "feature_extractor_type": name}))
    return folder


@pytest.mark.parametrize("kind", RAW)
@torch.no_grad()
def test_raw_models_equal_the_library_on_each_row_alone(kind: str, tmp_path: Path) -> None:
    folder = _named(kind, tmp_path)
    lengths = (4000, 28, 901)
    got = _encoder(folder)(**_batch(*lengths))
    for row, length in enumerate(lengths):
        want = _library(kind, folder, _sound(length, row))
        assert int(got.mask_BT[row].sum()) == len(want)
        assert bool(got.mask_BT[row, : len(want)].all())
        torch.testing.assert_close(got.values_BTD[row, : len(want)], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["whisper", "ast"])
@torch.no_grad()
def test_spectrogram_models_equal_the_library_on_each_row_alone(kind: str, tmp_path: Path) -> None:
    folder = _named(kind, tmp_path)
    lengths = (9000, 400, 5001, 30_000)
    got = _encoder(folder)(**_batch(*lengths))
    for row, length in enumerate(lengths):
        want = _library(kind, folder, _sound(length, row))
        torch.testing.assert_close(got.values_BTD[row], want, atol=1e-4, rtol=1e-4)
    # whisper: a token every 320 samples; ast: 2 class tokens and 2 rows of at most 5 patches of 10 frames.
    assert got.mask_BT.sum(1).tolist() == ([29, 2, 16, 50] if kind == "whisper" else [12, 4, 8, 12])


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_mel_equals_the_extractor_at_full_size(mels: int) -> None:
    sound = _sound(16_000 * 7)
    want = transformers.WhisperFeatureExtractor(feature_size=mels)(sound, sampling_rate=16_000, return_tensors="pt")
    got = WhisperMel(mels, 3000, 16_000, 400, 160)(torch.from_numpy(sound)[None])
    torch.testing.assert_close(got, want["input_features"], atol=1e-4, rtol=0)


def test_kaldi_mel_equals_the_extractor_at_full_size() -> None:
    sound = _sound(16_000 * 4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter")
        extractor = transformers.ASTFeatureExtractor()
    want = extractor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"]
    mel = KaldiMel(128, 1024, 16_000, -4.2677393, 4.5689974)
    got, frames = mel(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
    torch.testing.assert_close(got, want.float(), atol=1e-4, rtol=0)
    assert frames.tolist() == [1 + (len(sound) - 400) // 160]


@pytest.mark.parametrize("kind", AUDIO)
@pytest.mark.parametrize("tokens", ["all", "pooled"])
@torch.no_grad()
def test_padding_and_neighbours_change_nothing(kind: str, tokens: str, tmp_path: Path) -> None:
    encoder = _encoder(make_tiny(kind, tmp_path), tokens=tokens)
    together = encoder(**_batch(700, 6000, 33, extra=500))
    alone = encoder(**_batch(700))
    real = int(alone.mask_BT.sum())
    assert int(together.mask_BT[0].sum()) == real
    here, there = together.values_BTD[0][together.mask_BT[0]], alone.values_BTD[0][alone.mask_BT[0]]
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", AUDIO)
@pytest.mark.parametrize("tokens", ["all", "pooled"])
@torch.no_grad()
def test_silence_and_the_shortest_sounds_give_no_nan(kind: str, tokens: str, tmp_path: Path) -> None:
    encoder = _encoder(make_tiny(kind, tmp_path), tokens=tokens)
    wave = torch.zeros(3, 20)
    wave[1, 0] = 0.5
    got = encoder(waveform=wave, length=torch.tensor([20, 1, 17]))
    assert got.values_BTD.isfinite().all()
    assert got.mask_BT.any(1).all()
    assert encoder(waveform=torch.zeros(1, 1), length=torch.tensor([1])).values_BTD.isfinite().all()


@torch.no_grad()
def test_pooled_is_the_mean_of_real_tokens_and_for_ast_its_own(tmp_path: Path) -> None:
    folder = make_tiny("wav2vec2", tmp_path / "w")
    every, pooled = _encoder(folder)(**_batch(700, 90)), _encoder(folder, tokens="pooled")(**_batch(700, 90))
    torch.testing.assert_close(pooled.values_BTD[1, 0], every.values_BTD[1][every.mask_BT[1]].mean(0))
    folder = _named("ast", tmp_path / "a")
    sound = _sound(5000)
    features = transformers.AutoFeatureExtractor.from_pretrained(folder)(
        sound, sampling_rate=16_000, return_tensors="pt"
    )
    want = transformers.AutoModel.from_pretrained(folder).eval()(features["input_values"]).pooler_output
    got = _encoder(folder, tokens="pooled")(waveform=torch.from_numpy(sound)[None], length=torch.tensor([5000]))
    torch.testing.assert_close(got.values_BTD[:, 0], want, atol=1e-4, rtol=1e-4)


def test_cell_options_say_rate_and_window(tmp_path: Path) -> None:
    whisper, ast, raw = (make_tiny(k, tmp_path / k) for k in ("whisper", "ast", "wav2vec2"))
    options = lambda folder, **o: HFAudio.cell_options(HFAudio.Config(source=str(folder), **o))  # noqa: E731
    assert options(whisper) == {"sample_rate": 16_000, "max_seconds": 1.0}
    assert options(ast) == {"sample_rate": 16_000, "max_seconds": 0.655}
    assert options(raw) == {"sample_rate": 16_000}
    assert options(raw, max_seconds=4) == {"sample_rate": 16_000, "max_seconds": 4}
    with pytest.raises(FuselineError, match="hears at most 1 s"):
        options(whisper, max_seconds=2)


def test_wrong_rate_and_unknown_families_are_named(tmp_path: Path) -> None:
    folder = make_tiny("wav2vec2", tmp_path / "w")
    with pytest.raises(FuselineError, match="hears 16000 samples a second, the input gives 8000"):
        HFAudio(HFAudio.Config(source=str(folder)), audio_modality(8000))
    with pytest.raises(FuselineError, match="type 'bert' are not supported"):
        HFAudio.cell_options(HFAudio.Config(source=str(make_tiny("bert", tmp_path / "b"))))


@pytest.mark.parametrize("kind", RAW)
def test_raw_models_train(kind: str, tmp_path: Path) -> None:
    """Layer drop, dropout and in-place masking of the library's encoders work under autograd."""
    encoder = _encoder(make_tiny(kind, tmp_path)).train()
    torch.manual_seed(0)
    encoder(**_batch(700, 90)).values_BTD.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("kind", ["wav2vec2-layer", "wavlm", "whisper", "ast"])  # wav2vec2: conformance
@torch.no_grad()
def test_exports_with_any_batch_and_length(kind: str, tmp_path: Path) -> None:
    encoder = _encoder(make_tiny(kind, tmp_path))
    batch, samples = Dim("B", min=1, max=1024), Dim("S", min=1, max=480_000)
    run = export_session(encoder, _batch(3000, 90, 1200), {"waveform": {0: batch, 1: samples}, "length": {0: batch}})
    for lengths in ((1,), (17, 19), (5000, 1, 400, 33, 20_000)):
        arrays = _batch(*lengths)
        want = encoder(**arrays)
        values, mask = run(arrays)
        assert torch.equal(mask, want.mask_BT)
        torch.testing.assert_close(values[mask], want.values_BTD[mask], atol=1e-4, rtol=1e-4)
