"""API keys: kept as hashes, compared in constant time, each with its own rate.

The file: {"keys": [{"name", "sha256", "per_minute", "created"}]}. A key is 256 random bits,
so one round of SHA-256 is enough: there is nothing to guess. It is shown once, when it is made.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.package.files import write_text

PREFIX = "fuse_"


@dataclass
class Bucket:
    """A token bucket: `per_minute` on average, bursts of a tenth of that (at least 1)."""

    per_minute: float
    tokens: float = field(init=False)
    filled: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, self.filled = self.burst, time.monotonic()

    @property
    def burst(self) -> float:
        return max(1.0, self.per_minute / 10)

    def take(self, now: float) -> float:
        """0 where the request may pass, else seconds until one may."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.per_minute / 60)
        self.filled = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) * 60 / self.per_minute


@dataclass
class Key:
    name: str
    sha256: str
    bucket: Bucket | None
    """None: no limit"""


class Keys:
    """The keys of a file, read again when it changes. A file that cannot be read keeps the keys of before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: list[Key] = []
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0
        self._read()

    def _read(self) -> None:
        buckets = {k.sha256: k.bucket for k in self._keys}
        status = self.path.stat() if self.path.exists() else None
        keys: list[Key] = []
        for entry in read_entries(self.path):
            rate = entry.get("per_minute")
            old = buckets.get(entry["sha256"])
            if old is None or old.per_minute != rate:
                old = Bucket(float(rate)) if rate else None
            keys.append(Key(entry["name"], entry["sha256"], old))
        self._keys = keys
        self._stamp = None if status is None else (status.st_mtime_ns, status.st_size)

    def _refresh(self, now: float) -> None:
        if now - self._looked < 1:
            return
        self._looked = now
        try:
            status = self.path.stat()
            if (status.st_mtime_ns, status.st_size) != self._stamp:
                self._read()
        except (OSError, FuselineError):
            return

    def check(self, secret: str | None) -> str:
        """The key's name. Raises FuselineError ``unauthorized``, or ``rate_limited``."""
        now = time.monotonic()
        self._refresh(now)
        if not secret:
            raise FuselineError("unauthorized", "an API key is needed", "send it as Authorization: Bearer KEY")
        given = hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self._keys:  # no early end: how long it takes says nothing
            if hmac.compare_digest(key.sha256, given):
                found = key
        if found is None:
            raise FuselineError("unauthorized", "this API key is not known", "ask for one: fuseline keys add NAME")
        wait = found.bucket.take(now) if found.bucket else 0.0
        if wait:
            raise FuselineError("rate_limited", f"key {found.name!r} is over its rate", f"retry in {wait:.1f} s")
        return found.name


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Raises FuselineError ``bad_keys`` for a file that is no list of keys; none where there is no file."""
    if not path.exists():
        raise FuselineError(
            "bad_keys", f"no key file at {path}", "make one: fuseline keys add NAME --file " + str(path)
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        assert all(isinstance(e["name"], str) and len(e["sha256"]) == 64 for e in entries)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise FuselineError("bad_keys", f"{path} is no key file", "make one: fuseline keys add NAME") from None
    return list(entries)


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    write_text(path, json.dumps({"keys": entries}, indent=1) + "\n")
    os.chmod(path, 0o600)


def add(path: Path, name: str, per_minute: float | None = None) -> str:
    """Make a key, store its hash, and return it: it can never be shown again. Raises FuselineError ``bad_keys``."""
    entries = read_entries(path) if path.exists() else []
    if not name.isprintable() or not 0 < len(name) <= 64 or any(e["name"] == name for e in entries):
        raise FuselineError("bad_keys", f"the name {name[:64]!r} is taken, or cannot be one", "choose another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "created": now}
    _write(path, [*entries, {**entry, "per_minute": per_minute}])
    return secret


def remove(path: Path, name: str) -> None:
    """Raises FuselineError ``bad_keys`` where there is no such key."""
    entries = read_entries(path)
    kept = [e for e in entries if e["name"] != name]
    if len(kept) == len(entries):
        raise FuselineError("bad_keys", f"no key {name!r}", f"there are: {', '.join(e['name'] for e in entries)}")
    _write(path, kept)
