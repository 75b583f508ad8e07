"""The dearest row a package can be sent: every input present, each at its largest size."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from fuseline.modalities.rows import RowParser

_PICTURE_SIDE = 2048
"""pixels; what decoding a large photograph or radiograph takes (the encoder sees its own size in any case)"""


def heaviest_row(parser: RowParser) -> dict[str, Any]:
    """Raw cells, as a caller would send them. Tables stay absent: their cells cost nothing beside media and text."""
    row: dict[str, Any] = {}
    for whole in parser.modalities.values():
        modality: Any = getattr(whole, "item", whole)
        match modality.name:
            case "text":
                # a digit and a space: two tokens at least in any tokenizer that has not seen such a text
                row[modality.columns[0]] = "7 " * modality.lengths["T"][1]
            case "image":
                row[modality.columns[0]] = _picture()
            case "audio":
                config = modality.state()["config"]
                row[modality.columns[0]] = _sound(config["sample_rate"], config["max_seconds"])
            case "document":
                most = modality.config.max_length
                words = [{"text": "7", "box": [0.0, 0.0, 1.0, 1.0]}] * most
                row[modality.words] = json.dumps({"width": 1, "height": 1, "words": words})
                if modality.picture is not None:
                    row[modality.picture] = _picture()
            case "video":
                row[modality.columns[0]] = _video(modality.config.frames)
        if modality is not whole and modality.columns[0] in row:
            row[modality.columns[0]] = [row[modality.columns[0]]] * whole.lengths["N"][1]
    return row


def _picture() -> bytes:
    from PIL import Image

    ramp = np.arange(_PICTURE_SIDE, dtype=np.uint16)
    pixels = ((ramp[:, None] * 3 + ramp[None, :] * 5) % 251).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.stack([pixels, pixels.T, pixels], axis=-1)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _video(frames: int) -> bytes:
    """An animated GIF of a quarter of the picture's side: what decoding so many frames of a small video takes."""
    from PIL import Image

    ramp = np.arange(_PICTURE_SIDE // 4, dtype=np.uint16)
    pixels = ((ramp[:, None] * 3 + ramp[None, :] * 5) % 251).astype(np.uint8)
    moved = [Image.fromarray(np.roll(pixels, 8 * i, axis=1)) for i in range(max(2, frames))]
    file = io.BytesIO()
    moved[0].save(file, "GIF", save_all=True, append_images=moved[1:], duration=100)
    return file.getvalue()


def _sound(rate: int, seconds: float) -> bytes:
    import soundfile

    waveform_S = np.sin(np.arange(int(rate * seconds)) * 0.05).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, waveform_S, rate, format="WAV")
    return file.getvalue()
