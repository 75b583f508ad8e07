import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.audio import HOP, Audio

NO_FILES = MediaRoot(None)
RATE = 16_000


def made(**options: object) -> Audio:
    return Audio.fit(Audio.Config.model_validate(options), {"x": ""}, [], NO_FILES)


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def save(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def parse(data: object, **options: object) -> np.ndarray:
    value = made(**options).parse({"x": data}, NO_FILES)
    assert value is not None
    assert value.dtype == np.float32
    return np.asarray(value)


def outcome(data: bytes) -> str:
    try:
        return "finite" if np.isfinite(parse(data)).all() else "not finite"
    except FuselineError as error:
        return error.code


def fails(data: object, **options: object) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        made(**options).parse({"x": data}, NO_FILES)
    assert caught.value.code == "bad_cell"
    assert caught.value.column == "x"
    return caught.value


KINDS = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", None)]


@pytest.mark.parametrize(("kind", "subtype"), [*KINDS, ("OGG", "OPUS"), ("MP3", None)])
def test_every_format_is_heard(kind: str, subtype: str | None) -> None:
    value = parse(save(tone(), kind, subtype))
    assert abs(len(value) - RATE) <= (2400 if kind == "MP3" else 0)
    spectrum = np.abs(np.fft.rfft(value[:RATE], RATE))
    assert spectrum.argmax() == 440
    assert np.sqrt(np.mean(value**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_every_rate_is_resampled(rate: int) -> None:
    value = parse(save(tone(rate=rate), rate=rate))
    assert len(value) == RATE
    middle = slice(400, -400)
    assert np.abs(value[middle] - tone()[middle]).max() < 0.01


def test_channels_are_averaged() -> None:
    left, right = tone(), np.zeros(RATE, np.float32)
    stereo = parse(save(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert stereo == pytest.approx(left / 2)
    low = parse(save(np.stack([tone(rate=8000)] * 2, axis=1), subtype="PCM_24", rate=8000))
    assert len(low) == RATE


def test_long_sounds_are_cut_and_say_so() -> None:
    audio = made(max_seconds=0.5)
    for rate in (RATE, 8_000, 44_100):
        value = audio.parse({"x": save(tone(2.0, rate), rate=rate)}, NO_FILES)
        assert value is not None
        assert len(value) == RATE // 2
        assert audio.summary(value)["cut"] == 1.0
    exact = audio.parse({"x": save(tone(0.5))}, NO_FILES)
    assert exact is not None
    assert audio.summary(exact)["cut"] == 0.0
    assert (parse(save(tone(2.0), subtype="FLOAT"), max_seconds=0.5) == tone(0.5)).all()


def test_short_sounds_are_followed_by_silence() -> None:
    value = parse(save(tone(0.01), subtype="FLOAT"))
    assert len(value) == RATE // 10
    assert (value[:160] == tone(0.01)).all()
    assert (value[160:] == 0).all()
    assert len(parse(save(np.ones(1, np.float32) / 2))) == RATE // 10


def test_silence_is_a_sound() -> None:
    value = parse(save(np.zeros(RATE, np.float32)))
    assert (value == 0).all()
    assert made().summary(value)["loudness"] == pytest.approx(-120)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF"])
@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 0.93])
def test_truncated_sounds_are_named(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    data = save(noise, kind)
    fails(data[: int(len(data) * share)])


def test_truncated_mp3_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    data = save(np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32), "MP3")
    assert "truncated" in fails(data[: len(data) // 2]).message
    capfd.readouterr()  # mpg123 remarks on it on its own


def test_a_header_that_promises_too_much() -> None:
    wav = bytearray(save(tone()))
    at = wav.find(b"data")
    wav[at + 4 : at + 8] = struct.pack("<I", 1 << 30)
    assert "bytes of samples are missing" in fails(bytes(wav)).message
    wav[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFFF)  # written to a pipe: the length was not known
    assert len(parse(bytes(wav))) == RATE

    flac = bytearray(save(tone(), "FLAC"))
    frames = 3 * 3600 * RATE
    at = 4 + 4 + 13  # magic, block header, up to the byte whose low half starts the 36-bit count
    flac[at] = flac[at] & 0xF0 | frames >> 32
    flac[at + 1 : at + 5] = struct.pack(">I", frames & 0xFFFFFFFF)
    assert soundfile.SoundFile(io.BytesIO(bytes(flac))).frames == frames
    assert f"{frames} samples are announced" in fails(bytes(flac)).message


def test_a_long_claim_costs_only_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(np.zeros(600 * RATE, np.float32), "FLAC")
    assert len(data) < 200_000
    read: list[int] = []
    original = soundfile.SoundFile.read

    def count(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        read.append(frames)
        return original(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    assert len(parse(data, max_seconds=2)) == 2 * RATE
    assert sum(read) == 2 * RATE + 1


def test_samples_must_be_numbers() -> None:
    for value in (np.nan, np.inf):
        samples = tone()
        samples[100] = value
        assert "NaN or infinite" in fails(save(samples, subtype="FLOAT")).message


@pytest.mark.parametrize("rate", [1 << 31, 900_000])
def test_absurd_rates_are_refused(rate: int) -> None:
    wav = bytearray(save(tone()))
    wav[24:28] = struct.pack("<I", rate)
    fails(bytes(wav))


@pytest.mark.parametrize(
    "data",
    [b"<html>no</html>" * 20, b"text", bytes(5000), b"RIFF\0\0\0\0WAVE", b"\xff\xfb" * 300, b"OggS", b"ID3" * 99],
)
def test_what_is_no_sound(data: bytes) -> None:
    assert "cannot read the sound" in fails(data).message


def test_no_samples() -> None:
    assert "no samples" in fails(save(np.zeros(0, np.float32))).message


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_sounds_give_samples_or_the_named_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = save(tone(0.3), kind)
    random = np.random.default_rng(3)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 4):
            broken[place] = random.integers(0, 256)
        outcomes.add(outcome(bytes(broken)))
    assert outcomes <= {"finite", "bad_cell"}
    capfd.readouterr()


def test_batches_are_padded_to_few_lengths() -> None:
    audio = made()
    long, short = (audio.parse({"x": save(tone(s))}, NO_FILES) for s in (0.5031, 0.2))
    batch = audio.collate([short, None, long])
    assert batch["length"].tolist() == [3200, 1600, 8050]
    assert batch["waveform"].shape == (3, 8160)
    assert batch["waveform"].dtype == np.float32
    assert type(batch["waveform"]) is np.ndarray
    assert (batch["waveform"][1] == 0).all()
    assert (batch["waveform"][2, 8050:] == 0).all()
    assert (batch["waveform"][2, :8050] == long).all()
    assert audio.collate([None])["waveform"].shape == (1, 1600)
    assert set(audio.arrays()) == set(batch)


@pytest.mark.parametrize("options", [{}, {"max_seconds": 0.333, "min_seconds": 0.01}, {"sample_rate": 22050}])
def test_lengths_stay_within_their_bounds(options: dict[str, float]) -> None:
    audio = made(**options)
    low, high = audio.lengths["S"]
    assert low % HOP == high % HOP == 0
    longest = audio.parse({"x": save(tone(11))}, NO_FILES)
    assert audio.collate([None])["waveform"].shape[1] == low
    assert audio.collate([longest])["waveform"].shape[1] == high


def test_absent_state_digest_and_summary() -> None:
    audio = made(max_seconds=3.0)
    for cell in (None, "", float("nan")):
        assert audio.parse({"x": cell}, NO_FILES) is None
    again = Audio.from_state(json.loads(json.dumps(audio.state(), sort_keys=True)))
    data = save(tone(0.7, 44_100), rate=44_100)
    one, two = audio.parse({"x": data}, NO_FILES), again.parse({"x": data}, NO_FILES)
    assert one is not None
    assert two is not None
    assert audio.digest(one) == again.digest(two)
    assert again.lengths == audio.lengths
    assert audio.size(one) == pytest.approx(0.7)
    assert audio.summary(one)["loudness"] == pytest.approx(-9.03, abs=0.1)
    assert audio.summary(one)["peak"] == pytest.approx(0.5, abs=0.02)


def test_the_shortest_may_not_be_above_the_longest() -> None:
    with pytest.raises(ValueError, match="min_seconds"):
        made(min_seconds=2, max_seconds=1)


def test_parsing_is_thread_safe() -> None:
    audio = made()
    data = [save(tone(0.3, hertz=200 + 50 * i), "OGG", rate=22_050) for i in range(16)]
    wanted = [parse(d).tobytes() for d in data]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda d: audio.parse({"x": d}, NO_FILES), data))
    assert [g.tobytes() for g in got if g is not None] == wanted
