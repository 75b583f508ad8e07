"""The core: every answer goes to its own request, and nobody pays for another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve.calls import Call, Event, ModelInfo
from fuseline.serve.scorer import Scorer

ATOL = 1e-5
"""the last bits of a float32 product depend on the rows beside it"""


def near(got: Answer, want: Answer) -> bool:
    return (
        got.error is None
        and got.value == want.value
        and got.used == want.used
        and got.probabilities == pytest.approx(want.probabilities, abs=ATOL)
    )


def call(rows: list[Any], id: str = "a", **more: Any) -> Call:
    return Call("clinic", rows, id, **more)


class Seen:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.infos: list[ModelInfo] = []

    def wants(self, call: Call) -> bool:
        return True

    def loaded(self, info: ModelInfo) -> None:
        self.infos.append(info)

    def unloaded(self, model: str, version: str) -> None: ...

    def ended(self, event: Event) -> None:
        self.events.append(event)

    def status(self) -> dict[str, Any]:
        return {"events": len(self.events)}


def test_one_request_gives_the_predictors_own_bits(open_service: Any, rows: Any, answers: list[Answer]) -> None:
    async def go() -> None:
        async with open_service() as service:
            for row, want in zip(rows, answers, strict=True):
                reply = await service.predict(call([row]))
                assert reply.answers[0] == want
                assert reply.batch_sizes == (1,)

    asyncio.run(go())


def test_many_callers_get_their_own_answers(open_service: Any, rows: Any, answers: list[Answer]) -> None:
    async def one(service: Any, i: int) -> None:
        places = [(i + j) % len(rows) for j in range(1 + i % 3)]
        reply = await service.predict(call([rows[p] for p in places], f"id-{i}"))
        assert reply.id == f"id-{i}"
        assert all(near(a, answers[p]) for a, p in zip(reply.answers, places, strict=True))

    async def go() -> None:
        async with open_service(queue_rows=10_000) as service:
            await asyncio.gather(*(one(service, i) for i in range(80)))
            assert service.gauges()[0].waiting_rows == 0

    asyncio.run(go())


def test_rows_of_one_moment_share_a_batch(open_service: Any, rows: Any) -> None:
    async def go() -> None:
        async with open_service(max_wait_ms=500, max_batch_rows=4) as service:
            scorer = service.engine._scorers["clinic", service.info("clinic").version]
            scorer._appetite._paces = {4: 1.0, 8: 9.0}  # it has learned that four are best
            replies = await asyncio.gather(*(service.predict(call([rows[0]], str(i))) for i in range(8)))
            assert {s for r in replies for s in r.batch_sizes} == {4}
            stats = service.stats("clinic")
            assert (stats["inference_count"], stats["execution_count"]) == (8, 2)

    asyncio.run(go())


def test_bad_rows_fail_alone(open_service: Any, rows: Any, answers: list[Answer]) -> None:
    poison = [{"picture": b"no picture"}, {"age": "old"}, "no row", {"agee": 1}, {"sound": "http://example.org/x.wav"}]

    async def go() -> None:
        async with open_service() as service:
            mixed = [item for pair in zip(poison, rows, strict=False) for item in pair]
            reply = await service.predict(call(mixed))
            for i, answer in enumerate(reply.answers):
                if i % 2:
                    assert near(answer, answers[i // 2])
                else:
                    assert answer.error is not None
                    assert answer.error.row == i

    asyncio.run(go())


@pytest.mark.parametrize(
    ("rows", "code"),
    [([{"age": "old"}], "bad_cell"), ([{"age": "x"}, {"age": "y"}], "bad_rows"), ([], "bad_rows")],
)
def test_nothing_readable_is_a_failure(open_service: Any, rows: Any, code: str) -> None:
    async def go() -> None:
        async with open_service() as service:
            with pytest.raises(FuselineError) as caught:
                await service.predict(call(rows))
            assert caught.value.code == code

    asyncio.run(go())


def test_a_row_that_the_graph_cannot_run_fails_alone(
    open_service: Any, rows: Any, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Scorer._answer

    def poisoned(self: Scorer, parsed: list[Any]) -> Any:
        if any(p.values["vitals"] is not None and p.values["vitals"].numbers[0] == 999 for p in parsed):
            raise RuntimeError("the runtime gave up")
        return inner(self, parsed)

    monkeypatch.setattr(Scorer, "_answer", poisoned)

    async def go() -> None:
        async with open_service(max_wait_ms=200) as service:
            reply = await service.predict(call([rows[0], {"age": 999}, rows[1]]))
            assert near(reply.answers[0], answers[0])
            assert near(reply.answers[2], answers[1])
            assert reply.answers[1].error is not None

    asyncio.run(go())


def test_a_full_house_refuses_at_once_and_recovers(open_service: Any, rows: Any, answers: list[Answer]) -> None:
    async def go() -> None:
        async with open_service(queue_rows=4) as service:
            start = time.monotonic()
            results = await asyncio.gather(
                *(service.predict(call([rows[0]], str(i))) for i in range(50)), return_exceptions=True
            )
            codes = [r.code if isinstance(r, FuselineError) else "ok" for r in results]
            assert codes.count("ok") == 4
            assert codes.count("overloaded") == 46
            assert time.monotonic() - start < 30
            assert near((await service.predict(call([rows[0]]))).answers[0], answers[0])

    asyncio.run(go())


def test_a_wait_beyond_the_objective_is_refused(open_service: Any, rows: Any) -> None:
    async def go() -> None:
        async with open_service(objective_ms=50) as service:
            model = service._models["clinic"]
            model.row_seconds, model.waiting_rows = 1.0, 1
            with pytest.raises(FuselineError, match="overloaded"):
                await service.predict(call([rows[0]]))

    asyncio.run(go())


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    inner = Scorer._answer

    def waits(self: Scorer, parsed: list[Any]) -> Any:
        time.sleep(seconds)
        return inner(self, parsed)

    monkeypatch.setattr(Scorer, "_answer", waits)


def test_a_deadline_ends_its_own_request_only(
    open_service: Any, rows: Any, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with open_service(max_batch_rows=1) as service:
            slow(monkeypatch, 0.1)
            soon = time.monotonic() + 0.15
            late = [service.predict(call([rows[0]], f"l{i}", deadline=soon)) for i in range(5)]
            patient = service.predict(call([rows[1]], "p"))
            *ended, answered = await asyncio.gather(*late, patient, return_exceptions=True)
            assert near(answered.answers[0], answers[1])
            codes = [r.code if isinstance(r, FuselineError) else "ok" for r in ended]
            assert codes.count("deadline") >= 3
            assert set(codes) <= {"deadline", "ok"}
            assert service.gauges()[0].waiting_rows == 0

    asyncio.run(go())


def test_a_caller_who_leaves_is_not_computed(open_service: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    inner = Scorer._answer

    def counted(self: Scorer, parsed: list[Any]) -> Any:
        time.sleep(0.05)
        ran.append(len(parsed))
        return inner(self, parsed)

    async def go() -> None:
        seen = Seen()
        async with open_service({"seen": seen}, max_batch_rows=1) as service:
            monkeypatch.setattr(Scorer, "_answer", counted)
            leaving = [asyncio.create_task(service.predict(call([rows[0]], f"x{i}"))) for i in range(10)]
            staying = asyncio.create_task(service.predict(call([rows[1]], "stay")))
            await asyncio.sleep(0.02)
            for task in leaving:
                task.cancel()
            await staying
            await asyncio.gather(*leaving, return_exceptions=True)
            assert sum(ran) <= 3
            assert [e.code for e in seen.events].count("cancelled") >= 8
            assert service.gauges()[0].waiting_rows == 0

    asyncio.run(go())


def test_versions_share_the_traffic(open_service: Any, other_package: Path, rows: Any) -> None:
    async def go() -> None:
        async with open_service() as service:
            old = service.info("clinic").version
            new = (await service.load(other_package, "clinic", share=0.25)).version
            assert service.info("clinic").version == old
            assert service.gauges()[0].versions == {old: 0.75, new: 0.25}
            got = [(await service.predict(call([{"age": 40}], f"r{i}"))).version for i in range(200)]
            assert 25 <= got.count(new) <= 75
            again = [(await service.predict(call([{"age": 40}], f"r{i}"))).version for i in range(200)]
            assert again == got, "the same id meets the same version"
            assert (await service.predict(call([{"age": 40}], version=new))).version == new
            with pytest.raises(FuselineError, match="version"):
                await service.predict(call([{"age": 40}], version="nope"))

    asyncio.run(go())


def test_a_shadow_sees_the_traffic_and_answers_nobody(open_service: Any, other_package: Path, rows: Any) -> None:
    async def go() -> None:
        seen = Seen()
        async with open_service({"seen": seen}) as service:
            old = service.info("clinic").version
            new = (await service.load(other_package, "clinic", shadow=True)).version
            reply = await service.predict(call([rows[0]]))
            assert reply.version == old
            for _ in range(200):
                if len(seen.events) == 2:
                    break
                await asyncio.sleep(0.01)
            assert {(e.call.door, e.version) for e in seen.events} == {("rest", old), ("shadow", new)}

    asyncio.run(go())


def test_a_swap_under_load_loses_nothing(open_service: Any, other_package: Path, rows: Any) -> None:
    async def go() -> None:
        async with open_service(queue_rows=10_000) as service:
            old = service.info("clinic").version
            stop = False
            versions: list[str] = []

            async def caller(i: int) -> None:
                while not stop:
                    reply = await service.predict(call([rows[i]], f"c{i}-{len(versions)}"))
                    versions.append(reply.version)

            callers = [asyncio.create_task(caller(i)) for i in range(4)]
            await asyncio.sleep(0.1)
            info = await service.swap(other_package, "clinic", old)
            await asyncio.sleep(0.1)
            stop = True
            await asyncio.gather(*callers)
            assert info.version != old
            assert versions[0] == old
            assert versions[-1] == info.version
            assert [m.version for m in service.models()] == [info.version]

    asyncio.run(go())


def test_contributions_add_up(open_service: Any, rows: Any) -> None:
    async def go() -> None:
        async with open_service() as service:
            reply = await service.predict(call([*rows[:3], {"age": "bad"}], contributions=True))
            *good, bad = reply.contributions
            assert bad is None
            for answer, share in zip(reply.answers, good, strict=False):
                assert set(share["inputs"]) == set(answer.used)
                total = share["base"] + sum(share["inputs"].values())
                assert total == pytest.approx(answer.probabilities[share["class"]], abs=1e-4)
            with pytest.raises(FuselineError, match="contributions"):
                await service.predict(call([rows[0]] * 20, contributions=True))

    asyncio.run(go())


def test_observers_see_statistics_and_never_cells(open_service: Any, rows: Any) -> None:
    async def go() -> None:
        seen = Seen()
        async with open_service({"seen": seen}) as service:
            whole = next(r for r in rows if len(r) >= 6)
            await service.predict(call([whole, {"age": "bad"}]))
            [event] = seen.events
            assert event.code == "ok"
            stats = event.rows[0].stats
            assert stats is not None
            assert all(isinstance(v, (float, str)) for v in stats.values())
            assert set(stats) <= set(seen.infos[0].profile)
            assert event.rows[0].embedding is not None
            assert event.rows[1].answer.error is not None
            assert service.status()["observers"]["seen"] == {"events": 1}

    asyncio.run(go())


def test_readiness(open_service: Any) -> None:
    async def go() -> None:
        async with open_service() as service:
            assert service.ready()
            assert service.ready("clinic")
            assert not service.ready("nobody")
            service.expect("second")
            assert not service.ready()
            with pytest.raises(FuselineError, match="clinic"):
                service.info("clinik")

    asyncio.run(go())
