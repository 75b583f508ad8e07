"""The people's API: rows as JSON or as a form with files, answers that say what they were based on."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from fuseline.errors import FuselineError
from fuseline.explain import Options
from fuseline.serve.body import parse_json, read_body
from fuseline.serve.calls import Call, ModelInfo, Reply, Row
from fuseline.serve.openai import listed
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.waiting import deadline_of, while_there
from fuseline.serve.words import as_json


def router(service: Service, settings: Settings) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="What is served")
    async def models() -> Response:
        infos = service.models()
        return as_json({"models": [_told(service, i) for i in infos], "object": "list", "data": listed(infos)})

    @routes.get("/v1/models/{model}", summary="A model's columns, classes and figures")
    async def model_info(model: str) -> Response:
        return as_json(_told(service, service.info(model)))

    @routes.get("/v1/models/{model}/versions/{version}", summary="The same of one version")
    async def version_info(model: str, version: str) -> Response:
        return as_json(_told(service, service.info(model, version)))

    @routes.post("/v1/models/{model}/predict", summary="Answer rows")
    async def predict(request: Request, model: str) -> Response:
        return await _predict(service, settings, request, model, None)

    @routes.post("/v1/models/{model}/versions/{version}/predict", summary="Answer rows by one version")
    async def predict_version(request: Request, model: str, version: str) -> Response:
        return await _predict(service, settings, request, model, version)

    @routes.post("/v1/models/{model}/explain", summary="Why rows are answered as they are")
    async def explain(request: Request, model: str) -> Response:
        return await _explain(service, settings, request, model, None)

    @routes.post("/v1/models/{model}/versions/{version}/explain", summary="Why one version answers as it does")
    async def explain_version(request: Request, model: str, version: str) -> Response:
        return await _explain(service, settings, request, model, version)

    @routes.get("/v1/status", summary="How the service is, for its own page")
    async def status() -> Response:
        return as_json(service.status())

    return routes


def _told(service: Service, info: ModelInfo) -> dict[str, Any]:
    return {**info.to_dict(), "default": service.is_default(info), "ready": service.ready(info.name, info.version)}


async def _predict(service: Service, settings: Settings, request: Request, model: str, version: str | None) -> Response:
    start = time.monotonic()
    state = request.scope.get("state", {})
    call = Call(model, (), state.get("id", ""), version, door="rest", key=state.get("key"))
    try:
        info = service.info(model, version)
        service.check_room(model)
        rows, options = await rows_of(request, info, settings, ("contributions",))
        contributions = _contributions(options.get("contributions", False))
        deadline = deadline_of(request.headers.get("x-deadline-ms"), start)
    except FuselineError as error:
        service.refused(call, error)
        raise
    call = replace(call, rows=rows, deadline=deadline, contributions=contributions)
    reply = await while_there(request, service.predict(call))
    return as_json(_answered(reply))


async def _explain(service: Service, settings: Settings, request: Request, model: str, version: str | None) -> Response:
    start = time.monotonic()
    state = request.scope.get("state", {})
    call = Call(model, (), state.get("id", ""), version, door="rest", key=state.get("key"))
    try:
        info = service.info(model, version)
        service.check_room(model)
        rows, given = await rows_of(request, info, settings, EXPLAIN_OPTIONS)
        options = explain_options(given, settings)
        deadline = deadline_of(request.headers.get("x-deadline-ms"), start)
    except FuselineError as error:
        service.refused(call, error)
        raise
    call = replace(call, rows=rows, deadline=deadline)
    found = await while_there(request, service.explain(call, options))
    return as_json(found.model_dump(mode="json"))


EXPLAIN_OPTIONS = ("inside", "of", "changes", "grid", "most_parts")


def explain_options(given: Mapping[str, Any], settings: Settings) -> Options:
    """Options of a request. Raises FuselineError ``bad_request``."""
    inside, of, changes = given.get("inside", False), given.get("of"), given.get("changes", {})
    if not isinstance(inside, bool) and not (isinstance(inside, list) and all(isinstance(n, str) for n in inside)):
        raise FuselineError("bad_request", "`inside` is not true, false or a list of inputs")
    if of is not None and not isinstance(of, str):
        raise FuselineError("bad_request", "`of` is no text", "a class or a target")
    if not isinstance(changes, dict):
        raise FuselineError("bad_request", "`changes` is no object of column and cell")
    grid, most_parts = given.get("grid", 8), given.get("most_parts", 64)
    for name, number, most in (("grid", grid, 64), ("most_parts", most_parts, 4096)):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
            raise FuselineError("bad_request", f"`{name}` is no whole number from 1 to {most}")
    return Options(inside, of, changes, grid, most_parts, settings.max_explain_rows)


async def rows_of(
    request: Request, info: ModelInfo | None, settings: Settings, options: Sequence[str]
) -> tuple[list[Row], dict[str, Any]]:
    """The body's rows, and what it says beside them: of `options`, those that are there, unchecked."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise FuselineError(
            "unsupported_type",
            f"a body of type {kind[:60]!r} is not read",
            "send Content-Type: application/json with rows, or multipart/form-data with a field a column",
        )
    body = await read_body(request, settings)
    if kind == "application/json":
        return _from_json(parse_json(body, settings), options)
    return await _from_form(request.headers, body, info, options)


