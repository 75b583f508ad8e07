"""Packages that are replaced in place: noticed, loaded beside the old one, checked, and only then given the traffic."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from fuseline.errors import FuselineError
from fuseline.serve.service import Service

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int] | None


@dataclass
class Served:
    """One folder that is served under a name."""

    path: Path
    name: str
    version: str = ""
    stamp: Stamp = None
    """of the manifest that was loaded, or tried last"""


def stamp_of(path: Path) -> Stamp:
    """Changes whenever a package is written again: its manifest is always written last."""
    for place in (path / "model.fuse" / "manifest.json", path / "manifest.json"):
        try:
            status = place.stat()
        except OSError:
            continue
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None


class Watcher:
    def __init__(self, service: Service, seconds: float) -> None:
        self.service, self.seconds = service, seconds
        self.served: list[Served] = []
        self._lock = asyncio.Lock()

    def add(self, served: Served) -> None:
        self.served.append(served)

    async def run(self) -> None:
        """Look again and again. A package that cannot be loaded is said once, and the old one goes on."""
        while True:
            await asyncio.sleep(self.seconds)
            for served in self.served:
                stamp = stamp_of(served.path)
                if stamp is None or stamp == served.stamp:
                    continue
                await asyncio.sleep(min(0.2, self.seconds))
                if stamp_of(served.path) == stamp:  # else it is still being written
                    try:
                        await self._swap(served)
                    except FuselineError as error:
                        log.error("%s stays at version %s: %s", served.name, served.version, error)
                    except Exception:
                        log.exception("%s stays at version %s", served.name, served.version)

    async def look(self, name: str) -> None:
        """Load what the model's folders hold now. Raises FuselineError where that cannot be."""
        self.service.info(name)
        for served in self.served:
            if served.name == name:
                await self._swap(served)

    async def _swap(self, served: Served) -> None:
        async with self._lock:
            served.stamp = stamp_of(served.path)
            info = await self.service.swap(served.path, served.name, served.version)
            if info.version != served.version:
                log.warning("%s went from version %s to %s", served.name, served.version, info.version)
                served.version = info.version
