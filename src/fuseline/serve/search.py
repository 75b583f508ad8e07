"""`POST /search`: the model embeds a row, and an index says which of its rows are nearest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from fuseline.errors import FuselineError
from fuseline.serve.calls import Call, ModelInfo, Reply
from fuseline.serve.rest import rows_of
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.waiting import deadline_of, while_there
from fuseline.serve.words import as_json
from fuseline.vectors import Index, Matches, read_index
from fuseline.vectors.build import EMBEDDING
from fuseline.vectors.folder import unit
from fuseline.vectors.query import asking_side, nothing_to_ask

MOST = 1000
"""hits of a row"""
OPTIONS = ("k", "exact", "index")


@dataclass(frozen=True)
class Shelf:
    """Indexes by name, and the model that each belongs to."""

    indexes: dict[str, Index]

    @classmethod
    def open(cls, paths: Sequence[str | Path]) -> Shelf:
        """Each [NAME=]DIR, by default named as its folder. Raises FuselineError where one is broken."""
        out: dict[str, Index] = {}
        for text in paths:
            name, equals, path = str(text).partition("=")
            folder = Path(path if equals else name)
            name = name if equals else folder.resolve().name
            if name in out:
                raise FuselineError("bad_usage", f"two indexes are called {name!r}", "--index NAME=DIR")
            out[name] = read_index(folder)
        return cls(out)

    def check(self, infos: Sequence[ModelInfo]) -> None:
        """Raises FuselineError ``other_package`` where no served model made an index."""
        for name, index in self.indexes.items():
            if not any(info.version == index.version for info in infos):
                served = ", ".join(f"{i.name} version {i.version}" for i in infos)
                raise FuselineError(
                    "other_package",
                    f"the index {name} was made by {index.package} version {index.version}; served: {served}",
                    "make it anew with `fuseline index`",
                )

    def find(self, name: str | None) -> tuple[str, Index]:
        if name is None and len(self.indexes) == 1:
            return next(iter(self.indexes.items()))
        if name is None or name not in self.indexes:
            known = f"known: {', '.join(self.indexes)}"
            what = "which index?" if name is None else f"no index {name[:60]!r}"
            raise FuselineError("bad_request" if name is None else "not_found", what, f'send "index": NAME; {known}')
        return name, self.indexes[name]


def router(service: Service, settings: Settings, shelf: Shelf) -> APIRouter:
    routes = APIRouter(tags=["search"])

    @routes.get("/v1/indexes", summary="What can be searched")
    async def indexes() -> Response:
        return as_json({"indexes": [_told(name, index) for name, index in shelf.indexes.items()]})

    @routes.post("/search", summary="The nearest rows of an index")
    async def search(request: Request) -> Response:
        return await _search(service, settings, shelf, request)

    return routes


def _told(name: str, index: Index) -> dict[str, Any]:
    about = {k: index.manifest.get(k) for k in ("side", "dim", "rows", "id", "columns")}
    return {"name": name, "model": index.package, "version": index.version, **about}


async def _search(service: Service, settings: Settings, shelf: Shelf, request: Request) -> Response:
    start = time.monotonic()
    state = request.scope.get("state", {})
    first = next(iter(shelf.indexes.values()))
    only = _maker(service, first) if len(shelf.indexes) == 1 else None
    call = Call(
        first.package if only is None else only.name, (), state.get("id", ""), door="rest", key=state.get("key")
    )
    try:
        if only is not None:
            service.check_room(only.name)
        rows, options = await rows_of(request, only, settings, OPTIONS)
        k, exact = _options(options)
        name, index = shelf.find(options.get("index"))
        info = _maker(service, index)
        deadline = deadline_of(request.headers.get("x-deadline-ms"), start)
    except FuselineError as error:
        service.refused(call, error)
        raise
    call = replace(call, model=info.name, version=info.version, rows=rows, deadline=deadline, embed=True)
    reply = await while_there(request, service.predict(call))
    before = time.monotonic()
    found = await asyncio.to_thread(_nearest, index, reply, k, exact)
    return as_json(
        {
            "model": reply.model,
            "version": reply.version,
            "index": name,
            "request_id": reply.id,
            "results": [m.to_dict() for m in found],
            "timing": {
                "queue_ms": round(reply.queue_seconds * 1e3, 3),
                "compute_ms": round(reply.compute_seconds * 1e3, 3),
                "search_ms": round((time.monotonic() - before) * 1e3, 3),
            },
        }
    )


def _options(options: dict[str, Any]) -> tuple[int, bool]:
    k, exact, index = options.get("k", 10), options.get("exact", False), options.get("index")
    if isinstance(k, str) and k.isdigit():  # a form's fields are text
        k = int(k[:9])
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST:
        raise FuselineError("bad_request", f"`k` is not a whole number from 1 to {MOST}")
    if not isinstance(exact, bool):
        raise FuselineError("bad_request", "`exact` is not true or false")
    if index is not None and not isinstance(index, str):
        raise FuselineError("bad_request", "`index` is not a name")
    return k, exact


def _maker(service: Service, index: Index) -> ModelInfo:
    """The served version that made the index: no other may ask it."""
    for info in service.models():
        if info.version == index.version:
            return info
    raise FuselineError(
        "unknown_version",
        f"the index belongs to version {index.version} of {index.package}, which is not served any more",
        "make it anew with `fuseline index`, and start the server with it",
    )


def _nearest(index: Index, reply: Reply, k: int, exact: bool) -> list[Matches]:
    out = []
    for place, answer in enumerate(reply.answers):
        found = Matches(used=answer.used, absent=answer.absent, notes=answer.notes, error=answer.error)
        out.append(found)
        if answer.error is not None:
            continue
        vectors = answer.details or {}
        if index.side == EMBEDDING:
            vectors = {EMBEDDING: reply.embeddings[place] if answer.used and reply.embeddings else None}
        found.side = asking_side(index, {name: v is not None for name, v in vectors.items()})
        if found.side is None:
            found.error = nothing_to_ask(index).at(place)
            continue
        query_1E = unit(np.array([vectors[found.side]], dtype=np.float32))
        found.hits = index.hits(query_1E, k, exact=exact)[0]
    return out
