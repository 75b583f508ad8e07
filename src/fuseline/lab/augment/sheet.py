"""The contact sheet: cells of a few training rows, as they are and as training sees them: RUN/augmented.json.

Dimensions: B batch, H height, W width, S samples, N frames, F bands, L steps, C channels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fuseline.lab.augment.batch import Augmenter, make_augmenter
from fuseline.lab.encoders.audio import LogMel
from fuseline.lab.model import own_arrays
from fuseline.lab.training.prepare import Prepared
from fuseline.modalities import Modality
from fuseline.modalities.several import SEVERAL
from fuseline.package.files import write_json

ROWS = 3
AMONG = 24
"""training rows among which some are looked for that have the input"""
VIEWS = 4
SIDE, LONGEST = 112, 176
"""pixels of a picture's shorter side, unless its longer one would have more than this"""
FLOOR = -8.0
"""of logarithms of powers: below is black"""
NUMBERS = 12
"""features or steps that are written out"""


def write_sheet(prepared: Prepared, folder: Path) -> None:
    """RUN/augmented.json, where any input is augmented."""
    seed, modalities = prepared.recipe.training.seed, prepared.parser.modalities
    augmenter = make_augmenter(prepared.plans, modalities, prepared.reader, seed)
    if augmenter is not None:
        sheets = contact_sheet(augmenter, prepared.rows("train")[:AMONG])
        write_json(folder / "augmented.json", {"inputs": sheets})


def contact_sheet(augmenter: Augmenter, rows: np.ndarray) -> list[dict[str, Any]]:
    """One entry an augmented input: its name, what is done, and cards of a row: before, and as seen in four steps.

    `rows`: of the training part; the first that have the input are shown.
    """
    out = []
    parser = augmenter.reader.parser
    for name, part in augmenter.parts.items():
        modality = parser.modalities[name]
        cells = [(row.index, row.values.get(name)) for row in augmenter.reader.read(rows)]
        # The largest: of a word, or a moment of sound, little could be changed.
        there = sorted((c for c in cells if c[1] is not None), key=lambda c: -modality.size(c[1]))[:ROWS]
        if not there or name in augmenter.reader.frozen:
            continue
        batch = augmenter.reader.batch(np.array([index for index, _ in there]))
        plain = own_arrays(name, batch.arrays)
        views = [own_arrays(name, augmenter(batch, step).arrays) for step in range(VIEWS)]
        cards = [
            {"row": int(row), "before": shown(plain, i, modality), "after": [shown(v, i, modality) for v in views]}
            for i, row in enumerate(batch.rows)
        ]
        out.append({"input": name, "modality": modality.name, "does": part.says(), "cards": cards})
    return out


def shown(arrays: Mapping[str, Tensor], i: int, modality: Modality) -> dict[str, str]:
    """Row `i` as a picture (`jpeg`, base64) or as `text`."""
    own = {k: v[i] for k, v in arrays.items()}
    match modality.name:
        case "audio":
            return _picture(_spectrogram(own["waveform"], int(own["length"]), modality))
        case "timeseries":
            return {"text": _steps(own, modality)}
        case "tabular":
            return {"text": _record(own, modality)}
        case "images" | "video":
            key = "frames" if "frames" in own else "pixels"
            real = own["real"] if "frames" in own else own[SEVERAL]
            return _picture(np.concatenate(list(own[key][real].numpy()), axis=1))
        case "document":
            return {**_picture(own["pixels"].numpy()), "text": _words(own["ids"], own["mask"], modality)}
        case "texts":
            item = modality.item  # type: ignore[attr-defined]
            real = own[SEVERAL]
            texts = [_words(t, m, item) for t, m in zip(own["ids"][real], own["mask"][real], strict=True)]
            return {"text": " | ".join(texts)}
        case "text":
            return {"text": _words(own["ids"], own["mask"], modality)}
        case _:
            return _picture(own["pixels"].numpy())


def _picture(pixels_HWC: np.ndarray) -> dict[str, str]:
    picture = Image.fromarray(pixels_HWC)
    share = min(SIDE / min(picture.size), LONGEST / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * share)), max(1, round(picture.height * share))))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return {"jpeg": base64.b64encode(file.getvalue()).decode()}


def _spectrogram(waveform_S: Tensor, length: int, modality: Modality) -> np.ndarray:
    """Log-mel powers, low sounds below, time to the right, (F, N, 3) uint8."""
    rate = modality.config.sample_rate  # type: ignore[attr-defined]
    with torch.no_grad():
        bands_FN = LogMel(rate, 64, 40.0)(waveform_S[None, :length])[0].T.flip(0)
    top = float(bands_FN.max())
    grey = ((bands_FN - max(FLOOR, top - 12)) / max(1e-6, top - max(FLOOR, top - 12))).clamp(0, 1)
    return np.repeat((255 * grey).to(torch.uint8).numpy()[:, :, None], 3, axis=2)


def _words(ids_T: Tensor, mask_T: Tensor, modality: Any) -> str:
    """The text, `·` for a token that is hidden (those behind the last one seen are padding, mostly)."""
    tokenizer = modality.tokenizer
    known = tokenizer.get_added_tokens_decoder()
    last = int(torch.nonzero(mask_T != 0).max()) if bool((mask_T != 0).any()) else -1
    parts: list[str] = []
    run: list[int] = []
    for token, there in zip(ids_T[: last + 1].tolist(), (mask_T[: last + 1] != 0).tolist(), strict=True):
        if token in known and known[token].special:
            continue
        if there:
            run.append(token)
            continue
        parts += [tokenizer.decode(run), " · "]
        run = []
    return "".join([*parts, tokenizer.decode(run)]).strip()


def _record(own: Mapping[str, Tensor], modality: Any) -> str:
    parts = []
    if "numbers" in own:
        pairs = zip(modality.number_names, own["numbers"].tolist(), own["numbers_present"].tolist(), strict=True)
        parts += [f"{name} {f'{value:.4g}' if there else '–'}" for name, value, there in pairs]
    if "categories" in own:
        for name, index in zip(modality.category_names, own["categories"].tolist(), strict=True):
            value = "–" if index == 0 else "(unseen)" if index == 1 else modality.values[name][index - 2]
            parts.append(f"{name} {value}")
    return ", ".join(parts[:NUMBERS]) + (" …" if len(parts) > NUMBERS else "")


def _steps(own: Mapping[str, Tensor], modality: Any) -> str:
    """The last steps of the first channel."""
    pairs = list(zip(own["values"][:, 0].tolist(), own["known"][:, 0].tolist(), strict=True))[-NUMBERS:]
    return f"{modality.channels[0]}: " + " ".join(f"{value:.3g}" if there else "–" for value, there in pairs)
