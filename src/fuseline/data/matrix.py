"""A file of numbers in rows and columns, such as the weights between sensors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fuseline.errors import FuselineError

MOST_BYTES = 256 * 2**20


def read_matrix(path: Path) -> np.ndarray:
    """(R, C) float64 from a CSV without a header, or a .npy file (never one that holds objects).

    Raises FuselineError ``no_such_file``, ``bad_table`` naming the row and the place.
    """
    if not path.is_file():
        raise FuselineError("no_such_file", f"no file at {path}", "paths are relative to the folder you start from")
    if path.stat().st_size > MOST_BYTES:
        raise FuselineError("bad_table", f"{path.name} is larger than {MOST_BYTES // 2**20} MB", "")
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise FuselineError("bad_table", f"{path.name} is no array of numbers: {error}", "") from None
        if array.ndim != 2 or array.dtype.kind not in "fiub":
            raise FuselineError("bad_table", f"{path.name} is no matrix of numbers", "")
        return np.asarray(array, dtype=np.float64)
    rows: list[list[float]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(csv.reader(file)):
                if not line:
                    continue
                try:
                    rows.append([float(cell) for cell in line])
                except ValueError:
                    message = f"{path.name}: row {number + 1} holds something else than numbers"
                    raise FuselineError("bad_table", message, "numbers alone, no header") from None
                if len(rows[-1]) != len(rows[0]):
                    message = f"{path.name}: row {number + 1} has {len(rows[-1])} numbers, the first has {len(rows[0])}"
                    raise FuselineError("bad_table", message, "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise FuselineError("bad_table", f"{path.name} is no CSV: {error}", "") from None
    if not rows:
        raise FuselineError("bad_table", f"{path.name} is empty", "")
    return np.array(rows)
