"""Which version answers a request: the default, a share for a canary, a copy for a shadow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from fuseline.errors import FuselineError, closest
from fuseline.serve.calls import ModelInfo

COUNTS = ("success", "fail", "rows", "executions", "queue_seconds", "compute_seconds", "seconds")


@dataclass(eq=False)
class Version:
    info: ModelInfo
    share: float = 0.0
    """of the traffic that names no version; the default takes what is left"""
    shadow: bool = False
    """gets a copy of the traffic; nobody waits for its answers"""
    requests: int = 0
    """in flight"""
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0.0))


@dataclass(eq=False)
class Model:
    """All versions served under one name; the first is the default."""

    name: str
    versions: dict[str, Version] = field(default_factory=dict)
    default: str = ""
    waiting_rows: int = 0
    """accepted and not yet answered"""
    streams: int = 0
    """texts that are being written"""
    row_seconds: float = 0.0
    """smoothed compute time of one row, 0 while unknown"""

    def choose(self, request: str, version: str | None = None) -> Version:
        """The version for a request. The same request id always meets the same one. Raises ``unknown_version``."""
        if version is not None:
            if version not in self.versions:
                known = ", ".join(self.versions)
                raise FuselineError("unknown_version", f"{self.name} has no version {version!r}", f"it has: {known}")
            return self.versions[version]
        place = int.from_bytes(hashlib.sha256(request.encode()).digest()[:8]) / 2**64
        for candidate in self.versions.values():
            if candidate.share and not candidate.shadow:
                if place < candidate.share:
                    return candidate
                place -= candidate.share
        return self.versions[self.default]

    def shadows(self) -> list[Version]:
        return [v for v in self.versions.values() if v.shadow]

    def shares(self) -> dict[str, float]:
        """version -> share of the traffic that names none."""
        given = {k: v.share for k, v in self.versions.items() if not v.shadow and k != self.default}
        out = {k: given.get(k, 0.0) for k in self.versions}
        if self.default in out:
            out[self.default] = max(0.0, 1.0 - sum(given.values()))
        return out


def find(models: dict[str, Model], name: str) -> Model:
    """Raises FuselineError ``unknown_model``, naming the closest."""
    model = models.get(name)
    if model is None or not model.versions:
        near = closest(name, models)
        hint = f"did you mean {near!r}?" if near else f"served here: {', '.join(models) or 'nothing yet'}"
        raise FuselineError("unknown_model", f"no model {name[:100]!r} is served here", hint)
    return model
