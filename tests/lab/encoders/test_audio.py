from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.encoders.audio import LogMel, SmallAudio, SmallAudioConfig, normalise, perturb, with_gaps
from fuseline.modalities.audio import Audio
from fuseline.recipe import read_options

RATE = 4000
TINY = SmallAudioConfig(width=16, heads=2, channels=(4, 6, 8), bands=20)


def make(config: SmallAudioConfig = TINY, rate: int = RATE) -> SmallAudio:
    torch.manual_seed(0)
    encoder = SmallAudio(config, SimpleNamespace(config=SimpleNamespace(sample_rate=rate))).eval()
    with torch.no_grad():  # zero biases would hide padding that leaks
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


def batch(*lengths: int) -> dict[str, Tensor]:
    length = torch.tensor(lengths)
    waveform = (
        torch.randn(len(lengths), -(-max(lengths) // 160) * 160, generator=torch.Generator().manual_seed(1)) * 0.1
    )
    waveform *= torch.arange(waveform.shape[1])[None] < length[:, None]
    return {"waveform": waveform, "length": length}


@pytest.mark.parametrize("config", [TINY, TINY.model_copy(update={"layers": 2, "blocks": 2, "bands": 21})])
def test_a_row_does_not_see_its_neighbours_nor_their_padding(config: SmallAudioConfig) -> None:
    encoder = make(config)
    # Every remainder of the frames by the stride of 8, and far shorter and longer neighbours.
    lengths = (160, *(2000 + 40 * i for i in range(9)), 4800, 1)
    arrays = batch(*lengths)
    tokens = encoder(**arrays)
    for i, length in enumerate(lengths):
        for samples in {-(-length // 160) * 160, length}:
            alone = encoder(arrays["waveform"][i : i + 1, :samples], arrays["length"][i : i + 1])
            count = -(-(1 + length // 40) // 8)
            assert alone.mask_BT[0].sum() == tokens.mask_BT[i].sum() == count
            torch.testing.assert_close(
                alone.values_BTD[0, :count], tokens.values_BTD[i, :count], atol=1e-5, rtol=0, msg=str((i, length))
            )


@pytest.mark.parametrize("channels", [(4,), (4, 6, 8), (4, 4, 4, 4, 4, 4)])
def test_two_tokens_begin_where_the_exporter_is_told(channels: tuple[int, ...]) -> None:
    encoder = make(TINY.model_copy(update={"channels": channels}))
    least = encoder.traced_from("S", 1)
    for samples, tokens in ((least, 2), (least - 1, 1)):
        waveform = torch.zeros(1, samples)
        assert encoder(waveform, torch.tensor([samples])).values_BTD.shape[1] == tokens
    assert encoder.traced_from("S", 10**6) == 10**6


def test_the_default_does_not_see_padding_either() -> None:
    encoder = make(SmallAudioConfig(), rate=16_000)
    arrays = batch(35_000, 1_600, 70_001)
    tokens = encoder(**arrays)
    assert tokens.values_BTD.shape == (3, 28, 128)
    alone = encoder(arrays["waveform"][:1, :35_040], arrays["length"][:1])
    torch.testing.assert_close(alone.values_BTD[0], tokens.values_BTD[0, :14], atol=1e-5, rtol=0)


def test_the_exported_graph_gives_the_same_tokens(export, same_tokens) -> None:  # type: ignore[no-untyped-def]
    encoder = make(TINY.model_copy(update={"layers": 1}))
    graph = export(encoder, batch(3000, 1800, 900), {"waveform": {1: torch.export.Dim("S", min=160, max=40_000)}})
    for lengths in [(160,), (40_000,), (400, 160), (4000, 3999, 3961, 3960, 3959)]:
        arrays = batch(*lengths)
        same_tokens(graph(arrays), encoder(**arrays), 1e-4)
    silence = {"waveform": torch.zeros(2, 480), "length": torch.tensor([480, 1])}
    same_tokens(graph(silence), encoder(**silence), 1e-4)


@pytest.mark.parametrize(("rate", "bands"), [(16_000, 64), (11_025, 40), (1_000, 64), (48_000, 128)])
def test_bands_are_the_spectrums_powers(rate: int, bands: int) -> None:
    """Against numpy's transform of one frame; a pure tone peaks in the band of its frequency; both ways agree."""
    module = LogMel(rate, bands, 40.0).eval()
    assert (module.filters > 0).any(dim=0).all()
    samples = np.sin(2 * np.pi * 0.1 * np.arange(rate))  # a tenth of the rate, in hertz
    got = module(torch.tensor(samples, dtype=torch.float32)[None])
    assert got.shape == (1, 1 + rate // module.hop, bands)
    frame, start = 50, 50 * module.hop - module.window // 2
    hann = np.hanning(module.window + 1)[:-1]
    power = np.abs(np.fft.rfft(samples[start : start + module.window] * hann, n=module.points)) ** 2
    first, last = module.used
    expected = np.log(power[first : last + 1] @ module.filters.numpy() + 1e-6)
    np.testing.assert_allclose(got[0, frame].numpy(), expected, atol=2e-2)
    mels = 2595 * np.log10(1 + np.array([40, 0.1 * rate, 0.475 * rate]) / 700)
    band = (mels[1] - mels[0]) / (mels[2] - mels[0]) * (bands + 1) - 1
    assert abs(got[0, frame].argmax().item() - band) <= 1
    noise = torch.randn(2, rate) * 0.1
    torch.testing.assert_close(module.train()(noise), module.eval()(noise), atol=1e-3, rtol=0)


def test_half_precision_does_not_reach_the_transform() -> None:
    module, sound = LogMel(16_000, 64, 40.0), torch.randn(1, 8000) * 0.01
    for mode in (True, False):
        module.train(mode)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = module(sound)
        torch.testing.assert_close(got, module(sound), atol=1e-5, rtol=0)


def test_normalising_counts_real_frames_only() -> None:
    bands = torch.randn(2, 9, 5) * 3 + 4
    real = torch.arange(9)[None] < torch.tensor([[9], [4]])
    got = normalise(bands, real)
    assert (got[1, 4:] == 0).all()
    part = bands[1, :4]
    torch.testing.assert_close(got[1, :4], (part - part.mean()) / (part.var(correction=0) + 1e-3).sqrt())


def test_loudness_does_not_matter() -> None:
    """Recordings are as loud as their microphones were near."""
    encoder, arrays = make(), batch(4000)
    louder = encoder(arrays["waveform"] * 4, arrays["length"]).values_BTD
    torch.testing.assert_close(louder, encoder(**arrays).values_BTD, atol=2e-2, rtol=0)


def test_a_perturbation_of_no_strength_is_the_sound() -> None:
    bands, frames = torch.randn(3, 30, 8), torch.tensor([30, 12, 1])
    moved, lengths = perturb(bands, frames, 0.0, 0)
    assert torch.equal(lengths, frames)
    for i, n in enumerate(frames):
        torch.testing.assert_close(moved[i, :n], bands[i, :n], atol=1e-4, rtol=0)
    assert torch.equal(with_gaps(bands, frames, 0.0), bands)


def test_a_crop_is_a_part_of_the_sound() -> None:
    bands = torch.arange(50.0)[None, :, None].expand(4, 50, 8)
    moved, lengths = perturb(bands, torch.tensor([50, 50, 30, 10]), 0.0, 20)
    assert moved.shape == (4, 20, 8)
    assert lengths.tolist() == [20, 20, 20, 10]
    for i, last in enumerate((49, 49, 29, 9)):
        n = lengths[i]
        torch.testing.assert_close(moved[i, :n].diff(dim=0), torch.ones(n - 1, 8), atol=1e-3, rtol=0)
        assert moved[i, :n].min() >= -1e-3
        assert moved[i, :n].max() <= last + 1e-3
    assert torch.equal(moved[3, :10].round(), bands[3, :10])


def test_faster_sounds_are_shorter_and_gaps_are_bounded() -> None:
    bands = torch.ones(200, 100, 16)
    _, lengths = perturb(bands, torch.full((200,), 100), 1.0, 0)
    assert 85 <= lengths.min() < 92  # 99 / e^0.15, and no longer than the batch
    assert lengths.max() == 100
    gaps = with_gaps(bands, torch.full((200,), 100), 1.0)
    lost = (gaps == 0).float().mean(dim=(1, 2))
    assert 0 < lost.mean() < lost.max() <= 1 - 0.69 * 0.74


def test_training_alone_is_random_and_every_weight_learns() -> None:
    encoder, arrays = make(TINY.model_copy(update={"layers": 1, "crop_seconds": 0.3})), batch(4000, 2000, 160)
    assert torch.equal(encoder(**arrays).values_BTD, encoder(**arrays).values_BTD)
    encoder.train()
    tokens = encoder(**arrays)
    assert tokens.values_BTD.shape[1] == 4  # 30 frames
    assert tokens.mask_BT.any(dim=1).all()
    assert not torch.equal(tokens.values_BTD, encoder(**arrays).values_BTD)
    tokens.values_BTD[tokens.mask_BT].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_silence_trains_without_nan() -> None:
    encoder = make().train()
    tokens = encoder(torch.zeros(2, 160), torch.tensor([160, 1]))
    tokens.values_BTD.sum().backward()
    assert torch.isfinite(tokens.values_BTD).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_it_reads_the_real_modality_and_its_dummy() -> None:
    modality = Audio(Audio.Config(sample_rate=RATE), "breath")
    encoder = SmallAudio(SmallAudio.Config(), modality).eval()
    arrays = modality.collate([np.sin(np.arange(3000) / 3).astype(np.float32), None])
    tokens = encoder(**{key: torch.from_numpy(value) for key, value in arrays.items()})
    assert torch.isfinite(tokens.values_BTD).all()
    assert tokens.mask_BT.sum(dim=1).tolist() == [5, 1]


@pytest.mark.parametrize("options", [{"width": 30}, {"layer": 2}, {"channels": []}, {"lowest": 500}])
def test_impossible_options_name_the_path(options: dict[str, object]) -> None:
    with pytest.raises(FuselineError, match=r"inputs\.breath\.encoder"):
        read_options(SmallAudio.Config, options, "inputs.breath.encoder")


def test_rising_and_falling_tones_are_told_apart() -> None:
    """From few sounds of several lengths; averages over time cannot tell them."""
    torch.manual_seed(0)

    def draw(count: int) -> tuple[dict[str, Tensor], Tensor]:
        length, target = torch.randint(2000, 4000, (count,)), torch.randint(0, 2, (count,))
        share = torch.arange(4000)[None] / length[:, None]
        share = torch.where(target[:, None] == 1, share, 1 - share)
        phase = torch.cumsum(2 * torch.pi * (300 + 900 * share) / RATE, dim=1)
        sound = (phase.sin() + 0.1 * torch.randn(count, 4000)) * (torch.arange(4000)[None] < length[:, None])
        return {"waveform": sound, "length": length}, target

    encoder = make(TINY.model_copy(update={"dropout": 0.0})).train()
    head = torch.nn.Linear(16, 2)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)

    def scores(arrays: dict[str, Tensor]) -> Tensor:
        tokens = encoder(**arrays)
        real = tokens.mask_BT[:, :, None]
        out: Tensor = head((tokens.values_BTD * real).sum(1) / real.sum(1))
        return out

    arrays, target = draw(64)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(scores(arrays), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    arrays, target = draw(64)
    assert (scores(arrays).argmax(1) == target).float().mean() > 0.9
