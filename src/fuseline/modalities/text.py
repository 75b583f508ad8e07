"""Texts to token ids. Dimensions: B batch, T tokens."""

from __future__ import annotations

import datetime
import decimal
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from fuseline.errors import FuselineError
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import Noted, bad_cell, is_absent, noted, only_column, sha256, shorten
from fuseline.recipe import Frozen

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>")
_UNKNOWN_NAMES = ("[UNK]", "<unk>")
_CHARACTERS_A_TOKEN = 32
"""Longer texts are cut before they are tokenised: no token of a usual vocabulary is longer on average."""
_MOST_TEXTS = 200_000
_SPACED = {ord(c): " " for c in "\t\n\r\v\f\x85\u2028\u2029"}
_CONTROL = {i: None for i in (*range(32), *range(127, 160)) if i not in _SPACED} | {0xFEFF: None} | _SPACED
_PLAIN = (int, float, np.number, np.bool_, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)


class TextConfig(Frozen):
    max_length: int = Field(128, ge=4, le=65536, description="most tokens, the special ones included; the rest is cut")
    tokenizer: str | None = Field(
        None, repr=False, description="the text of a tokenizer.json; default: one is trained on the training texts"
    )
    lowercase: bool = Field(False, description="lower-case every text first")
    vocab_size: int = Field(8000, ge=300, le=200_000, description="tokens of a trained tokenizer, its bytes included")


