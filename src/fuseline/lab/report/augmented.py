"""The contact sheet of augmented.json, for the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fuseline.lab.report.read import RunFiles, listing, mapping
from fuseline.lab.report.words import clean

TEXT = 400
LARGEST = 400_000
"""characters of one picture in base64"""
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class View:
    name: str
    image: str = ""
    alt: str = ""
    text: str = ""


@dataclass(frozen=True)
class SheetCard:
    row: str
    pictures: list[View]
    texts: list[View]


@dataclass(frozen=True)
class Sheet:
    input: str
    does: str
    cards: list[SheetCard]


def augmented(files: RunFiles) -> list[Sheet]:
    out = []
    for item in map(mapping, listing(files.augmented.get("inputs"))):
        name = clean(item.get("input", ""), 60)
        cards = [_card(name, mapping(card)) for card in listing(item.get("cards"))]
        if cards:
            out.append(Sheet(name, clean(item.get("does", ""), 300), cards))
    return out


def _card(name: str, card: dict[str, Any]) -> SheetCard:
    row = clean(card.get("row", ""), 20)
    cells = [("as it is", mapping(card.get("before")))]
    cells += [(f"step {i + 1}", mapping(cell)) for i, cell in enumerate(listing(card.get("after")))]
    pictures, texts = [], []
    for title, cell in cells:
        image, text = cell.get("jpeg"), cell.get("text")
        if isinstance(image, str) and len(image) <= LARGEST and _BASE64.fullmatch(image):
            pictures.append(View(title, f"data:image/jpeg;base64,{image}", f"{name} of row {row}, {title}"))
        if isinstance(text, str):
            texts.append(View(title, text=clean(text, TEXT)))
    return SheetCard(row, pictures, texts)
