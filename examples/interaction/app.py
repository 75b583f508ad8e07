"""The dialogue's own program beside the model server: takes a turn, has it understood, looks facts up, streams a reply.

GET /           the page            GET /state      what it offers, and how good the models were on test turns
GET /face       ?expression=sad&seed=3: the drawing       GET /example/3   a test turn with its truth
POST /turn      {"text", "audio" (base64), "face" {"expression", "seed"}, "customer"}, any of the first three:
                server-sent events `understood`, then {"text": piece} of the reply, then `end`; or `error`
GET /metrics    for Prometheus: interaction_turns_total, interaction_emotions_total, interaction_intents_total,
                interaction_first_piece_seconds
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from examples.interaction import faces, turn
from examples.interaction.facts import Facts, Filler
from examples.interaction.models import Models
from examples.interaction.words import EMOTIONS, INTENTS, UNSURE, replies
from examples.pages import HEADERS, add_page
from fuseline import FuselineError

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 8 * 2**20
"""of a body: ten seconds of 48 kHz stereo, in base64, and room"""


@dataclass
class Dialogue:
    """Models, records, and what is counted. It remembers no turn: the page does."""

    models: Models
    facts: Facts
    about: dict[str, Any]
    """what `/state` says beside the lists: `data` in words, `measured`"""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """test turns: speech (path), transcript, shown, face_seed, emotion, intent"""

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.turns = Counter("interaction_turns", "by how they ended", ["outcome"], registry=self.registry)
        self.emotions = Counter("interaction_emotions", "understood", ["emotion"], registry=self.registry)
        self.intents = Counter("interaction_intents", "understood", ["intent"], registry=self.registry)
        self.first = Histogram("interaction_first_piece_seconds", "turn to reply's begin", registry=self.registry)
        for outcome in ("answered", "withdrawn", "refused", "failed", "left"):
            self.turns.labels(outcome)

    def state(self) -> dict[str, Any]:
        limits = {"seconds": turn.MOST_SECONDS, "letters": turn.MOST_LETTERS, "bytes": MOST_BYTES}
        return {
            "emotions": EMOTIONS,
            "intents": (*INTENTS, UNSURE),
            "customers": self.facts.customers(),
            "limits": limits,
            "examples": len(self.examples),
            **self.about,
        }

    def example(self, number: int) -> dict[str, Any]:
        row = self.examples[number]
        return {
            "audio": base64.b64encode(Path(row["speech"]).read_bytes()).decode("ascii"),
            "text": row["transcript"],
            "face": {"expression": row["shown"], "seed": row["face_seed"]},
            "truth": {"emotion": row["emotion"], "intent": row["intent"]},
        }

    def begin(self, body: Any) -> Iterator[bytes]:
        """The events of a turn; what can be refused is refused before the first. Raises FuselineError."""
        clock = time.monotonic()
        try:
            said = turn.read_turn(body)
            slots, triples = self.facts.about(said.customer)
        except FuselineError:
            self.turns.labels("refused").inc()
            raise
        try:
            found = turn.understood(self.models.understand(said.row))
        except FuselineError:
            self.turns.labels("failed").inc()
            raise
        self.emotions.labels(found["emotion"]).inc()
        self.intents.labels(found["intent"]).inc()
        return self._events(found, slots, triples, clock)

    def _events(
        self, found: dict[str, Any], slots: dict[str, str], triples: list[list[str]], clock: float
    ) -> Iterator[bytes]:
        outcome = "left"
        try:
            yield _event({**found, "facts": triples}, "understood")
            filler, text, written = Filler(slots), "", ""
            told = {"intent": found["intent"], "emotion": found["felt"], "state": slots["state"]}
            for piece in self.models.write(told):
                written += piece
                shown = filler.add(piece)
                if shown and not text:
                    self.first.observe(time.monotonic() - clock)
                text += shown
                if shown:
                    yield _event({"text": shown})
            text += filler.end()
            if not text:
                raise FuselineError("internal", "the reply is empty", "send the turn again")
            # A decoder may write of another state than the records': what no template allows is taken back, not left
            # to stand.
            fits = written.strip() in replies(**told)
            outcome = "answered" if fits else "withdrawn"
            seconds = time.monotonic() - clock
            yield _event({"reply": text, "fits": fits, "unknown": filler.unknown, "seconds": seconds}, "end")
        except FuselineError as error:
            outcome = "failed"
            yield _event({"error": str(error)}, "error")
        finally:
            self.turns.labels(outcome).inc()


def _event(data: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def make_app(dialogue: Dialogue) -> FastAPI:
    app = FastAPI(title="A dialogue", docs_url=None, redoc_url=None)
    add_page(app, PAGE, of_console=("recording.js", "recorder-worklet.js"))

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return dialogue.state()

    @app.get("/face")
    async def face(expression: str, seed: int = 0) -> Response:
        if expression not in faces.EXPRESSIONS or not 0 <= seed < 2**31:
            raise HTTPException(404, "no such face: see /state for the expressions")
        drawn = await asyncio.to_thread(faces.draw, expression, seed, 3 * faces.SIZE)
        return Response(drawn, media_type="image/png", headers=HEADERS)

    @app.get("/example/{number}")
    async def example(number: int) -> dict[str, Any]:
        if not 0 <= number < len(dialogue.examples):
            raise HTTPException(404, f"there are {len(dialogue.examples)} examples")
        return await asyncio.to_thread(dialogue.example, number)

    @app.post("/turn")
    async def take(request: Request) -> Response:
        try:
            body = await _body(request)
            events = await asyncio.to_thread(dialogue.begin, body)
        except FuselineError as error:
            refused = error.code in ("bad_request", "bad_cell", "too_large")
            raise HTTPException(413 if error.code == "too_large" else 400 if refused else 503, str(error)) from None
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", **HEADERS}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(dialogue.registry), media_type="text/plain; version=0.0.4")

    async def _body(request: Request) -> Any:
        """Raises FuselineError; a body over the limit is not read to its end."""
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MOST_BYTES:
                dialogue.turns.labels("refused").inc()
                hint = f"at most {turn.MOST_SECONDS:g} seconds of sound"
                raise FuselineError("too_large", f"the turn is over {MOST_BYTES >> 20} MB", hint)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            dialogue.turns.labels("refused").inc()
            raise FuselineError("bad_request", "the body is no JSON", "") from None

    return app
