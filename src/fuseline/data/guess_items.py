"""Whether a column's cells are lists of pictures, of texts, or the words of a page. Each guess says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from fuseline.data.items import items_of
from fuseline.data.media import Media, embedded_bytes, kind_of_bytes, kind_of_ending, read_head
from fuseline.data.words import read_words
from fuseline.errors import FuselineError

FEWEST_WORDS = 1.5
"""a list of single words is a set of labels, not of notes"""


class ItemsGuess(NamedTuple):
    kind: Literal["images", "texts", "video"]
    reason: str


def guess_items(
    values: Sequence[Any], folder: Path | None, words_of: Callable[[str], float], most: int = 60
) -> ItemsGuess | None:
    """A guess for cells of which most are lists; None where they are not, or hold what no modality reads.

    Args:
        values: cells that are not absent.
        folder: where relative paths start.
        words_of: how many words a text has.
        most: cells that are looked at.
    """
    some = list(values[:: -(-len(values) // most)])
    lists = [items_of(v, files=_names_files(v)) for v in some]
    listed = sum(len(items) != 1 or items[0] is not v for items, v in zip(lists, some, strict=True))
    # Paths with `;` between them: a row of one picture has none, so that few cells may be lists.
    if not listed or (listed < 0.9 * len(some) and not all(map(_names_files, some))):
        return None
    items = [item for found in lists for item in found]
    counts = [len(found) for found in lists]
    many = f"{min(counts)} to {max(counts)} a row"
    if not items:
        return None
    kinds = Counter(_media(item, folder) for item in items[: most * 4])
    kind, hits = kinds.most_common(1)[0]
    if kind == "image" and hits >= 0.9 * sum(kinds.values()):
        return ItemsGuess("images", f"lists of pictures, {many}; if they are frames of one scene, say modality: video")
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) == len(items) and fmean(map(words_of, texts)) >= FEWEST_WORDS:
        return ItemsGuess("texts", f"lists of texts, {many}")
    return None


def words_kind(values: Sequence[Any], most: int = 20) -> bool:
    """Whether the cells are words with boxes, as OCR gives them."""
    for cell in values[:most]:
        if isinstance(cell, str) and not cell.lstrip().startswith(("[", "{")):
            return False
        try:
            read_words(cell, "")
        except FuselineError:
            return False
    return True


def _names_files(cell: Any) -> bool:
    """Text whose parts between `;` all end as files of pictures do."""
    if not isinstance(cell, str) or cell.lstrip().startswith("["):
        return False
    parts = [p for p in cell.split(";") if p.strip()]
    return bool(parts) and all(kind_of_ending(p.strip()) == "image" for p in parts)


def _media(item: Any, folder: Path | None) -> Media | None:
    if isinstance(item, dict) and item and set(item) <= {"bytes", "path"}:
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes):
        return kind_of_bytes(item[:256])
    if not isinstance(item, str):
        return None
    inside = embedded_bytes(item)
    head = inside[:256] if inside is not None else read_head(item, folder) if folder is not None else None
    return (kind_of_bytes(head) if head is not None else None) or kind_of_ending(item.strip())
