"""A page: its picture, and its words with where they stand. Dimensions: B batch, T tokens, H W pixels (H == W)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from fuseline.data.words import Word, read_words
from fuseline.errors import FuselineError
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import bad_cell, is_absent
from fuseline.modalities.media import read_media
from fuseline.modalities.picture import decode_picture
from fuseline.modalities.text import SPECIALS, clean, load_tokenizer, train_tokenizer
from fuseline.recipe import Frozen

GRID = 1000
"""places along each side of a page"""
_LONGEST_WORD = 100
_MOST_WORDS = 1_000_000


class DocumentConfig(Frozen):
    max_length: int = Field(256, ge=4, le=65536, description="most tokens of all words; the rest is cut")
    vocab_size: int = Field(4000, ge=300, le=200_000, description="tokens of the trained tokenizer, its bytes included")
    lowercase: bool = Field(False, description="lower-case every word first")
    boxes: Literal["pixels", "share", "thousand"] = Field(
        "pixels",
        description="what a box is in: pixels of the page's picture (or of the width and height beside the words), "
        "shares of the page from 0 to 1, or thousandths of it",
    )
    size: int = Field(224, ge=32, le=1024, multiple_of=16, description="side in pixels of the page, stretched")
    max_pixels: int = Field(100_000_000, ge=1, description="largest width x height that is decoded at all")
    max_bytes: int = Field(64 * 2**20, ge=1, description="largest file")


@dataclass(frozen=True)
class Page:
    """Tokens of the words with a box each, and the picture where there is one."""

    ids: np.ndarray
    """(T,) int64, the first of them [CLS] over the whole page"""
    boxes: np.ndarray
    """(T, 4) int64: x0, y0, x1, y1 in thousandths of the page"""
    pixels: np.ndarray | None
    """(H, W, 3) uint8"""
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.boxes.nbytes + (0 if self.pixels is None else self.pixels.nbytes)

    def __len__(self) -> int:
        return len(self.ids)


class Document:
    """Words with boxes (JSON of ``[{"text": ..., "box": [x0, y0, x1, y1]}]``, or a list column), a picture, or both.

    The recipe's `columns` say which is which: ``{scan: image, ocr: words}``; the picture's column may be left out. A
    row is absent where both are. The words are cut into pieces by a byte-level BPE trained on the training words.
    """

    Config: ClassVar[type[Frozen]] = DocumentConfig
    file: ClassVar[bool] = True

    def __init__(
        self, config: DocumentConfig, columns: Mapping[str, str], tokenizer: Tokenizer, notes: tuple[str, ...] = ()
    ) -> None:
        self.name = "document"
        self.config = config
        self.kinds = dict(columns)
        self.columns: tuple[str, ...] = tuple(columns)
        self.picture = next((c for c, kind in columns.items() if kind == "image"), None)
        self.words = next(c for c, kind in columns.items() if kind == "words")
        self.lengths = {"T": (1, config.max_length)}
        self.notes = notes
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1

    @classmethod
    def fit(
        cls, config: DocumentConfig, columns: Mapping[str, str], cells: Iterable[Cells], media: MediaRoot
    ) -> Document:
        """Trains the tokenizer on the training rows' words; broken cells are passed over: `parse` names them."""
        kinds = sorted(columns.values())
        if kinds not in (["words"], ["image", "words"]):
            raise FuselineError(
                "bad_recipe",
                f"a document has one column of words and at most one image, not {', '.join(kinds)}",
                "columns: {scan: image, ocr: words}",
            )
        column = next(c for c, kind in columns.items() if kind == "words")
        seen = [0]
        tokenizer = train_tokenizer(_texts(cells, column, config.lowercase, seen), config.vocab_size)
        ordered = dict(sorted(columns.items(), key=lambda item: item[1]))  # the picture first
        notes = () if seen[0] else (f"{column}: no training word; every word will be read byte by byte",)
        return cls(config, ordered, tokenizer, notes)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Document:
        config = DocumentConfig.model_validate(state["config"])
        return cls(config, dict(state["columns"]), load_tokenizer(state["tokenizer"]))

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "columns": list(self.kinds.items()),
            "tokenizer": self.tokenizer.to_str(),
        }

    def parse(self, cells: Cells, media: MediaRoot) -> Page | None:
        """A page, or None where neither picture nor words are there. Raises FuselineError ``bad_cell`` ..."""
        pixels, extent, facts = None, None, {}
        cell = cells.get(self.picture) if self.picture is not None else None
        if self.picture is not None and not is_absent(cell):
            config = self.config
            data = read_media(cell, self.picture, media, max_bytes=config.max_bytes)
            found = decode_picture(data, cell, self.picture, config.size, "stretch", config.max_pixels)
            pixels, extent = found.pixels, (float(found.width), float(found.height))
            facts = {"width": extent[0], "height": extent[1]}
        cell = cells.get(self.words)
        words: list[Word] = []
        if not is_absent(cell):
            words, said = read_words(cell, self.words)
            extent = said or extent
        if pixels is None and not words:
            return None
        ids, boxes = self._tokens(words, extent)
        facts |= {"words": float(len(words)), "cut": float(len(ids) > self.config.max_length)}
        most = self.config.max_length
        ids_T, boxes_T4 = np.array(ids[:most], dtype=np.int64), np.array(boxes[:most], dtype=np.int64)
        return Page(ids_T, boxes_T4, pixels, facts)

    def _tokens(self, words: Sequence[Word], extent: tuple[float, float] | None) -> tuple[list[int], list[list[int]]]:
        first = self.tokenizer.token_to_id(SPECIALS[2])
        assert first is not None
        ids = [first]
        boxes: list[list[int]] = [[0, 0, GRID, GRID]]
        unit = {"share": (1.0, 1.0), "thousand": (1000.0, 1000.0), "pixels": extent}[self.config.boxes]
        if words and unit is None:
            raise bad_cell(
                self.words,
                "the boxes are in pixels, but the row has no picture that says how many a page has",
                'write {"width": ..., "height": ..., "words": [...]}, or set boxes: share or thousand',
            )
        if unit is not None:
            self._check_unit(words, unit)
        texts = [(word, clean(word.text[:_LONGEST_WORD], self.config.lowercase)) for word in words]
        texts = [(word, text) for word, text in texts if text][: self.config.max_length]  # none has less than a token
        encodings = self.tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False)
        for (word, _), encoding in zip(texts, encodings, strict=True):
            assert unit is not None
            scaled = [round(GRID * v / unit[i % 2]) for i, v in enumerate(word.box)]
            box = [min(max(v, 0), GRID) for v in scaled]
            ids += encoding.ids
            boxes += [box] * len(encoding.ids)
            if len(ids) > self.config.max_length:
                break
        return ids, boxes

    def _check_unit(self, words: Sequence[Word], unit: tuple[float, float]) -> None:
        """Boxes of another unit than the recipe's all end in one corner, and the layout is lost without a word."""
        if not words:
            return
        across, down = unit
        outside = sum(w.box[0] >= across or w.box[1] >= down or w.box[2] <= 0 or w.box[3] <= 0 for w in words)
        inside_one = max(max(w.box) for w in words) <= 1.0 < min(unit) / 20
        if len(words) > 2 and (2 * outside > len(words) or inside_one):
            where = "within one of" if inside_one else "outside"
            count = len(words) if inside_one else outside
            raise bad_cell(
                self.words,
                f"{count} of {len(words)} words lie {where} the page's {across:g} x {down:g} {self.config.boxes}",
                "are the boxes in what the recipe's `boxes` says: pixels, share or thousand?",
            )

    def blank(self, length: int) -> Page:
        """A white page of so many tokens, to measure with."""
        size = self.config.size
        white = np.full((size, size, 3), 255, dtype=np.uint8)
        return Page(np.zeros(length, dtype=np.int64), np.zeros((length, 4), dtype=np.int64), white)

    def collate(self, values: Sequence[Page | None]) -> dict[str, np.ndarray]:
        """`ids` (B, T) int64 and `boxes` (B, T, 4) int64, as long as the longest page; `mask` (B, T) bool; `pixels`
        (B, H, W, 3) uint8, black where there is none; `pictured` (B,) bool."""
        size, longest = self.config.size, max((len(v) for v in values if v is not None), default=1)
        out = {
            "ids": np.zeros((len(values), longest), dtype=np.int64),
            "boxes": np.zeros((len(values), longest, 4), dtype=np.int64),
            "mask": np.zeros((len(values), longest), dtype=bool),
            "pixels": np.zeros((len(values), size, size, 3), dtype=np.uint8),
            "pictured": np.zeros(len(values), dtype=bool),
        }
        out["mask"][:, 0] = True
        for i, page in enumerate(values):
            if page is None:
                continue
            out["ids"][i, : len(page)], out["boxes"][i, : len(page)] = page.ids, page.boxes
            out["mask"][i, : len(page)] = True
            if page.pixels is not None:
                out["pixels"][i], out["pictured"][i] = page.pixels, True
        return out

    def arrays(self) -> dict[str, ArraySpec]:
        size = self.config.size
        return {
            "ids": ArraySpec("int64", ("B", "T")),
            "boxes": ArraySpec("int64", ("B", "T", 4)),
            "mask": ArraySpec("bool", ("B", "T")),
            "pixels": ArraySpec("uint8", ("B", size, size, 3)),
            "pictured": ArraySpec("bool", ("B",)),
        }

    def digest(self, value: Page) -> bytes:
        picture = b"" if value.pixels is None else value.pixels.tobytes()
        return hashlib.sha256(value.ids.tobytes() + value.boxes.tobytes() + picture).digest()

    def size(self, value: Page) -> float:
        """Tokens."""
        return float(len(value))

    def summary(self, value: Page) -> dict[str, float | str]:
        """Tokens, words, whether they were cut; how bright the page is, and its width and height."""
        bright = {} if value.pixels is None else {"brightness": float(value.pixels.mean()) / 255}
        return {"tokens": float(len(value)), **bright, **value.facts}


def _texts(cells: Iterable[Cells], column: str, lowercase: bool, seen: list[int]) -> Iterator[str]:
    for row in cells:
        cell = row.get(column)
        if is_absent(cell):
            continue
        try:
            words, _ = read_words(cell, column)
        except FuselineError:
            continue
        for word in words:
            seen[0] += 1
            yield clean(word.text[:_LONGEST_WORD], lowercase)
        if seen[0] >= _MOST_WORDS:
            return
