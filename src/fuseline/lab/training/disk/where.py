"""Which folder holds frozen encoders' tokens: the recipe's, the machine's, or the user's."""

from __future__ import annotations

import os
from pathlib import Path

from fuseline.errors import FuselineError
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.disk.store import Store
from fuseline.recipe import TrainingSpec

OFF = "off"
VARIABLE = "FUSELINE_CACHE"


def default_folder() -> Path | None:
    """What $FUSELINE_CACHE says; else the folder `fuseline/tokens` of the user's cache folder. None: off."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return None if named == OFF else Path(named).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "fuseline" / "tokens"


def open_cache(spec: TrainingSpec) -> Cache:
    """The cache of a recipe, with its folder on disk.

    A folder that nobody named and that cannot be written is done without: a container's user may have no home.

    Raises:
        FuselineError: ``cannot_write`` where the recipe names a folder that cannot be written.
    """
    if not spec.cache_mb or not spec.cache_disk_mb or spec.cache_folder == OFF:
        return Cache(spec.cache_mb)
    if spec.cache_folder is not None:
        return Cache(spec.cache_mb, Store(Path(spec.cache_folder).expanduser(), spec.cache_disk_mb))
    folder = default_folder()
    try:
        return Cache(spec.cache_mb, None if folder is None else Store(folder, spec.cache_disk_mb))
    except FuselineError:
        return Cache(spec.cache_mb)
