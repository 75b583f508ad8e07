from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalities.clips import KINDS, encoded, numbers, ramp, sound_only
from PIL import Image as Pillow

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.video import Clip, Video, VideoConfig


def video(**options: Any) -> Video:
    return Video(VideoConfig(**{"size": 16, **options}), "clip")


def seen(cell: Any, media: MediaRoot | None = None, **options: Any) -> Clip:
    found = video(**options).parse({"clip": cell}, media or MediaRoot())
    assert found is not None
    return found


def refused(cell: Any, media: MediaRoot | None = None, **options: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        video(**options).parse({"clip": cell}, media or MediaRoot())
    assert caught.value.column == "clip"
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_frames_stand_in_the_middle_of_even_spans(kind: str) -> None:
    rate = 25 if kind in ("mpegts", "mpeg") else 10  # what these can hold
    clip = seen(encoded(ramp(20), rate, kind), frames=5)
    assert numbers(clip.pixels)[-1] == 18
    assert np.abs(np.array(numbers(clip.pixels)) - [2, 6, 10, 14, 18]).max() <= (kind == "mpegts")  # a rounded clock
    np.testing.assert_allclose(clip.seconds, np.array(numbers(clip.pixels)) / rate, atol=0.01)
    assert clip.facts["cut"] == 0.0
    assert abs(clip.facts["seconds"] - 20 / rate) < 0.02


def test_the_rate_of_the_camera_does_not_matter() -> None:
    """The same two seconds, filmed at 5 and at 20 frames a second."""
    slow, fast = (encoded(np.repeat(ramp(10), n, axis=0), 5 * n) for n in (1, 4))
    one, two = (seen(data, frames=4) for data in (slow, fast))
    assert numbers(one.pixels) == numbers(two.pixels) == [1, 3, 6, 8]
    np.testing.assert_allclose(one.seconds, two.seconds, atol=0.16)


def test_a_clip_is_its_first_seconds() -> None:
    clip = seen(encoded(ramp(20)), frames=4, seconds=0.8)
    assert numbers(clip.pixels) == [1, 3, 5, 7]
    assert clip.facts == {"seconds": 0.8, "cut": 1.0}


def test_a_clip_of_fewer_frames_gives_each_once_and_is_padded_with_its_last() -> None:
    modality = video(frames=8)
    clip = modality.parse({"clip": encoded(ramp(3))}, MediaRoot())
    assert numbers(clip.pixels) == [0, 1, 2]
    arrays = modality.collate([clip, None])
    assert arrays["real"].sum(1).tolist() == [3, 1]
    assert numbers(arrays["frames"][0]) == [0, 1, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(arrays["seconds"][0], [0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    assert not arrays["frames"][1].any()


def test_a_list_of_pictures(tmp_path: Path) -> None:
    for i, frame in enumerate(ramp(9)):
        Pillow.fromarray(frame).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(9)]
    media = MediaRoot(str(tmp_path))
    for cell in (names, tuple(names), json.dumps(names), ";".join(names), np.array(names, dtype=object)):
        clip = seen(cell, media, frames=3, rate=2.0)
        assert numbers(clip.pixels) == [1, 4, 7]
        assert clip.seconds.tolist() == [0.5, 2.0, 3.5]
    gap = seen([names[0], None, names[2]], media, frames=3)
    assert gap.seconds.tolist() == [0.0, 2.0]
    assert numbers(seen([names[4]], media, frames=3).pixels) == [4]
    assert video().parse({"clip": [None, ""]}, media) is None
    assert video().parse({"clip": []}, media) is None
    assert "frame 2 of 2: no such file" in refused(["0.png", "9.png"], media).message
    assert refused(["0.png", "../0.png"], media).code == "unsafe_path"


def test_the_ways_to_give_a_file(tmp_path: Path) -> None:
    data = encoded(ramp(4))
    (tmp_path / "a.mp4").write_bytes(data)
    text = base64.b64encode(data).decode()
    whole = seen(data)
    for cell in ("a.mp4", text, f"data:video/mp4;base64,{text}", {"bytes": data, "path": None}):
        np.testing.assert_array_equal(seen(cell, MediaRoot(str(tmp_path))).pixels, whole.pixels)
    assert video().parse({"clip": None}, MediaRoot()) is None
    assert refused("/etc/passwd", MediaRoot(str(tmp_path))).code == "unsafe_path"
    assert "URL" in refused("http://x.org/a.mp4", MediaRoot(str(tmp_path))).message


def test_a_phones_rotation_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV reads the rotation but cannot write one: a frame of 90 degrees stands in for it."""
    from fuseline.modalities import clip

    class Turned:
        rotation = 90

        def to_image(self) -> Pillow.Image:
            pixels = np.zeros((8, 16, 3), np.uint8)
            pixels[:, 12:] = 255  # bright at the right
            return Pillow.fromarray(pixels)

    upright = clip._pixels(Turned(), 16, "stretch")
    assert upright[:2].min() > 200  # and now at the top
    assert upright[8:].max() < 50


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["mp4", "mov", "avi", "matroska", "gif"])
def test_a_file_cut_short_is_a_bad_cell(kind: str, share: float) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8), kind=kind)
    error = refused(data[: int(len(data) * share)])
    assert error.code == "bad_cell"
    assert "bytes" in error.message


def test_a_file_cut_short_behind_its_index_is_a_bad_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    data = path.read_bytes()
    assert len(seen(data)) == 8
    assert "bytes, " in refused(data[: len(data) - 9]).message
    assert refused(data[: len(data) // 2]).code == "bad_cell"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "no video that is known"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "no video that is known"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no video that is known"),
        (sound_only(), "no stream of pictures"),
        (3, "is no file"),
    ],
)
def test_what_is_no_video_is_named(cell: Any, words: str) -> None:
    error = refused(cell)
    assert (error.code, words in error.message) == ("bad_cell", True), error.message


def test_bombs_are_refused_before_they_cost() -> None:
    data = encoded(ramp(20))
    assert "64 x 48 pixels, more than 1,000" in refused(data, max_pixels=1000).message
    assert "more than 10 frames" in refused(data, max_frames=10).message
    assert "larger than" in refused(data, max_bytes=100).message
    # Beyond `seconds` nothing is counted: a stream without an end costs what its beginning costs.
    assert numbers(seen(data, max_frames=10, seconds=0.5, frames=2).pixels) == [1, 3]


def test_a_frame_that_grows_in_the_middle_is_refused() -> None:
    """The header says 64 x 48, and the second picture of this MJPEG stream is 640 x 480."""
    small, large = (io.BytesIO() for _ in range(2))
    Pillow.new("RGB", (64, 48)).save(small, "JPEG")
    Pillow.new("RGB", (640, 480)).save(large, "JPEG")
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i, data in enumerate([small, large, small]):
            packet = av.Packet(data.getvalue())
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, i, i, True
            out.mux(packet)
    assert refused(file.getvalue(), max_pixels=64 * 48).code == "bad_cell"
    assert len(seen(file.getvalue(), max_pixels=640 * 480, frames=3)) == 3


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(["mp4", "avi", "matroska", "gif"]))
def test_hostile_bytes_give_an_error_or_frames_never_a_crash(noise: bytes, at: int, kind: str) -> None:
    data = bytearray(_KNOWN[kind])
    data[at : at + len(noise)] = noise
    code, clip = "", None
    try:
        clip = video(frames=2).parse({"clip": bytes(data)}, MediaRoot())
    except FuselineError as error:
        code = error.code
    assert code == "bad_cell" or (clip is not None and clip.pixels.shape[1:] == (16, 16, 3))


_KNOWN = {kind: encoded(ramp(6), kind=kind) for kind in ("mp4", "avi", "matroska", "gif")}


def test_state_digest_and_summary() -> None:
    modality = video(frames=4, resize="pad")
    again = Video.from_state(json.loads(json.dumps(modality.state())))
    data, other = encoded(ramp(8)), encoded(ramp(8)[::-1])
    one, two = (m.parse({"clip": data}, MediaRoot()) for m in (modality, again))
    assert modality.digest(one) == again.digest(two)
    assert modality.digest(one) != modality.digest(modality.parse({"clip": other}, MediaRoot()))
    told = modality.summary(one)
    assert told["frames"] == 4
    assert told["motion"] > 0.02
    still = modality.parse({"clip": encoded(ramp(1).repeat(8, axis=0))}, MediaRoot())
    assert modality.summary(still)["motion"] < 0.005
    assert modality.size(one) == 4 * 16 * 16


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data = encoded(ramp(2))
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused(data)
    assert (error.code, "video" in error.hint) == ("missing_extra", True)