def _from_json(data: Any, options: Sequence[str]) -> tuple[list[Row], dict[str, Any]]:
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise FuselineError("bad_request", "the body has no list of rows", 'send {"rows": [{"column": cell}]}')
    for key in data:
        if key != "rows" and key not in options:
            known = ", ".join(("rows", *options))
            raise FuselineError("bad_request", f"unknown key {key[:60]!r}", f"known: {known}")
    return data["rows"], {key: data[key] for key in options if key in data}


def _contributions(given: Any) -> bool:
    if not isinstance(given, bool):
        raise FuselineError("bad_request", "`contributions` is not true or false")
    return given


class _InMemory(MultiPartParser):
    """Files stay in memory: the body is there already, and within its limit."""

    spool_max_size = 2**40


async def _from_form(
    headers: Headers, body: bytes, info: ModelInfo | None, options: Sequence[str]
) -> tuple[list[Row], dict[str, Any]]:
    """One row: a field a column; a picture, sound or video as a file (or as base64 text). The field of a column of
    several items may come several times."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    columns = {} if info is None else {c.name: c.kind for c in info.columns}
    sets = {name for name, kind in columns.items() if kind in ("images", "texts")}
    fields = len(columns) + 8 + 64 * len(sets)
    try:
        parser = _InMemory(headers, stream(), max_files=fields, max_fields=fields, max_part_size=len(body) + 1)
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, LookupError) as error:
        text = getattr(error, "message", "its parts cannot be read")
        raise FuselineError(
            "bad_request", f"the form is broken: {text}", "curl -F column=value -F file=@x.png"
        ) from None
    try:
        return await _row_of(form, sets, [o for o in options if o not in columns])
    finally:
        await form.close()


async def _row_of(form: FormData, sets: set[str], options: Sequence[str]) -> tuple[list[Row], dict[str, Any]]:
    """`sets`: columns of several items; `options`: fields that are no column's."""
    row: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in row and name not in sets:
            raise FuselineError("bad_request", f"the field {name[:60]!r} is there twice", "a form is one row")
        cell = await value.read() if isinstance(value, UploadFile) else value
        row[name] = cell if name not in sets else [*row.get(name, ()), cell]
    for name in sets & row.keys():
        if len(row[name]) == 1:  # one item, or the text of a JSON list
            [row[name]] = row[name]
    words = {"true": True, "false": False}
    given = {name: row.pop(name) for name in options if name in row}
    return [row], {name: words.get(value, value) for name, value in given.items()}


def _answered(reply: Reply) -> dict[str, Any]:
    answers = [a.to_dict() for a in reply.answers]
    for answer, share in zip(answers, reply.contributions, strict=False):
        if share is not None:
            answer["contributions"] = share
    return {
        "model": reply.model,
        "version": reply.version,
        "request_id": reply.id,
        "answers": answers,
        "timing": {
            "queue_ms": round(reply.queue_seconds * 1e3, 3),
            "compute_ms": round(reply.compute_seconds * 1e3, 3),
        },
    }
