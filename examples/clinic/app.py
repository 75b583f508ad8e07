"""The clinic's own program beside the model server: a case list, a form, an answer that says how sure and why.

GET  /                    the page
GET  /state               what it is, its notice, the form's fields, the cases
GET  /cases/7             a case's cells           GET /pictures/7   its picture as PNG, also of nearest training rows
POST /look                a picture's bytes, DICOM too: what the model would see, as PNG. Nothing is kept
POST /ask                 {"cells": {...}, "case": 7 | null, "picture": base64 | null}: the answer, the truth of a case
POST /why                 the same and "of": "finding" | "severity": shares, patches, words, what-ifs
POST /nearest             the same: training cases
GET  /metrics             for Prometheus: clinic_answers_total, clinic_odd_total, clinic_failures_total
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry, Counter, generate_latest

from examples.clinic.cases import MOST_BYTES, Cases, seen
from examples.clinic.server import Row
from examples.pages import HEADERS, add_page, bytes_of, object_of
from fuseline import FuselineError

PAGE = Path(__file__).parent / "page"
MOST_TEXT = 20_000
FINITE = sys.float_info.max
ODD = 0.99
"""an input that is odder than this share of held-out rows is counted"""
NEIGHBOURS = 4
TARGETS = ("finding", "severity")


class Model(Protocol):
    """Every method raises FuselineError."""

    def predict(self, row: Row) -> dict[str, Any]: ...
    def explain(self, row: Row, of: str) -> dict[str, Any]: ...
    def nearest(self, row: Row, count: int) -> list[dict[str, Any]]: ...


class Clinic:
    """The cases, the model, and what is counted."""

    def __init__(self, cases: Cases, model: Model) -> None:
        self.cases, self.model = cases, model
        self.registry = CollectorRegistry()
        self.answers = Counter("clinic_answers", "by task", ["task", "outcome"], registry=self.registry)
        self.odd = Counter("clinic_odd", "inputs odder than 99 % of held-out ones", ["input"], registry=self.registry)
        self.failures = Counter("clinic_failures", "questions without an answer", registry=self.registry)

    def state(self) -> dict[str, Any]:
        fields = [
            {"column": f.column, "input": f.input, "kind": f.kind, "choices": list(f.choices)}
            for f in self.cases.fields
        ]
        cases = self.cases
        return {"told": cases.told, "notice": cases.notice, "fields": fields, "cases": cases.listed()}

    def row(self, body: dict[str, Any]) -> dict[str, Any]:
        """The row that the model is asked with. Raises FuselineError ``bad_request``, ``not_found``, ``too_large``."""
        cells, case, picture = body.get("cells"), body.get("case"), body.get("picture")
        if not isinstance(cells, dict):
            raise FuselineError("bad_request", "`cells` is no object of column and cell", "")
        known = {f.column: f.kind for f in self.cases.fields}
        unknown = sorted(str(c) for c in cells if c not in known)
        if unknown:
            raise FuselineError("bad_request", f"there is no field {unknown[0][:60]!r}", "see /state")
        row = {c: _cell(c, known[c], cells.get(c)) for c in known}
        row[self.cases.image] = self._picture(case, picture)
        return row

    def _picture(self, case: Any, picture: Any) -> str | None:
        if picture is not None:
            if not isinstance(picture, str) or len(picture) > MOST_BYTES * 4 // 3 + 4:
                raise FuselineError("bad_request", f"`picture` is no base64 of at most {MOST_BYTES // 2**20} MB", "")
            try:
                base64.b64decode(picture, validate=True)
            except (binascii.Error, ValueError):
                raise FuselineError("bad_request", "`picture` is no base64", "") from None
            return picture
        if case is None:
            return None
        if not isinstance(case, int) or isinstance(case, bool) or case not in self.cases.rows:
            raise FuselineError("not_found", "there is no such case", "see /state")
        data = self.cases.picture(case)
        return None if data is None else base64.b64encode(data).decode()

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        row = self.row(body)
        try:
            answer = self.model.predict(row)
            if answer.get("error"):
                raise FuselineError.from_dict(answer["error"])
        except FuselineError:
            self.failures.inc()
            raise
        for task in TARGETS:
            abstained = (answer.get("details") or {}).get(task, {}).get("abstained", False)
            self.answers.labels(task, "abstained" if abstained else "answered").inc()
        for name, odd in (answer.get("odd") or {}).items():
            if odd is not None and odd > ODD:
                self.odd.labels(name).inc()
        case = body.get("case")
        return {"answer": answer, "truth": None if case is None else self.cases.truth(case)}

    def why(self, body: dict[str, Any]) -> dict[str, Any]:
        of = body.get("of")
        if of not in TARGETS:
            raise FuselineError("bad_request", f"`of` is none of {', '.join(TARGETS)}", "")
        return self.model.explain(self.row(body), of)

    def nearest(self, body: dict[str, Any]) -> dict[str, Any]:
        found = []
        for hit in self.model.nearest(self.row(body), NEIGHBOURS):
            row = int(hit["id"])
            there = self.cases.picture(row) is not None
            found.append({"row": row, "score": hit["score"], "picture": there, "truth": self.cases.truth(row)})
        return {"rows": found}


def _cell(column: str, kind: str, cell: Any) -> Any:
    """As the model reads it; None where the field is empty."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if kind == "number":
        # Compared, not given to math.isfinite: JSON's whole numbers may be too large for a float.
        if isinstance(cell, bool) or not isinstance(cell, int | float) or not -FINITE <= cell <= FINITE:
            raise FuselineError("bad_request", f"{column} is no number", "leave it empty where it is not known")
        return cell
    if kind == "boolean":
        if cell not in (True, False, "true", "false") or not isinstance(cell, bool | str):
            raise FuselineError("bad_request", f"{column} is neither true nor false", "or leave it empty")
        return cell
    if not isinstance(cell, str) or len(cell) > MOST_TEXT:
        raise FuselineError("bad_request", f"{column} is no text of at most {MOST_TEXT} characters", "")
    return cell


