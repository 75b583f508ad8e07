"""Pictures and sounds: shown as they are, sent byte for byte, recorded as a WAV that the server's reader takes."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from serve.console.standin import Page


def png(colour: tuple[int, int, int] = (200, 30, 60)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(out, "PNG")
    return out.getvalue()


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        times = np.arange(int(seconds * rate)) / rate
        file.writeframes((20000 * np.sin(2 * np.pi * 440 * times)).astype("<i2").tobytes())
    return out.getvalue()


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(";base64,")[2], validate=True)


def test_a_dropped_picture_is_shown_and_sent_as_it_is(page: Page) -> None:
    page.open()
    page.drop("picture", png(), "x.png", "image/png")
    page.wait(lambda: page.all("canvas.picture"))
    colour = page.js("return [...document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data]")
    assert colour == [200, 30, 60, 255]
    assert "30 × 20 pixels" in page.field("picture").text
    assert page.state("picture") == "given"
    [row] = page.predict()["rows"]
    assert row == {"picture": "data:image/png;base64," + base64.b64encode(png()).decode()}


def test_a_chosen_picture_can_be_replaced_and_taken_away(page: Page, tmp_path: Path) -> None:
    page.open()
    for name, colour in (("a.png", (1, 2, 3)), ("b.png", (250, 250, 0))):
        (tmp_path / name).write_bytes(png(colour))
        page.control("picture").send_keys(str(tmp_path / name))
        page.wait(lambda name=name: name in page.field("picture").text)
    assert content(page.predict()["rows"][0]["picture"]) == png((250, 250, 0))
    page.press(page.field("picture").find_element("css selector", ".field-head button"))
    assert page.state("picture") == "absent"
    assert page.predict()["rows"] == [{}]
    page.control("picture").send_keys(str(tmp_path / "b.png"))  # the same file again is a change too
    page.wait(lambda: page.state("picture") == "given")


def test_a_pasted_picture_goes_to_the_picture_column(page: Page) -> None:
    page.open()
    assert page.probe("pasteFile", base64.b64encode(png()).decode(), "image.png", "image/png")
    page.wait(lambda: page.all("canvas.picture"))
    assert content(page.predict()["rows"][0]["picture"]) == png()


def test_words_with_a_picture_beside_them_are_pasted_as_words(page: Page) -> None:
    page.open()
    note = page.control("note")
    assert not page.probe("pasteFile", base64.b64encode(png()).decode(), "image.png", "image/png", note, "words")
    assert page.state("picture") == "absent"
    assert page.probe("pasteFile", base64.b64encode(png()).decode(), "image.png", "image/png", note)
    page.wait(lambda: page.state("picture") == "given")


def test_text_that_is_pasted_stays_text(page: Page) -> None:
    page.open()
    assert not page.probe("pasteText", "x")
    assert page.state("picture") == "absent"


def test_what_the_browser_cannot_show_is_sent_all_the_same(page: Page) -> None:
    page.open()
    page.drop("picture", b"DICM no picture", "scan.dcm", "")
    page.drop("sound", b"no sound either", "s.aiff", "audio/x-aiff")
    page.wait(lambda: len([t for t in page.texts(".preview .note") if "No preview" in t]) == 2)
    [row] = page.predict()["rows"]
    assert row["picture"] == "data:application/octet-stream;base64," + base64.b64encode(b"DICM no picture").decode()
    assert content(row["sound"]) == b"no sound either"


def test_an_empty_file_is_told_at_its_field(page: Page) -> None:
    page.open()
    page.drop("picture", b"", "x.png", "image/png")
    page.one("#send").click()
    assert "empty (0 bytes)" in page.error("picture")
    assert page.server.posted == []


def test_a_file_dropped_beside_the_zones_does_not_replace_the_page(page: Page) -> None:
    page.open()
    assert page.probe("dropBeside")


def test_a_sound_is_drawn_and_played(page: Page) -> None:
    page.open()
    page.drop("sound", wav(), "tone.wav", "audio/wav")
    page.wait(lambda: page.all("svg.waveform"))
    path = page.one("svg.waveform path").get_attribute("d") or ""
    assert path.count("M") > 150
    heights = [float(part.split()[1].split("V")[0]) for part in path.split("M")[1:]]
    assert min(heights) < 12, "a tone of two thirds of full scale reaches well above the middle, 24"
    play = page.field("sound").find_element("css selector", ".sound button")
    page.press(play)
    assert play.text == "Stop"
    page.wait(lambda: play.text == "Play")  # it ends by itself
    assert content(page.predict()["rows"][0]["sound"]) == wav()


def test_a_recording_is_a_wav_with_what_the_microphone_gave(page: Page) -> None:
    page.open()
    record = page.one(".record")
    page.press(record)
    page.wait(lambda: "0:01" in record.text, 15)
    record.click()
    page.wait(lambda: page.all("svg.waveform"))
    assert "recording.wav" in page.field("sound").text
    [row] = page.predict()["rows"]
    assert row["sound"].startswith("data:audio/wav;base64,")
    samples, rate = soundfile.read(io.BytesIO(content(row["sound"])))
    assert samples.ndim == 1
    assert 0.9 < len(samples) / rate < 10
    assert np.abs(samples).max() > 0.05, "the fake microphone beeps"


def test_wav_is_encoded_exactly(page: Page) -> None:
    page.open()
    encoded = page.driver.execute_async_script(
        """const done = arguments[0];
        import(new URL("console/recording.js", document.baseURI)).then(async ({encodeWav}) => {
          const blob = encodeWav([new Float32Array([0, 1, -1]), new Float32Array([0.5, 2])], 16000);
          done([...new Uint8Array(await blob.arrayBuffer())]);
        });"""
    )
    samples, rate = soundfile.read(io.BytesIO(bytes(encoded)), dtype="int16")
    assert rate == 16000
    assert samples.tolist() == [0, 32767, -32767, 16384, 32767]
