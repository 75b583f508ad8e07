"""Target texts as token ids and back. numpy and tokenizers only. Dimensions: L tokens of a text."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fuseline.errors import FuselineError

SPECIALS = ("<pad>", "<s>", "</s>")
_MOST_TEXTS = 200_000
_HALF = "\ufffd"
"""what a tokenizer gives for bytes that do not make a character yet"""


def clean(text: str) -> str:
    """NFC, no half surrogates, no blanks at the ends; line breaks stay."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    return text.strip()


def train(texts: Sequence[str], size: int) -> Tokenizer:
    """A byte-level BPE (Radford et al. 2019): every text in any alphabet goes through it and back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or it warns in every process forked later
    try:
        tokenizer.train_from_iterator(texts[:_MOST_TEXTS], trainer=trainer)
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
    return tokenizer


def load(text: str) -> Tokenizer:
    """Raises FuselineError ``bad_tokenizer``."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises a bare Exception
        raise FuselineError(
            "bad_tokenizer", f"not a tokenizer.json: {str(error)[:200]}", "give the file's text"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class Writer:
    """Ids come one by one, text goes out as soon as it is certain: a character of several tokens comes whole."""

    def __init__(self, tokenizer: Tokenizer, hidden: Iterable[int]) -> None:
        self.tokenizer, self.hidden = tokenizer, frozenset(hidden)
        self.ids: list[int] = []
        self.sent = ""

    def push(self, token: int) -> str:
        """What this token adds to the text; "" while a character is not whole yet."""
        if token not in self.hidden:
            self.ids.append(token)
        return self._more(self.text, final=False)

    def finish(self) -> str:
        """What was held back."""
        return self._more(self.text, final=True)

    @property
    def text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))

    def _more(self, text: str, *, final: bool) -> str:
        if not final:
            text = text.rstrip(_HALF)
        more = text[len(self.sent) :] if text.startswith(self.sent) else ""
        self.sent += more
        return more