STATUS = {"not_found": 404, "too_large": 413, "bad_cell": 422, "missing_extra": 501, "not_ready": 503}


def make_app(clinic: Clinic) -> FastAPI:
    app = FastAPI(title="A clinic", docs_url=None, redoc_url=None, openapi_url=None)
    add_page(app, PAGE)

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return clinic.state()

    @app.get("/cases/{row}")
    async def case(row: int) -> dict[str, Any]:
        return {"cells": await _told(clinic.cases.cells, row)}

    @app.get("/pictures/{row}")
    async def picture(row: int) -> Response:
        data = await _told(clinic.cases.picture, row)
        if data is None:
            raise HTTPException(404, "this row has no picture")
        return _png(await _told(seen, data))

    @app.post("/look")
    async def look(request: Request) -> Response:
        return _png(await _told(seen, await bytes_of(request, MOST_BYTES)))

    @app.post("/ask")
    async def ask(request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = await _told(clinic.ask, await object_of(request, 2 * MOST_BYTES))
        return answer

    @app.post("/why")
    async def why(request: Request) -> dict[str, Any]:
        found: dict[str, Any] = await _told(clinic.why, await object_of(request, 2 * MOST_BYTES))
        return found

    @app.post("/nearest")
    async def nearest(request: Request) -> dict[str, Any]:
        found: dict[str, Any] = await _told(clinic.nearest, await object_of(request, 2 * MOST_BYTES))
        return found

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(clinic.registry), media_type="text/plain; version=0.0.4")

    return app


async def _told(work: Callable[..., Any], *given: Any) -> Any:
    """`work` in a thread; what it says to its user as a status."""
    try:
        return await asyncio.to_thread(work, *given)
    except FuselineError as error:
        raise HTTPException(STATUS.get(error.code, 400), str(error)) from None


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers=HEADERS)
