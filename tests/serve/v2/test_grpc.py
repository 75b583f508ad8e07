"""The protocol over gRPC, with Triton's client, over a service that answers by a rule."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from fuseline.errors import FuselineError
from fuseline.serve.keys import Keys, add
from fuseline.serve.settings import Settings
from fuseline.serve.status import GRPC, STATUS
from fuseline.serve.v2.grpc import Listening, start
from fuseline.serve.v2.messages import message, methods

SETTINGS = Settings(max_rows=8, max_body_mb=1.0, grpc_port=0)
ROOT = Path(__file__).resolve().parents[3]


def over(
    fake: Any,
    use: Callable[[InferenceServerClient, Listening], Awaitable[Any]],
    settings: Settings = SETTINGS,
    keys: Keys | None = None,
) -> Any:
    async def run() -> Any:
        door = await start(fake, settings, keys)
        client = InferenceServerClient(f"127.0.0.1:{door.port}")
        try:
            return await use(client, door)
        finally:
            await client.close()
            await door.stop(0)

    return asyncio.run(run())


def age(*values: float) -> InferInput:
    return InferInput("age", [len(values)], "FP64").set_data_from_numpy(np.array(values, dtype=np.float64))


async def raw_call(door: Listening, method: str, data: bytes, **options: Any) -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        return bytes(await channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(data, **options))


def code_of(caught: Any) -> str:
    return str(caught.value.code().name)


def test_everything_but_inference(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("clinic")
        assert await client.is_model_ready("clinic", "v2")
        assert (await client.get_server_metadata()).name == "fuseline"
        about = await client.get_model_metadata("clinic")
        assert list(about.versions) == ["v1", "v2"]
        assert {t.name: t.datatype for t in about.inputs}["age"] == "FP32"
        assert {t.name: list(t.shape) for t in about.outputs}["probabilities"] == [-1, 2]
        config = (await client.get_model_config("clinic", as_json=True))["config"]
        assert config["input"][0] == {
            "name": "picture",
            "data_type": "TYPE_STRING",
            "dims": ["-1"],
            "optional": True,
        }
        assert config["parameters"]["classes"] == {"string_value": "no,yes"}
        stats = (await client.get_inference_statistics("clinic")).model_stats
        assert [s.version for s in stats] == ["v1", "v2"]
        assert stats[0].inference_stats.compute_infer.ns == 5_000_000
        assert len((await client.get_inference_statistics()).model_stats) == 3
        assert [m.state for m in (await client.get_model_repository_index()).models] == ["READY"] * 3
        fake.is_ready = False
        assert not await client.is_server_ready()
        assert not await client.is_model_ready("clinic")
        for refused in (
            client.get_model_metadata("none"),
            client.get_model_config("clinic", "v9"),
            client.is_model_ready("x"),
        ):
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                await refused
        for unknown in (client.load_model("clinic"), client.get_system_shared_memory_status()):
            with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
                await unknown

    over(fake, use)


def test_inference_in_raw_contents(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        picture = InferInput("picture", [2, 1], "BYTES")
        picture.set_data_from_numpy(np.array([[b"\xff\0"], [b""]], dtype=np.object_))
        done = await client.infer("clinic", [age(70, 30.5), picture], model_version="v2", request_id="r1")
        assert done.as_numpy("value").tolist() == [b"yes", b"no"]
        assert done.as_numpy("probabilities").tolist() == [[1 - 0.7, 0.7], [1 - 0.305, 0.305]]
        head = done.get_response()
        assert (head.model_name, head.model_version, head.id) == ("clinic", "v2", "r1")
        call = fake.calls[-1]
        assert (call.door, call.id, call.rows[0]["picture"], call.rows[1]["picture"]) == ("grpc", "r1", b"\xff\0", None)
        assert call.deadline is None
        done = await client.infer("clinic", [age(70)], outputs=[InferRequestedOutput("error")], client_timeout=5)
        assert [o.name for o in done.get_response().outputs] == ["error"]
        assert 3 < fake.calls[-1].deadline - time.monotonic() < 5.5
        await client.infer("clinic", [age(70)], timeout=2_000_000)
        assert 0 < fake.calls[-1].deadline - time.monotonic() < 2

    over(fake, use)


def test_inference_in_typed_contents(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        asked = message("ModelInferRequest")(model_name="clinic")
        for name, datatype, values in (
            ("age", "FP32", {"fp32_contents": [70, 30]}),
            ("sex", "INT64", {"int64_contents": [1, 2]}),
            ("smoker", "BOOL", {"bool_contents": [True, False]}),
            ("note", "BYTES", {"bytes_contents": [b"text", b"\xff"]}),
        ):
            asked.inputs.add(name=name, datatype=datatype, shape=[2], contents=values)
        data = await raw_call(door, "ModelInfer", asked.SerializeToString())
        done = message("ModelInferResponse").FromString(data)
        out = {o.name: o.contents for o in done.outputs}
        assert list(out["value"].bytes_contents) == [b"yes", b""]
        assert list(out["probabilities"].fp64_contents)[:2] == [1 - 0.7, 0.7]
        assert not done.raw_output_contents
        assert fake.calls[0].rows[0] == {"age": 70.0, "sex": 1, "smoker": True, "note": "text"}
        assert fake.calls[0].rows[1]["note"] == b"\xff"

    over(fake, use)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": [{"name": "age", "datatype": "FP32", "shape": [2]}]}, "2 elements, fp32_contents has 0"),
        ({"inputs": [{"name": "age", "datatype": "FP16", "shape": [1]}]}, "raw_input_contents"),
        ({"inputs": [{"name": "age", "datatype": "FP", "shape": [1]}]}, "not a datatype"),
        ({"inputs": [{"name": "age", "datatype": "FP32", "shape": [-1]}]}, "`shape`"),
        ({"inputs": [{"name": "age", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]}, "fit"),
        ({"raw_input_contents": [b"12345678"]}, "0 inputs, but 1 raw"),
        (
            {
                "inputs": [{"name": "age", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1]}}],
                "raw_input_contents": [b"1234"],
            },
            "both contents and raw",
        ),
        (
            {"inputs": [{"name": "age", "datatype": "FP32", "shape": [1]}], "raw_input_contents": [b"12345"]},
            "1 elements of FP32 are 4 bytes, not 5",
        ),
        ({"inputs": [{"name": "note", "datatype": "BYTES", "shape": [9]}]}, "at most 8"),
        ({"id": "x" * 2000}, "`id`"),
        ({"outputs": [{"name": "value", "parameters": {"classification": {"int64_param": 2}}}]}, "classification"),
        ({"outputs": [{"name": "valu"}]}, "did you mean 'value'"),
        ({}, "no rows"),
    ],
)
def test_what_a_caller_may_get_wrong(fake: Any, change: dict[str, Any], text: str) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        asked = message("ModelInferRequest")(model_name="clinic", **change)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_call(door, "ModelInfer", asked.SerializeToString())
        assert code_of(caught) == "INVALID_ARGUMENT"
        assert text in caught.value.details()

    over(fake, use)
    assert fake.calls == []


def test_errors_have_their_code_and_show_nothing_inside(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        asked = message("ModelInferRequest")(model_name="clinic")
        asked.inputs.add(name="age", datatype="FP64", shape=[1], contents={"fp64_contents": [70]})
        for failure in (*(FuselineError(c, "what", "do") for c in (*STATUS, "other")), RuntimeError("/secret")):
            fake.failure = failure
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_call(door, "ModelInfer", asked.SerializeToString())
            status = STATUS.get(failure.code, 500) if isinstance(failure, FuselineError) else 500
            assert code_of(caught) == GRPC[status]
            assert caught.value.details() == ("internal error" if status == 500 else "what (do)")

    over(fake, use)


def test_a_caller_who_leaves_or_whose_time_is_up_cancels_the_work(fake: Any) -> None:
    fake.seconds = 30.0

    async def use(client: InferenceServerClient, door: Listening) -> None:
        asked = message("ModelInferRequest")(model_name="clinic", id="late")
        asked.inputs.add(name="age", datatype="FP64", shape=[1], contents={"fp64_contents": [70]})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_call(door, "ModelInfer", asked.SerializeToString(), timeout=0.3)
        assert code_of(caught) == "DEADLINE_EXCEEDED"
        asked.id = "gone"
        call = asyncio.create_task(raw_call(door, "ModelInfer", asked.SerializeToString()))
        while len(fake.calls) < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        until = time.monotonic() + 5
        while len(fake.cancelled) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.01)

    over(fake, use)
    assert fake.cancelled == ["late", "gone"]


def test_bodies_beyond_the_limit_packed_or_not(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        asked = message("ModelInferRequest")(model_name="clinic", raw_input_contents=[bytes(2 * 2**20)])
        for options in ({}, {"compression": grpc.Compression.Gzip}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_call(door, "ModelInfer", asked.SerializeToString(), **options)
            assert code_of(caught) in ("RESOURCE_EXHAUSTED", "UNIMPLEMENTED")

    over(fake, use)


def test_keys_are_checked_where_they_are_asked_for(fake: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = add(file, "alice")

    async def use(client: InferenceServerClient, door: Listening) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        for refused in (client.infer("clinic", [age(70)]), client.get_model_metadata("clinic")):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                await refused
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            await client.infer("clinic", [age(70)], headers={"authorization": f"Bearer {secret}x"})
        assert fake.calls == []
        for headers in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
            await client.infer("clinic", [age(70)], headers=headers)
            assert fake.calls.pop().key == "alice"

    keyed = SETTINGS.model_copy(update={"keys": str(file)})
    over(fake, use, keyed, Keys(file))
    with pytest.raises(FuselineError, match="keys are asked for"):
        over(fake, use, keyed)


def test_a_port_in_use_is_said(fake: Any) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        with pytest.raises(FuselineError, match="cannot listen") as caught:
            await start(fake, SETTINGS.model_copy(update={"grpc_port": door.port}))
        assert caught.value.code == "port_in_use"

    over(fake, use)


def test_without_grpcio_the_error_names_the_extra(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(FuselineError, match="grpcio") as caught:
        asyncio.run(start(fake, SETTINGS))
    assert caught.value.code == "missing_extra"


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=20))
@given_settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_bytes_never_fail_inside(fake: Any, bodies: list[bytes]) -> None:
    async def use(client: InferenceServerClient, door: Listening) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
            for method in ("ModelInfer", "ModelConfig"):
                call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                for body in bodies:
                    try:
                        await call(body)
                    except grpc.aio.AioRpcError as error:
                        codes.add(error.code().name)

    codes: set[str] = set()
    over(fake, use)
    assert codes <= {"INVALID_ARGUMENT", "NOT_FOUND"}


def test_every_method_and_field_is_the_protocols() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    seen = set()

    def compare(ours: Any, other: Any) -> None:
        if ours.full_name in seen:
            return
        seen.add(ours.full_name)
        assert ours.full_name == other.full_name
        for field in ours.fields:
            twin = other.fields_by_number[field.number]
            assert (field.name, field.type, field.is_repeated) == (twin.name, twin.type, twin.is_repeated)
            if field.enum_type:
                values = {v.name: v.number for v in field.enum_type.values}
                assert values == {v.name: v.number for v in twin.enum_type.values}
            if field.message_type:
                compare(field.message_type, twin.message_type)

    for name, (asked, answered) in methods().items():
        compare(message(asked).DESCRIPTOR, theirs[name].input_type)
        compare(message(answered).DESCRIPTOR, theirs[name].output_type)
    assert len(methods()) == 9
    assert len(seen) > 30


def test_the_committed_descriptor_is_that_of_the_proto_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_protos  # type: ignore[import-not-found]

    assert make_protos.compiled() == make_protos.DESCRIPTOR.read_bytes()
