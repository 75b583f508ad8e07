"""Texts with words missing or said otherwise. Dimensions: B batch, T tokens."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fuseline.data.items import items_of
from fuseline.errors import FuselineError
from fuseline.lab.augment.base import Arrays, Augment, Draw, per_item
from fuseline.lab.augment.picture import PictureConfig, see_anew
from fuseline.modalities import Modality
from fuseline.modalities.several import SEVERAL
from fuseline.recipe import Frozen

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
"""letters and digits of any alphabet, with what joins them inside"""


class TextConfig(Frozen):
    drop: float = Field(0.1, ge=0, lt=1, description="share of tokens that the encoder does not see")
    synonyms: str | dict[str, tuple[str, ...]] | None = Field(
        None,
        description="word -> its synonyms, here or as a CSV file (word, synonym, synonym ...; no header), relative to "
        "the working folder; none: no word is replaced",
    )
    replace: float = Field(0.2, ge=0, le=1, description="share of the words with synonyms that are replaced")


class AugmentText(Augment):
    """Tokens hidden from the encoder by its mask (as padding is; never the special ones, and never all), and words
    replaced by synonyms of the user's own table (Zhang et al. 2015, "Character-level convolutional networks") before
    they become tokens.
    """

    Config: ClassVar[type[Frozen]] = TextConfig
    strong = MappingProxyType({"drop": 0.25, "replace": 0.5})

    def __init__(self, config: Any, modality: Modality) -> None:
        super().__init__(config, modality)
        self.several = hasattr(modality, "item")
        fitted: Any = getattr(modality, "item", modality)
        known = fitted.tokenizer.get_added_tokens_decoder()
        self.special = torch.tensor(sorted(i for i, token in known.items() if token.special), dtype=torch.int64)
        self.synonyms = read_synonyms(config.synonyms) if isinstance(config, TextConfig) else {}

    @classmethod
    def check(cls, config: Any) -> None:
        if isinstance(config, TextConfig):
            read_synonyms(config.synonyms)

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        if SEVERAL in arrays:
            return per_item(lambda own: self._one(own, draw), arrays, SEVERAL)
        return self._one(arrays, draw)

    def _one(self, arrays: Arrays, draw: Draw) -> Arrays:
        if not self.config.drop:
            return arrays
        ids_BT, mask_BT = arrays["ids"], arrays["mask"]
        special_BT = torch.isin(ids_BT, self.special.to(ids_BT.device))
        dropped_BT = draw.chance(self.config.drop, *ids_BT.shape) & ~special_BT
        left_BT = (mask_BT != 0) & ~dropped_BT
        word_BT = left_BT & ~special_BT
        kept_BT = torch.where(word_BT.any(dim=1, keepdim=True), left_BT, mask_BT != 0)
        return {**arrays, "mask": kept_BT.to(mask_BT.dtype)}

    def reword(self, cells: Sequence[Mapping[str, Any]], draw: Draw) -> list[dict[str, Any]] | None:
        if not self.synonyms or not self.config.replace:
            return None
        return [{column: self._reworded(cell, draw) for column, cell in row.items()} for row in cells]

    def _reworded(self, cell: Any, draw: Draw) -> Any:
        if self.several and cell is not None:
            return [self._said(item, draw) for item in items_of(cell, files=False)]
        return self._said(cell, draw)

    def _said(self, cell: Any, draw: Draw) -> Any:
        if not isinstance(cell, str):
            return cell

        def other(found: re.Match[str]) -> str:
            choices = self.synonyms.get(found[0].casefold())
            if not choices or float(draw.uniform(1)) >= self.config.replace:
                return found[0]
            said = choices[min(int(draw.uniform(1) * len(choices)), len(choices) - 1)]
            return said[:1].upper() + said[1:] if found[0][:1].isupper() else said

        return WORD.sub(other, cell)

    def says(self) -> str:
        text = super().says()
        return text if self.synonyms else ", ".join(p for p in text.split(", ") if not p.startswith("replace"))


def read_synonyms(source: str | Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """Word in lower case -> its synonyms. Raises FuselineError ``no_such_file``, ``bad_synonyms``."""
    if source is None:
        return {}
    if isinstance(source, str):
        try:
            with Path(source).open(encoding="utf-8-sig", newline="") as file:
                lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
        except (FileNotFoundError, IsADirectoryError):
            hint = "a CSV file of word, synonym, synonym ..., relative to the working folder"
            raise FuselineError("no_such_file", f"no synonyms at {source}", hint) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise FuselineError("bad_synonyms", f"{source} is no CSV file in UTF-8: {error}", "") from None
        named = [(line[0], tuple(c for c in line[1:] if c)) for line in lines if line and line[0]]
    else:
        named = [(word.strip(), tuple(s.strip() for s in said if s.strip())) for word, said in source.items()]
    out: dict[str, tuple[str, ...]] = {}
    for word, said in named:
        if not WORD.fullmatch(word):
            raise FuselineError("bad_synonyms", f"{word!r} is not one word", "synonyms replace single words")
        if said:
            out[word.casefold()] = (*out.get(word.casefold(), ()), *said)
    if not out:
        raise FuselineError("bad_synonyms", "the table of synonyms names none", "word, synonym, synonym ...")
    return out


class PageConfig(Frozen):
    drop: float = Field(0.1, ge=0, lt=1, description="share of words' tokens that the encoder does not see")
    light: float = Field(0.2, ge=0, le=1, description="the page's brightness and contrast changed by up to this share")
    noise: float = Field(0.02, ge=0, le=1, description="deviation of noise on each pixel, in shares of the range")


class AugmentDocument(AugmentText):
    """Words hidden, the page lit otherwise. The page stays where it is: words and ink share their places."""

    Config: ClassVar[type[Frozen]] = PageConfig
    strong = MappingProxyType({"drop": 0.25, "light": 0.4, "noise": 0.05})

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        still = {"rotate": 0.0, "scale": 0.0, "shift": 0.0, "colour": 0.0}
        config = PictureConfig(**still, light=self.config.light, noise=self.config.noise)
        return {**self._one(arrays, draw), "pixels": see_anew(arrays["pixels"], config, draw)}

    def says(self) -> str:
        return Augment.says(self)
