"""What trainings keep on disk of frozen encoders' outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuseline.api.training import need_training


@dataclass(frozen=True)
class Kept:
    """`folder` None: nothing is kept. `entries`, an encoder each: `encoder`, `input`, `bytes`, `used` (since 1970)."""

    folder: Path | None
    bytes: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)


def kept_outputs(folder: str | Path | None = None, *, clear: bool = False) -> Kept:
    """What is kept in a folder, or in the default one (`$FUSELINE_CACHE`, else the user's cache folder).

    Args:
        folder: a recipe's training.cache_folder.
        clear: remove it; `bytes` says how much that was. A training that runs meanwhile is not disturbed.
    """
    need_training()
    from fuseline.lab.training.disk import store
    from fuseline.lab.training.disk.where import default_folder

    place = default_folder() if folder is None else Path(folder)
    if place is None:
        return Kept(None)
    if clear:
        return Kept(place, store.clear(place))
    entries = store.listed(place)
    return Kept(place, sum(entry["bytes"] for entry in entries), entries)
