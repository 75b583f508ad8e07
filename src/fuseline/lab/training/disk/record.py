"""One cell's tokens as bytes, and back. Dimensions: T tokens, D encoder width.

A record is a head, a description of its arrays in JSON, and the arrays, each at a multiple of 64 bytes::

    head   magic, lengths of description and arrays, the key, a checksum of everything behind the head and the key,
           a checksum of the head itself
    arrays values_TD, mask_T, aside.NAME ...

The head's own checksum tells where a file was torn; the other one, that a record is what was once written.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import NamedTuple

import numpy as np

from fuseline.lab.training.cache import Kept

MAGIC = b"FuT1"
"""changes with the layout below: files of another layout hold no record that is read"""
KEY = 32
"""bytes of a key"""
_HEAD = struct.Struct("<4sIQ32s16s")
_CRC = struct.Struct("<I")
HEAD = 128
"""bytes of the head: all records begin at multiples of 64"""
_ALIGN = 64
_KINDS = "fiub"
"""kinds of numpy's dtypes that a record may hold"""


class Head(NamedTuple):
    """Where a record's parts end, counted from its beginning."""

    key: bytes
    described: int
    size: int
    """bytes of the whole record"""
    check: bytes


class DamagedError(Exception):
    """Bytes that are no record, or not the one that was written."""


def pack(key: bytes, kept: Kept) -> bytes:
    """The record of one cell's tokens."""
    arrays = {"values": kept.values_TD, "mask": kept.mask_T, **{f"aside.{k}": v for k, v in kept.aside.items()}}
    described, parts, at = [], [], 0
    for name, array in arrays.items():
        body = np.asarray(array, order="C").tobytes()
        described.append([name, array.dtype.str, list(array.shape), at])
        parts.append(body + bytes(-len(body) % _ALIGN))
        at += len(parts[-1])
    text = json.dumps(described, ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % _ALIGN)
    body = text + b"".join(parts)
    head = _HEAD.pack(MAGIC, len(text), at, key, _check(key, body))
    return (head + _CRC.pack(zlib.crc32(head))).ljust(HEAD, b"\0") + body


def read_head(data: memoryview | bytes) -> Head | None:
    """A record's head. None where none stands here whole."""
    if len(data) < HEAD:
        return None
    magic, described, arrays, key, check = _HEAD.unpack_from(data)
    if magic != MAGIC or _CRC.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size]):
        return None
    return Head(key, HEAD + described, HEAD + described + arrays, check)


def unpack(data: memoryview | bytes, key: bytes, *, verify: bool) -> Kept:
    """The tokens of a whole record, as views of `data`.

    `verify`: compute the checksum, once a record and process.

    Raises:
        DamagedError: where the bytes are not what was written under `key`.
    """
    head = read_head(data)
    if head is None or head.key != key or head.size != len(data):
        raise DamagedError
    if verify and _check(key, data[HEAD:]) != head.check:
        raise DamagedError
    arrays = {}
    try:
        for name, kind, shape, at in json.loads(bytes(data[HEAD : head.described])):
            dtype, count = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
            if dtype.kind not in _KINDS:
                raise DamagedError
            arrays[name] = np.frombuffer(data, dtype, count, head.described + at).reshape(shape)
        aside = {k.removeprefix("aside."): v for k, v in arrays.items() if k.startswith("aside.")}
        return Kept(arrays["values"], arrays["mask"], aside)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError from error


def _check(key: bytes, body: memoryview | bytes) -> bytes:
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(body)
    return digest.digest()
