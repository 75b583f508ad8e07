"""The core of the service: who may come in, which version answers, and what becomes of it. No transport.

A request is either answered, or refused with one error that says why; nothing waits without a bound. Whoever calls may
cancel at any time, and what has not been computed by then is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.explain import Explanations, Options
from fuseline.explain.summary import summarise
from fuseline.serve import contributions
from fuseline.serve.calls import Call, Event, Gauge, ModelInfo, Observer, Reply, RowSeen, Wish
from fuseline.serve.engine import Engine
from fuseline.serve.routing import Model, Version, find
from fuseline.serve.scorer import Scored
from fuseline.serve.settings import Settings

log = logging.getLogger(__name__)

MOST_SHADOWS = 8
"""copies in flight; more are left out, so that a slow shadow never slows the one that answers"""


class Service:
    """Answers calls from any door. Lives on one event loop.

    `observers`: by the name under which the console knows them (metrics, drift, alerts, ...).
    """

    def __init__(self, engine: Engine, settings: Settings, observers: Mapping[str, Observer] | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self._observers = dict(observers or {})
        self.observers = tuple(self._observers.values())
        self.draining = False
        self._models: dict[str, Model] = {}
        self._shadows: set[asyncio.Task[None]] = set()
        self._awaited: set[str] = set()

    # What is served

    def expect(self, name: str) -> None:
        """A model that must answer before this server counts as ready."""
        self._awaited.add(name)

    async def load(
        self, path: Path, name: str | None = None, *, share: float | None = None, shadow: bool = False
    ) -> ModelInfo:
        """Bring a package in beside what is served; once it has answered a first row, it takes its traffic.

        Args:
            path: the package.
            name: what to serve it as; default: its own name.
            share: of the traffic (a canary); None: all that is not shared otherwise, as the new default.
            shadow: gets copies of the traffic instead.
        """
        info = await self.engine.load(path, name)
        model = self._models.setdefault(info.name, Model(info.name))
        self._check_kin(model, info)
        version = model.versions.setdefault(info.version, Version(info))
        version.info, version.share, version.shadow = info, share or 0.0, shadow
        if model.default not in model.versions or (share is None and not shadow):
            model.default = info.version
        for observer in self.observers:
            observer.loaded(info)
        return info

    def _check_kin(self, model: Model, info: ModelInfo) -> None:
        """Versions of one name answer the same question: a caller may not notice which one answered."""
        for version in model.versions.values():
            old = version.info
            if (old.task, old.mode, set(old.classes), old.targets) != (
                info.task,
                info.mode,
                set(info.classes),
                info.targets,
            ):
                log.warning("%s %s answers otherwise than %s", info.name, info.version, old.version)

    async def unload(self, name: str, version: str) -> None:
        """Take a version out of the traffic, wait for what is in flight, and let go of it."""
        model = find(self._models, name)
        gone = model.choose("", version)
        if model.default == version and len(model.versions) > 1:
            model.default = next(v for v in reversed(model.versions) if v != version)
        del model.versions[version]
        until = time.monotonic() + self.settings.deadline_ms / 1e3
        while gone.requests and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self.engine.unload((name, version))
        for observer in self.observers:
            observer.unloaded(name, version)

    async def swap(self, path: Path, name: str, old: str) -> ModelInfo:
        """Load what `path` holds now beside version `old`, move the traffic over, then let go of the old one."""
        before = find(self._models, name).versions.get(old)
        share = None if before is None or find(self._models, name).default == old else before.share
        info = await self.load(path, name, share=share, shadow=before.shadow if before else False)
        if info.version != old:
            await self.unload(name, old)
        return info

    def set_share(self, name: str, version: str, share: float | None) -> None:
        """Give a version a share of the traffic; None: make it the default."""
        model = find(self._models, name)
        chosen = model.choose("", version)
        if share is None:
            model.default, chosen.share, chosen.shadow = version, 0.0, False
        elif (
            not 0 <= share <= 1
            or sum(s for v, s in model.shares().items() if v not in (version, model.default)) + share > 1
        ):
            raise FuselineError("bad_request", f"a share of {share} does not fit", "shares add up to at most 1")
        else:
            chosen.share = share

    def models(self) -> list[ModelInfo]:
        """Every version, a name's default first."""
        out = []
        for model in self._models.values():
            order = sorted(model.versions.values(), key=lambda v: v.info.version != model.default)
            out += [v.info for v in order]
        return out

    def info(self, name: str, version: str | None = None) -> ModelInfo:
        """Raises FuselineError ``unknown_model``, ``unknown_version``."""
        model = find(self._models, name)
        return model.choose("", version or model.default).info

    def is_default(self, info: ModelInfo) -> bool:
        return self._models[info.name].default == info.version

    # How it is

    def live(self) -> bool:
        return True

    def ready(self, name: str | None = None, version: str | None = None) -> bool:
        """Whether new requests should come here. A model that is not known is not ready."""
        if self.draining:
            return False
        if name is not None:
            model = self._models.get(name)
            key = version or (model.default if model else "")
            return model is not None and key in model.versions and self.engine.has((name, key))
        names = self._awaited | set(self._models)
        return bool(names) and all(self.ready(n) for n in names)

    def gauges(self) -> list[Gauge]:
        return [
            Gauge(
                model=m.name,
                waiting_rows=m.waiting_rows,
                limit_rows=self.settings.queue_rows,
                versions=m.shares(),
                ready=self.ready(m.name),
                workers=self.engine.workers,
                restarts=self.engine.restarts,
            )
            for m in self._models.values()
        ]

    def stats(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Counts since the start, as the v2 statistics name them."""
        model = find(self._models, name)
        counts = model.choose("", version or model.default).counts
        done = int(counts["success"])

        def took(seconds: str, count: int = done) -> dict[str, int]:
            return {"count": count, "ns": int(counts[seconds] * 1e9)}

        return {
            "inference_count": int(counts["rows"]),
            "execution_count": round(counts["executions"]),
            "success": took("seconds"),
            "fail": {"count": int(counts["fail"]), "ns": 0},
            "queue": took("queue_seconds"),
            "compute": took("compute_seconds"),
        }

    def status(self) -> dict[str, Any]:
        """For the console: the state of every model, and what the observers know."""
        gauges = [vars(g) for g in self.gauges()]
        return {"gauges": gauges, "observers": {k: o.status() for k, o in self._observers.items()}}

    # Answering

    async def predict(self, call: Call) -> Reply:
        """Answer one call. Raises FuselineError: see the table of codes in :mod:`fuseline.serve.status`."""
        start = time.monotonic()
        version = ""
        try:
            model = find(self._models, call.model)
            chosen = model.choose(call.id, call.version)
            version = chosen.info.version
            cost = self._admit(model, call, chosen)
            reply, scored = await self._answer(model, chosen, call, cost)
            if call.door != "shadow":
                for shadow in model.shadows():
                    self._mirror(model, shadow, call)
        except FuselineError as error:
            self._ended(Event(call, error.code, time.monotonic() - start, version=version))
            raise
        except asyncio.CancelledError:
            self._ended(Event(call, "cancelled", time.monotonic() - start, version=version))
            raise
        except Exception:
            log.exception("request %s failed inside", call.id)
            self._ended(Event(call, "internal", time.monotonic() - start, version=version))
            raise FuselineError("internal", "internal error", "") from None
        errors = [a.error for a in reply.answers if a.error is not None]
        code = "ok" if len(errors) < len(reply.answers) else errors[0].code
        seconds = time.monotonic() - start
        self._count(chosen, reply, seconds, ok=code == "ok")
        self._ended(Event(call, code, seconds, reply, tuple(scored.seen), version))
        if code != "ok":
            raise _none_readable(errors)
        return reply

    async def explain(self, call: Call, options: Options) -> Explanations:
        """Say why a call's rows are answered as they are. Raises as :meth:`predict` does, ``cannot_explain`` and
        ``unknown_column``. Counts as as many waiting rows as it may take answers."""
        start, version, code = time.monotonic(), "", "ok"
        try:
            model = find(self._models, call.model)
            chosen = model.choose(call.id, call.version)
            version = chosen.info.version
            self._admit(model, call, chosen)
            longest = start + self.settings.deadline_ms / 1e3
            deadline = longest if call.deadline is None else min(call.deadline, longest)
            cost = min(self.settings.max_explain_rows, len(call.rows) * 2 ** len(chosen.info.inputs))
            model.waiting_rows += cost
            chosen.requests += 1
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                    rows = await self.engine.explain((model.name, version), call.rows, options, deadline=deadline)
            except TimeoutError:
                raise FuselineError("deadline", "no answer before the request's deadline", "allow more time") from None
            finally:
                model.waiting_rows -= cost
                chosen.requests -= 1
            errors = [FuselineError.from_dict(r.error) for r in rows if r.error is not None]
            if len(errors) == len(rows):
                raise _none_readable(errors)
            return Explanations(
                model={"name": model.name, "version": version}, rows=tuple(rows), summary=summarise(rows)
            )
        except FuselineError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        except Exception:
            log.exception("request %s failed inside", call.id)
            code = "internal"
            raise FuselineError("internal", "internal error", "") from None
        finally:
            self._ended(Event(call, code, time.monotonic() - start, version=version))

    async def write(self, call: Call, wish: Wish) -> AsyncGenerator[str | Reply, None]:
        """Write the text of one row: its pieces as they come, at last the reply. Closing it ends the writing. Raises
        FuselineError, as :meth:`predict` does."""
        start, version, code = time.monotonic(), "", "cancelled"
        reply: Reply | None = None
        seen: tuple[RowSeen, ...] = ()
        try:
            model = find(self._models, call.model)
            chosen = model.choose(call.id, call.version)
            version = chosen.info.version
            self._admit(model, call, chosen)
            if model.streams >= self.settings.max_streams:
                message = f"{model.name} is overloaded: {model.streams} texts are being written"
                raise FuselineError("overloaded", message, "retry later, as Retry-After says")
            longest = start + self.settings.deadline_ms / 1e3
            deadline = longest if call.deadline is None else min(call.deadline, longest)
            key, wanted = (model.name, version), any(o.wants(call) for o in self.observers)
            pieces = self.engine.stream(key, call.rows[0], wish, deadline=deadline, seen=wanted)
            model.waiting_rows, model.streams, chosen.requests = (
                model.waiting_rows + 1,
                model.streams + 1,
                chosen.requests + 1,
            )
            try:
                async with aclosing(pieces):
                    async for piece in pieces:
                        if isinstance(piece, str):
                            yield piece
                            continue
                        reply, seen = _reply(model, chosen, call, piece), tuple(piece.seen)
            finally:
                model.waiting_rows, model.streams, chosen.requests = (
                    model.waiting_rows - 1,
                    model.streams - 1,
                    chosen.requests - 1,
                )
            assert reply is not None
            code = "ok"
            self._count(chosen, reply, time.monotonic() - start, ok=True)
            yield reply
        except FuselineError as error:
            code = error.code
            raise
        except Exception:
            log.exception("request %s failed inside", call.id)
            code = "internal"
            raise FuselineError("internal", "internal error", "") from None
        finally:
            self._ended(Event(call, code, time.monotonic() - start, reply, seen, version))

    def refused(self, call: Call, error: FuselineError) -> None:
        """A door turned a request away before it became a call: the observers count it."""
        self._ended(Event(call, error.code, 0.0))

    def _admit(self, model: Model, call: Call, chosen: Version) -> int:
        """How many rows the call adds to the queue. Raises where it may not come in."""
        settings = self.settings
        if not call.rows:
            raise FuselineError("bad_rows", "the request has no rows", 'send {"rows": [{column: cell}]}')
        if len(call.rows) > settings.max_rows:
            raise FuselineError(
                "too_large", f"{len(call.rows)} rows, at most {settings.max_rows} are taken", "send them in parts"
            )
        cost = len(call.rows)
        if call.contributions:
            cost *= 2 ** len(chosen.info.inputs)
            contributions.check(chosen.info, cost, settings.max_rows)
        if not self.engine.has((model.name, chosen.info.version)):
            raise FuselineError("not_ready", f"{model.name} is not ready", "retry in a moment")
        self.check_room(model.name, cost)
        return cost

    def check_room(self, name: str, rows: int = 1) -> None:
        """Raises FuselineError ``overloaded`` where that many rows may not come in. Doors ask before they read a body:
        under a flood, reading what will be refused is most of the work."""
        model = self._models.get(name)
        if model is None:
            return
        full = model.waiting_rows + rows > self.settings.queue_rows and model.waiting_rows > 0
        if full or self.wait_seconds(name) > self.settings.objective_ms / 1e3:
            waiting = f"{model.waiting_rows} rows wait already"
            raise FuselineError("overloaded", f"{name} is overloaded: {waiting}", "retry later, as Retry-After says")

    def wait_seconds(self, name: str) -> float:
        """How long a row that comes now would wait, by the pace of late; 0 where unknown."""
        model = self._models.get(name)
        if model is None:
            return 0.0
        return model.waiting_rows * model.row_seconds / self.engine.lanes

    async def _answer(self, model: Model, chosen: Version, call: Call, cost: int) -> tuple[Reply, Scored]:
        settings, key = self.settings, (model.name, chosen.info.version)
        longest = time.monotonic() + settings.deadline_ms / 1e3
        deadline = longest if call.deadline is None else min(call.deadline, longest)
        watched = any(o.wants(call) for o in self.observers)
        model.waiting_rows += cost
        chosen.requests += 1
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                scored = await self.engine.score(key, call.rows, deadline=deadline, seen=watched or call.embed)
                shares: tuple[dict[str, Any] | None, ...] = ()
                if call.contributions:
                    shares = await contributions.compute(self.engine, chosen.info, call.rows, scored, deadline)
        except TimeoutError:
            raise FuselineError("deadline", "no answer before the request's deadline", "allow more time") from None
        finally:
            model.waiting_rows -= cost
            chosen.requests -= 1
        if scored.batch_sizes:
            pace = scored.compute_seconds / sum(scored.batch_sizes)
            model.row_seconds = pace if not model.row_seconds else 0.9 * model.row_seconds + 0.1 * pace
        embeddings = tuple(s.embedding for s in scored.seen) if call.embed else ()
        if not watched:
            scored.seen = []
        return replace(_reply(model, chosen, call, scored), contributions=shares, embeddings=embeddings), scored

    def _mirror(self, model: Model, shadow: Version, call: Call) -> None:
        if len(self._shadows) >= MOST_SHADOWS:
            return
        copy = replace(
            call, version=shadow.info.version, door="shadow", contributions=False, embed=False, deadline=None
        )

        async def run() -> None:
            try:
                await self.predict(copy)
            except FuselineError:
                return  # counted as an event of the door `shadow`

        task = asyncio.create_task(run(), name=f"shadow of {call.id}")
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    def _count(self, version: Version, reply: Reply, seconds: float, *, ok: bool) -> None:
        counts = version.counts
        counts["success" if ok else "fail"] += 1
        counts["rows"] += len(reply.answers)
        counts["executions"] += reply.executions
        if ok:
            counts["queue_seconds"] += reply.queue_seconds
            counts["compute_seconds"] += reply.compute_seconds
            counts["seconds"] += seconds

    def _ended(self, event: Event) -> None:
        for observer in self.observers:
            try:
                observer.ended(event)
            except Exception:  # a watcher's defect is no caller's business
                log.exception("an observer failed")

    async def drain(self) -> None:
        """Stop being ready, and wait for what is in flight."""
        self.draining = True
        until = time.monotonic() + self.settings.drain_seconds
        while any(m.waiting_rows for m in self._models.values()) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in list(self._shadows):
            task.cancel()
        await self.engine.close()


def _reply(model: Model, chosen: Version, call: Call, scored: Scored) -> Reply:
    return Reply(
        model=model.name,
        version=chosen.info.version,
        id=call.id,
        answers=tuple(scored.answers),
        queue_seconds=scored.queue_seconds,
        compute_seconds=scored.compute_seconds,
        batch_sizes=scored.batch_sizes,
        executions=scored.executions,
    )


def _none_readable(errors: Sequence[FuselineError]) -> FuselineError:
    first = errors[0]
    if len(errors) == 1:
        return first
    return FuselineError(
        "bad_rows", f"none of the {len(errors)} rows can be answered: {first}", "", row=first.row, column=first.column
    )
