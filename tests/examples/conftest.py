"""The examples are no part of the package: they are imported from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from programs import checked, program  # noqa: E402

__all__ = ["ROOT", "checked", "program"]
