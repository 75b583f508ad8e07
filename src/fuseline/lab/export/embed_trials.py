"""Whether an embedded preparation reads as the package does. What fails here stays outside."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.lab.export.nodes import NotEmbeddedError
from fuseline.lab.export.parity import difference
from fuseline.lab.export.parity_shapes import collated
from fuseline.lab.export.samples import picture, sound
from fuseline.modalities import MediaRoot
from fuseline.modalities.audio import Audio
from fuseline.modalities.image import Image
from fuseline.modalities.text import Text
from fuseline.runtime import Predictor
from fuseline.tasks import Task

Raw = str | bytes
Try = tuple[bytes, Mapping[str, Any]]
"""a file, and the parsed row that it is from"""
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

PICTURE_TOLERANCE = 0.02
"""Largest change of a probability (of a number: in standard deviations of the target) that other pixels may make:
about what saving a picture anew as JPEG changes."""
SOUND_TOLERANCE = 1e-6
ENOUGH = 8
"""real pictures"""
ADVERSARIAL = (
    "",
    " ",
    "\n\t",
    "a",
    "Hello, World! It's 3.14% of $5, isn't it?",
    "can't won't I'll you've we're 'S 'LL it''s",
    "café naïve Ångström đ ø ł œ ß ẞ İstanbul ı Ǆ ǅ ﬁ ﬂ",
    "ΟΔΟΣ Σίσυφος ΑΣ, ЁЖ щука",
    "漢字と ひらがな カタカナ ガギグ 한국어 텍스트 中文，标点。「引」",
    "नमस्ते ไทย שָׁלוֹם مَرْحَبًا ﷺ ١٢٣ ½ ² ③ Ⅷ",
    "😀 hi😀 👩‍👩‍👧 🇩🇪 ❤️ 👍🏽x",
    "soft\u00adhyphen zero\u200bwidth bidi\u202e \ufeffmark \u0301alone nbsp\u00a0x ideographic\u3000space\u2003em",
    "line\u2028one\u2029two\x85three\x0bfour\x1cfive\x00six\x7fseven",
    "\x01\x02\x03 [PAD] [UNK] [CLS] [SEP] [MASK] x[SEP]y[CLS][MASK] <s> </s> <unk> <|endoftext|>",
    "## ##ing a##b _x_ y-z/w\\v \\1 \\0 $1 ^a$ .* `~ {} <html> a\\n",
    "«quotes» “double” ‘single’ – — … • · ¿ ¡ § ¶ € £ ¥ © ™",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101 + " end",
    "a" * 20_000,
    "ab " * 20_000,
    " " * 20_000 + "late",
    "é" * 3_000 + " 漢" * 3_000,
    "one  two   three    four     ",
    "㐀 𠀀 \U000e0041 \ue000 \U0010ffff \ufffd",
)
AROUND = ("{}", "x{}y", "a {} b", "{0}{0}", " {}", "{} !")
"""where a special token may stand in a text"""


def try_texts(run: Run, name: str, modality: Text, raw: Sequence[Raw]) -> dict[str, Any]:
    """Ids and mask must be equal on the given texts, the adversarial ones, every character of Unicode in words of its
    own and beside others, and mixtures. Raises :class:`NotEmbeddedError` with the first that differs.
    """
    given = [r for r in raw if isinstance(r, str)]
    own = [t.content for t in modality.tokenizer.get_added_tokens_decoder().values()]
    public = [*ADVERSARIAL, *_every_character(), *(form.format(t) for t in own for form in AROUND)]
    texts = [unicodedata.normalize("NFC", t) for t in (*public, *given, *_mixtures(given))]
    column = modality.columns[0]
    for start, size in _batches(len(texts)):
        batch = texts[start : start + size]
        values = [modality.parse({column: text}, MediaRoot(None)) for text in batch]
        try:
            got = run({f"{name}.text": np.array(batch, dtype=object)})
        except Exception as error:  # onnxruntime's private types
            raise NotEmbeddedError("the operators fail on a text of the sample") from error
        for i, value in enumerate(values):
            # A text of the user's table is quoted nowhere.
            quoted = _short(batch[i]) if start + i < len(public) else "a text of the sample"
            if bool(got["given"][i]) != (value is not None):
                raise NotEmbeddedError(f"of {quoted} operators and package disagree whether it is absent")
            if value is not None and got["ids"][i][got["mask"][i] != 0].tolist() != value.tolist():
                raise NotEmbeddedError(f"the operators read {quoted} as other tokens than the package")
    return {"texts": len(texts), "differ": 0, "said": f"ids equal on {len(texts)} texts, all of Unicode among them"}


def _every_character(each: int = 24) -> Iterator[str]:
    """Texts in which every assigned character stands inside a word and alone."""
    points = [chr(p) for p in range(0x20, 0x110000) if unicodedata.category(chr(p)) not in ("Cn", "Co", "Cs")]
    for i in range(0, len(points), each):
        yield " ".join(f"a{c}b {c}" for c in points[i : i + each])


def _mixtures(given: Sequence[str], count: int = 300) -> Iterator[str]:
    """Random pieces of texts, run together."""
    rng = np.random.default_rng(2)
    pool = [t for t in (*given, *ADVERSARIAL) if t and len(t) < 2000]
    for _ in range(count):
        pieces = []
        for text in rng.choice(np.array(pool, dtype=object), size=int(rng.integers(1, 6))):
            start = int(rng.integers(0, len(text)))
            pieces.append(text[start : start + int(rng.integers(1, 40))])
        yield str(rng.choice(["", " "])).join(pieces)


def try_files(
    run: Run,
    name: str,
    modality: Image | Audio,
    made: Sequence[Try],
    given: Sequence[Try],
    predictor: Predictor,
) -> dict[str, Any]:
    """Decode files both ways, and ask the package about both. Raises :class:`NotEmbeddedError`.

    Where there are enough real ones, these decide about pictures: what is made by code has harder edges than
    photographs. Sounds must be equal, so that all of them are tried.
    """
    tries, read_given = list(given), 0
    if isinstance(modality, Audio) or len(given) < ENOUGH:
        rng = np.random.default_rng(3)
        company = [v for _, v in made] or [dict.fromkeys(predictor.names)]
        files = _made_pictures(rng) if isinstance(modality, Image) else _made_sounds(rng, modality)
        for i, file in enumerate(files):
            value = modality.parse({modality.columns[0]: file}, MediaRoot(None))
            tries.append((file, {**company[i % len(company)], name: value}))
        tries += made
    refused, worst_value = 0, 0.0
    mean_value: list[float] = []
    changes: list[float] = []
    for number, (file, values) in enumerate(tries):
        wanted = collated(predictor.rows.modalities, [values])
        try:
            got = run({f"{name}.file": np.frombuffer(file, np.uint8), f"{name}.file_size": np.array([len(file)])})
        except Exception:  # onnxruntime's private types: it refuses the file, which the user will be told
            refused += 1
            continue
        read_given += number < len(given)
        read = {**wanted, **{f"{name}.{key}": value for key, value in got.items() if key != "given"}}
        for key in (k for k in got if k != "given"):
            if got[key].shape != wanted[f"{name}.{key}"].shape:
                raise NotEmbeddedError(f"a file becomes {key} of another shape than the package's")
            gap = np.abs(got[key].astype(np.float64) - wanted[f"{name}.{key}"])
            worst_value, mean_value = max(worst_value, float(gap.max())), [*mean_value, float(gap.mean())]
        changes.append(answer_change(predictor.task, predictor.backend.run(wanted), predictor.backend.run(read)))
    if not changes or (given and not read_given):
        raise NotEmbeddedError("no file of the table is of a kind that the operators read")
    figures: dict[str, Any] = {
        "files": len(tries),
        "refused": refused,
        "mean_difference": float(np.mean(mean_value)),
        "largest_difference": worst_value,
        "answer_change_mean": float(np.mean(changes)),
        "answer_change": max(changes),
    }
    unit = "of 255" if isinstance(modality, Image) else "of full scale"
    figures["said"] = (
        f"{len(changes)} files, values differ by {figures['mean_difference']:.2g} {unit} on average and "
        f"{worst_value:.3g} at most, answers by {figures['answer_change']:.2g} at most"
        + (f"; {refused} of the sample's files are of a kind that is not read" if refused else "")
    )
    if isinstance(modality, Audio) and worst_value > SOUND_TOLERANCE:
        raise NotEmbeddedError(f"the embedded decoder gives other samples than the package ({figures['said']})")
    if max(changes) > PICTURE_TOLERANCE:
        raise NotEmbeddedError(
            f"the embedded decoder changes answers by more than {PICTURE_TOLERANCE:g} ({figures['said']})"
        )
    return figures


def answer_change(task: Task, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Largest change of a probability, or of a number in standard deviations of its target."""
    if task.name == "classification":
        chances = [np.exp(task.log_chances(x)[0]) for x in (a, b)]  # type: ignore[attr-defined]
        return float(np.abs(chances[0] - chances[1]).max())
    if task.name == "regression":
        scale = np.maximum(np.array(task.std), 1e-12)  # type: ignore[attr-defined]
        return float((np.abs(a["prediction"] - b["prediction"]) / scale).max())
    return max(difference(a[k], b[k]) for k in a)


def _made_pictures(rng: np.random.Generator) -> Iterator[bytes]:
    for kind, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P")):
        for width, height in ((160, 120), (301, 203), (97, 640), (24, 18)):
            yield picture(rng, width, height, kind, mode)
    yield picture(rng, 1601, 1203, "JPEG")


def _made_sounds(rng: np.random.Generator, modality: Audio) -> Iterator[bytes]:
    rate, longest = modality.config.sample_rate, modality.config.max_seconds
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")):
        for channels, seconds in ((1, 0.001), (2, 0.7), (1, min(longest * 1.5, longest + 5))):
            yield sound(rng, rate, seconds, kind, channels, subtype)


def _batches(total: int) -> Iterator[tuple[int, int]]:
    start = 0
    for turn in range(total):
        size = min((1, 2, 3, 7, 64, 64, 64, 64)[turn % 8], total - start)
        if size <= 0:
            return
        yield start, size
        start += size


def _short(text: str) -> str:
    return repr(text[:40]) + ("..." if len(text) > 40 else "")