class Text:
    """Texts in any alphabet to ids, by a given tokenizer or a byte-level BPE trained in `fit`.

    Byte-level BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners") has no unknown
    characters. A text is brought to Unicode NFC and stripped of control characters; numbers, dates and booleans are
    read as their text. A value is an int64 (T,) :class:`Noted` array; its facts are `characters` and `cut`. An absent
    text is one pad token with mask 1.
    """

    Config: ClassVar[type[Frozen]] = TextConfig
    file: ClassVar[bool] = False

    def __init__(self, config: TextConfig, column: str, tokenizer: Tokenizer, notes: tuple[str, ...] = ()) -> None:
        self.name = "text"
        # The tokenizer's text is kept once, in the state.
        self.config = config.model_copy(update={"tokenizer": None})
        self.columns: tuple[str, ...] = (column,)
        self.lengths = {"T": (1, config.max_length)}
        self.notes = notes
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(config.max_length)
        self.pad_id = _first_id(tokenizer, _PAD_NAMES, 0)
        self._unknown_id = _first_id(tokenizer, _UNKNOWN_NAMES, -1)
        self._most_characters = config.max_length * _CHARACTERS_A_TOKEN

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1

    @classmethod
    def fit(
        cls,
        config: TextConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Text:
        """Takes `config.tokenizer`, or trains one on the first 200,000 texts of `cells`. Broken cells are passed over:
        `parse` names them."""
        column = only_column(columns)
        if config.tokenizer is not None:
            return cls(config, column, load_tokenizer(config.tokenizer))
        seen = [0]
        tokenizer = train_tokenizer(_texts(cells, column, config, seen), config.vocab_size)
        notes = () if seen[0] else (f"{column}: no training text; every word will be read byte by byte",)
        return cls(config, column, tokenizer, notes)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Text:
        return cls(TextConfig.model_validate(state["config"]), state["column"], load_tokenizer(state["tokenizer"]))

    def state(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json", exclude={"tokenizer"})
        return {"config": config, "column": self.columns[0], "tokenizer": self.tokenizer.to_str()}

    def parse(self, cells: Cells, media: MediaRoot) -> Noted | None:
        """(T,) int64 ids, or None. Raises FuselineError ``bad_cell`` on a list, a mapping, or bytes but UTF-8."""
        column = self.columns[0]
        cell = cells.get(column)
        if is_absent(cell):
            return None
        raw = as_text(cell, column)
        text = self.cleaned(raw)
        if not text:
            return None
        encoding = self.tokenizer.encode(text)
        cut = len(raw) > self._most_characters or bool(encoding.overflowing)
        ids = encoding.ids or [self.pad_id]  # some tokenizers drop every character they do not know
        return noted(np.array(ids, dtype=np.int64), characters=float(len(text)), cut=float(cut))

    def cleaned(self, raw: str) -> str:
        """A cell's text as it is given to the tokenizer: cut where no token could reach, then cleaned."""
        return clean(raw[: self._most_characters], self.config.lowercase)

    def collate(self, values: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """`ids` (B, T) int64, padded to the longest text of the batch; `mask` (B, T) int64, 1 where a token is."""
        longest = max((len(v) for v in values if v is not None), default=1)
        ids_BT = np.full((len(values), longest), self.pad_id, dtype=np.int64)
        mask_BT = np.zeros((len(values), longest), dtype=np.int64)
        for i, value in enumerate(values):
            if value is None:
                mask_BT[i, 0] = 1
            else:
                ids_BT[i, : len(value)] = value
                mask_BT[i, : len(value)] = 1
        return {"ids": ids_BT, "mask": mask_BT}

    def arrays(self) -> dict[str, ArraySpec]:
        return {"ids": ArraySpec("int64", ("B", "T")), "mask": ArraySpec("int64", ("B", "T"))}

    def digest(self, value: np.ndarray) -> bytes:
        return sha256(value)

    def size(self, value: np.ndarray) -> float:
        """Tokens."""
        return float(len(value))

    def summary(self, value: np.ndarray) -> dict[str, float | str]:
        """Tokens, characters, the share of unknown tokens, and whether the text was cut."""
        facts: dict[str, float] = getattr(value, "facts", {})
        unknown = float(np.mean(np.asarray(value) == self._unknown_id))
        return {"tokens": float(len(value)), "unknown": unknown, **facts}


def as_text(cell: Any, column: str) -> str:
    """A cell's text. Raises FuselineError ``bad_cell`` on what has none."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, (bytes, bytearray, memoryview)):
        try:
            return bytes(cell).decode("utf-8")
        except UnicodeDecodeError as error:
            raise bad_cell(
                column,
                f"{shorten(cell)} are not UTF-8: {error.reason} at byte {error.start}",
                "store the text as UTF-8",
            ) from None
    if isinstance(cell, _PLAIN):
        try:
            return str(cell)
        except ValueError:  # Python turns no integer of thousands of digits to text
            raise bad_cell(column, "an integer of thousands of digits is no text") from None
    kind = "list" if isinstance(cell, (list, tuple, np.ndarray)) else type(cell).__name__
    raise bad_cell(column, f"{shorten(cell)} is a {kind}, not a text", "join its parts to one text first")


def clean(text: str, lowercase: bool) -> str:
    """NFC, line ends and tabs as blanks, no control characters, no half surrogates, no blanks at the ends."""
    if not text.isascii():
        # Half of a surrogate pair cannot be UTF-8, and the tokenizer would fail on it.
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    text = text.translate(_CONTROL).strip()
    return text.lower() if lowercase else text


def _texts(cells: Iterable[Cells], column: str, config: TextConfig, seen: list[int]) -> Iterator[str]:
    limit = config.max_length * _CHARACTERS_A_TOKEN
    for row in cells:
        cell = row.get(column)
        if is_absent(cell):
            continue
        try:
            text = clean(as_text(cell, column)[:limit], config.lowercase)
        except FuselineError:
            continue
        if text:
            seen[0] += 1
            yield text
            if seen[0] >= _MOST_TEXTS:
                return


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _one_thread():
        tokenizer.train_from_iterator(texts, trainer=trainer)
    cls_id, sep_id = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)]
    )
    return tokenizer


@contextmanager
def _one_thread() -> Iterator[None]:
    """tokenizers warns in every process forked after it trained on several threads, as data loaders are."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def load_tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises a bare Exception
        raise FuselineError(
            "bad_tokenizer", f"not a tokenizer.json: {str(error)[:200]}", "give the file's text"
        ) from None


def _first_id(tokenizer: Tokenizer, names: Sequence[str], default: int) -> int:
    for name in names:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    return default
