"""Texts through the people's API: one row, as a whole or as it is written."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from fuseline.errors import FuselineError
from fuseline.serve.body import parse_json, read_body
from fuseline.serve.calls import Call, Reply, Wish
from fuseline.serve.events import Events, event, streamed
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.waiting import deadline_of, while_there
from fuseline.serve.words import as_json
from fuseline.tasks.decoding import read_decoding

KEYS = ("row", "stream", "decoding", "stop")
MOST_STOPS = 8


@dataclass(frozen=True)
class Asked:
    """What a body asks for."""

    row: dict[str, Any]
    wish: Wish
    stream: bool


def router(service: Service, settings: Settings) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.post("/v1/models/{model}/generate", summary="Write a row's text, as a whole or as it is written")
    async def generate(request: Request, model: str) -> Response:
        return await _generate(service, settings, request, model, None)

    @routes.post("/v1/models/{model}/versions/{version}/generate", summary="The same by one version")
    async def generate_version(request: Request, model: str, version: str) -> Response:
        return await _generate(service, settings, request, model, version)

    return routes


async def _generate(
    service: Service, settings: Settings, request: Request, model: str, version: str | None
) -> Response:
    call = begun(request, model, version)
    try:
        check_writes(service, model, version)
        asked = _asked(parse_json(await read_body(request, settings), settings))
        call = replace(call, rows=[asked.row], deadline=deadline_of(request.headers.get("x-deadline-ms"), call.since))
    except FuselineError as error:
        service.refused(call, error)
        raise
    if asked.stream:
        return await streamed(request, _events(service, call, asked.wish))
    return as_json(answered(await while_there(request, whole(service, call, asked.wish))))


@dataclass(frozen=True)
class Begun(Call):
    """A call and when it came."""

    since: float = 0.0


def begun(request: Request, model: str, version: str | None) -> Begun:
    state = request.scope.get("state", {})
    id, key = state.get("id", ""), state.get("key")
    return Begun(model, (), id, version, door="rest", key=key, since=time.monotonic())


def check_writes(service: Service, model: str, version: str | None) -> None:
    """Raises FuselineError before the body is read, where there is no use in it."""
    info = service.info(model, version)
    if info.task != "generation":
        raise FuselineError("bad_request", f"{model} writes no texts: it is a {info.task}", "ask its /predict")
    service.check_room(model)


def stops(given: Any) -> tuple[str, ...]:
    found = [given] if isinstance(given, str) else given if given is not None else []
    if not isinstance(found, list) or not all(isinstance(s, str) and s for s in found) or len(found) > MOST_STOPS:
        raise FuselineError("bad_request", f"`stop` is not a text or a list of at most {MOST_STOPS} texts")
    return tuple(found)


def _asked(data: Any) -> Asked:
    if not isinstance(data, dict) or not isinstance(data.get("row"), dict):
        raise FuselineError("bad_request", "the body has no row", 'send {"row": {"column": cell}}')
    for key in data:
        if key not in KEYS:
            raise FuselineError("bad_request", f"unknown key {key[:60]!r}", f"known: {', '.join(KEYS)}")
    stream, how = data.get("stream", False), data.get("decoding", {})
    if not isinstance(stream, bool) or not isinstance(how, dict):
        raise FuselineError("bad_request", "`stream` is true or false, `decoding` a mapping of options")
    read_decoding(how)
    return Asked(data["row"], Wish(how, stops(data.get("stop"))), stream)


async def whole(service: Service, call: Call, wish: Wish) -> Reply:
    """The reply; a caller who goes ends the writing."""
    async with aclosing(service.write(call, wish)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Reply):
                return piece
    raise AssertionError("a text without an end")


def answered(reply: Reply) -> dict[str, Any]:
    timing = {"queue_ms": round(reply.queue_seconds * 1e3, 3), "compute_ms": round(reply.compute_seconds * 1e3, 3)}
    head = {"model": reply.model, "version": reply.version, "request_id": reply.id}
    return {**head, "answer": reply.answers[0].to_dict(), "timing": timing}


async def _events(service: Service, call: Call, wish: Wish) -> Events:
    """Messages {"text": piece}, then the event `end` with the whole answer."""
    async with aclosing(service.write(call, wish)) as pieces:
        async for piece in pieces:
            yield event({"text": piece}) if isinstance(piece, str) else event(answered(piece), "end")
