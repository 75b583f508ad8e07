"""The city's own program beside the model server: plays the recording, asks for forecasts, warns, draws the map.

GET /          the page            GET /state     what it shows, as JSON
POST /silence  {"share": 0.5} or {"sensors": ["700000"]}: those send nothing from the next step on
POST /pace     {"seconds": 1.0}: between two steps; 0 stops the clock
GET /metrics   for Prometheus: city_warning_level, city_silent_share, city_forecast_failures_total
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from examples.city.replay import Quantiles, Replay, quantiles_of
from examples.city.warn import LEVELS, Threshold, levels
from examples.pages import add_page, object_of
from fuseline import FuselineError

PAGE = Path(__file__).parent / "page"
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""model and row -> answer; raises FuselineError"""


@dataclass
class Feed:
    """One model and the recording that it reads."""

    model: str
    replay: Replay
    threshold: Threshold
    unit: str
    place: int = 0
    silent_C: np.ndarray = field(init=False)
    shown: dict[str, Any] = field(init=False)
    failed: str = ""

    def __post_init__(self) -> None:
        self.silent_C = np.zeros(len(self.replay.channels), dtype=bool)
        self.shown = {}

    def step(self, ask: Ask) -> None:
        """Ask about this moment and go on to the next. A failure keeps what was shown, and says so."""
        row = self.replay.row(self.place, self.silent_C)
        try:
            answer = ask(self.model, row)
            if "error" in answer:
                raise FuselineError.from_dict(answer["error"])
        except FuselineError as error:
            self.failed = str(error)
            return
        self.failed = ""
        said = quantiles_of(answer)
        self.shown = self._picture(said, answer)
        self.place = (self.place + 1) % len(self.replay)

    def _picture(self, said: Quantiles, answer: dict[str, Any]) -> dict[str, Any]:
        level_C, step_C = levels(said.low, said.middle, said.high, self.threshold)
        past_LC, truth_KC = self.replay.past(self.place), self.replay.truth(self.place)
        past_LC[:, self.silent_C] = np.nan
        return {
            "moment": str(self.replay.moments[self.place])[:16].replace("T", " "),
            "step_minutes": self.replay.table.store.step / 60,
            "unit": self.unit,
            "threshold": {"bound": self.threshold.bound, "side": self.threshold.side},
            "channels": list(self.replay.channels),
            "level": [LEVELS[i] for i in level_C],
            "step": step_C.tolist(),
            "silent": self.silent_C.tolist(),
            "past": _rounded(past_LC),
            "came": _rounded(truth_KC),
            "low": _rounded(said.low),
            "middle": _rounded(said.middle),
            "high": _rounded(said.high),
            "based_on": {"used": answer["used"], "absent": answer["absent"]},
        }


def _rounded(array: np.ndarray) -> list[list[float | None]]:
    """Channel by channel."""
    return [[None if np.isnan(v) else round(float(v), 2) for v in column] for column in array.T]


class City:
    """All feeds, the clock, and who is silent."""

    def __init__(self, feeds: dict[str, Feed], ask: Ask, places: list[dict[str, Any]], roads: list[list[int]]) -> None:
        """`places`: latitude and longitude of each traffic sensor; `roads`: pairs of sensors that a road joins."""
        self.feeds, self.ask = feeds, ask
        self.places, self.roads = places, roads
        self.pace = 1.0
        self.registry = CollectorRegistry()
        self.level = Gauge("city_warning_level", "0 none to 3 alarm", ["kind", "sensor"], registry=self.registry)
        self.silent = Gauge("city_silent_share", "share of sensors that say nothing", ["kind"], registry=self.registry)
        self.failures = Counter("city_forecast_failures", "steps without an answer", ["kind"], registry=self.registry)

    def tick(self) -> None:
        for kind, feed in self.feeds.items():
            feed.step(self.ask)
            self.silent.labels(kind).set(float(feed.silent_C.mean()))
            if feed.failed:
                self.failures.labels(kind).inc()
                continue
            for name, level in zip(feed.shown["channels"], feed.shown["level"], strict=True):
                self.level.labels(kind, name).set(LEVELS.index(level))

    def state(self) -> dict[str, Any]:
        feeds = {kind: {**f.shown, "failed": f.failed} for kind, f in self.feeds.items()}
        return {"pace": self.pace, "feeds": feeds, "places": self.places, "roads": self.roads}

    def silence(self, wanted: dict[str, Any]) -> None:
        """Raises FuselineError ``bad_request``."""
        feed = self.feeds["traffic"]
        names = feed.replay.channels
        match wanted:
            case {"share": int() | float() as share} if 0 <= share <= 1:
                order = np.random.default_rng(0).permutation(len(names))  # a larger share silences the same and more
                feed.silent_C = order < round(share * len(names))
            case {"sensors": [*given]} if all(isinstance(g, str) for g in given):
                unknown = sorted(set(given) - set(names))
                if unknown:
                    raise FuselineError("bad_request", f"there is no sensor {unknown[0]!r}", "see /state")
                feed.silent_C = np.isin(names, given)
            case _:
                raise FuselineError("bad_request", "neither a share from 0 to 1 nor a list of sensors", "")


def make_app(city: City, *, clock: bool = True) -> FastAPI:
    """`clock`: whether time goes on by itself; tests call `city.tick`."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_go(city)) if clock else None
        yield
        if task is not None:
            task.cancel()

    app = FastAPI(title="A city", docs_url=None, redoc_url=None, lifespan=life)
    add_page(app, PAGE)

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return city.state()

    @app.post("/silence")
    async def silence(request: Request) -> dict[str, Any]:
        try:
            city.silence(await object_of(request))
        except FuselineError as error:
            raise HTTPException(400, str(error)) from None
        return {"silent": int(city.feeds["traffic"].silent_C.sum())}

    @app.post("/pace")
    async def pace(request: Request) -> dict[str, Any]:
        wanted = (await object_of(request)).get("seconds")
        if not isinstance(wanted, int | float) or isinstance(wanted, bool) or not (wanted == 0 or 0.1 <= wanted <= 60):
            raise HTTPException(400, "seconds: 0, or from 0.1 to 60")
        city.pace = float(wanted)
        return {"seconds": city.pace}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(city.registry), media_type="text/plain; version=0.0.4")

    return app


async def _go(city: City) -> None:
    while True:
        if city.pace:
            await asyncio.to_thread(city.tick)
        await asyncio.sleep(city.pace or 0.2)
