"""The elements of one tensor: checked from JSON and from binary data, and back to either."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fuseline.errors import FuselineError

NUMPY = {
    "BOOL": np.dtype("?"),
    **{f"{sign}INT{8 * n}": np.dtype(f"<{kind}{n}") for sign, kind in (("", "i"), ("U", "u")) for n in (1, 2, 4, 8)},
    **{f"FP{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}
"""BF16 is left out: numpy has no such type, and FP32 says the same."""
DATATYPES = (*NUMPY, "BYTES")
_MOST_DIMENSIONS = 8
_LENGTH = struct.Struct("<I")

Elements = np.ndarray | list[Any]
"""Flat: a numpy array of the datatype; or a list, for BYTES (bytes from binary data, text from JSON) and for JSON
integers and booleans with nulls among them. None is JSON's null; in a float array it is NaN."""


def bad(message: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_request", message, hint)


def show(name: Any) -> str:
    """A caller's name as an error may show it."""
    text = name if isinstance(name, str) else str(type(name).__name__)
    return repr(text[:80])


def datatype_of(name: str, given: Any) -> str:
    if isinstance(given, str) and given in DATATYPES:
        return given
    hint = "send FP32" if given == "BF16" else f"known: {', '.join(DATATYPES)}"
    raise bad(f"tensor {show(name)}: {show(given)} is not a datatype that is read", hint)


def shape_of(name: str, given: Any, most: int) -> tuple[tuple[int, ...], int]:
    """The shape and its number of elements."""
    good = isinstance(given, Sequence) and not isinstance(given, str | bytes) and len(given) <= _MOST_DIMENSIONS
    if not good or not all(type(n) is int and 0 <= n < 2**63 for n in given):
        raise bad(f"tensor {show(name)}: `shape` is not a list of sizes", f"at most {_MOST_DIMENSIONS}, none negative")
    count = math.prod(given)
    if count > most:
        raise FuselineError(
            "too_large",
            f"tensor {show(name)} has {count if count < 2**63 else 'too many'} elements, at most {most} are taken",
            "send fewer rows at once",
        )
    return tuple(given), count


def flatten(name: str, data: list[Any], shape: tuple[int, ...], count: int) -> list[Any]:
    """Elements in row-major order, from a flat list or from lists nested as the shape says."""
    if not any(isinstance(e, list) for e in data):
        if len(data) != count:
            raise bad(f"tensor {show(name)}: the shape {list(shape)} has {count} elements, the data {len(data)}")
        return data
    level = [data]
    for i, size in enumerate(shape):
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise bad(f"tensor {show(name)}: the data is not nested as its shape {list(shape)} says")
        level = [e for part in level for e in part] if i < len(shape) - 1 else level
    flat = [e for part in level for e in part]
    if any(isinstance(e, list) for e in flat):
        raise bad(f"tensor {show(name)}: the data is nested deeper than its shape {list(shape)} says")
    return flat


def from_elements(name: str, datatype: str, flat: list[Any]) -> Elements:
    """Checked elements: Python would read true as 1, and numpy wrap an integer that does not fit."""
    kinds: tuple[type, ...] = {"BYTES": (str,), "BOOL": (bool,)}.get(
        datatype, (int, float) if datatype.startswith("FP") else (int,)
    )
    for i, e in enumerate(flat):
        if e is not None and type(e) not in kinds:
            raise bad(f"tensor {show(name)}: element {i} is not of the datatype {datatype}")
    if datatype == "BYTES":
        return flat
    dtype = NUMPY[datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        for i, e in enumerate(flat):
            if e is not None and not limits.min <= e <= limits.max:
                raise bad(f"tensor {show(name)}: element {i} does not fit {datatype}")
    if dtype.kind != "f" and None in flat:
        return flat
    if dtype.kind != "f":
        return np.array(flat, dtype=dtype)
    try:
        with np.errstate(over="ignore"):  # beyond the type's range is infinite, as a client's own cast makes it
            return np.array([math.nan if e is None else e for e in flat], dtype=np.float64).astype(dtype)
    except OverflowError:
        raise bad(f"tensor {show(name)}: an integer does not fit {datatype}") from None


def from_binary(name: str, datatype: str, count: int, data: memoryview | bytes) -> Elements:
    """`count` elements that fill `data` exactly. Raises FuselineError ``bad_request``."""
    if datatype == "BYTES":
        return _split_bytes(name, count, memoryview(data))
    dtype = NUMPY[datatype]
    if len(data) != count * dtype.itemsize:
        raise bad(
            f"tensor {show(name)}: {count} elements of {datatype} are {count * dtype.itemsize} bytes, not {len(data)}"
        )
    if datatype == "BOOL" and any(b > 1 for b in bytes(data)):
        raise bad(f"tensor {show(name)}: a BOOL is neither 0 nor 1")
    return np.frombuffer(data, dtype=dtype)


def _split_bytes(name: str, count: int, data: memoryview) -> list[bytes]:
    out: list[bytes] = []
    at = 0
    while len(out) < count:
        if at + _LENGTH.size > len(data):
            raise bad(f"tensor {show(name)}: {count} BYTES elements are due, the data ends after {len(out)}")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if size > len(data) - at:
            raise bad(
                f"tensor {show(name)}: element {len(out)} has {size} bytes by its length, {len(data) - at} are left"
            )
        out.append(bytes(data[at : at + size]))
        at += size
    if at != len(data):
        raise bad(f"tensor {show(name)}: {len(data) - at} bytes are left after {count} BYTES elements")
    return out


def to_binary(datatype: str, data: Elements) -> bytes:
    """A tensor's bytes on the wire. BYTES elements may be text, which is sent as UTF-8."""
    if isinstance(data, np.ndarray):
        return data.astype(NUMPY[datatype], copy=False).tobytes()
    parts = [e.encode("utf-8", "replace") if isinstance(e, str) else bytes(e) for e in data]
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def to_json(data: Elements) -> list[Any]:
    """Flat elements. NaN and infinities, which JSON has not, become null; floats keep every bit."""
    if not isinstance(data, np.ndarray):
        return [e.decode("utf-8", "replace") if isinstance(e, bytes) else e for e in data]
    if data.dtype.kind != "f":
        return list(data.tolist())
    return [e if math.isfinite(e) else None for e in data.astype(np.float64).tolist()]
