"""The wire format, against Triton's own client as the other side."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http import InferInput, InferRequestedOutput, InferResult
from tritonclient.http._utils import _get_inference_request

from fuseline.errors import FuselineError
from fuseline.serve.settings import Settings
from fuseline.serve.v2.codec import InferRequest, Tensor, Wanted, decode_request, encode_response
from fuseline.serve.v2.elements import NUMPY

QUIET = given_settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SETTINGS = Settings(max_rows=64)


def request(inputs: list[InferInput], outputs: list[InferRequestedOutput] | None = None, **other: Any) -> InferRequest:
    """What we read of a request that Triton's client wrote."""
    body, size = _get_inference_request(
        inputs=inputs,
        request_id=other.get("request_id", ""),
        outputs=outputs,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=other.get("timeout"),
        custom_parameters=other.get("custom_parameters"),
    )
    return decode_request(body, None if size is None else str(size), SETTINGS)


def decode(data: Any, tail: bytes = b"", header: str | None = "") -> InferRequest:
    """`header`: by default the right one where there are bytes after the JSON, else none."""
    text = json.dumps(data).encode()
    if header == "":
        header = str(len(text)) if tail else None
    return decode_request(text + tail, header, SETTINGS)


def tensor(**fields: Any) -> dict[str, Any]:
    entry = {"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]} | fields
    return {"inputs": [{k: v for k, v in entry.items() if v is not None}]}


def refusal(*args: Any, **kwargs: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        decode(*args, **kwargs)
    return caught.value


def an_array(dtype: np.dtype) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))


NUMBERS = st.sampled_from(sorted(NUMPY)).flatmap(lambda t: st.tuples(st.just(t), an_array(NUMPY[t])))
BYTES_LISTS = st.lists(st.binary(max_size=20), min_size=1, max_size=8)
TEXT_LISTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8)


@QUIET
@given(NUMBERS, st.booleans())
def test_numbers_come_as_the_client_sent_them(given_: tuple[str, np.ndarray], binary: bool) -> None:
    datatype, array = given_
    binary = binary or not np.isfinite(array).all()  # JSON has no NaN
    sent = InferInput("x", list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)
    (read,) = request([sent]).inputs
    assert (read.datatype, read.shape) == (datatype, array.shape)
    assert isinstance(read.data, np.ndarray)
    assert read.data.dtype == array.dtype
    assert read.data.tobytes() == array.tobytes()


@QUIET
@given(NUMBERS)
def test_nested_data_is_read_as_flat(given_: tuple[str, np.ndarray]) -> None:
    datatype, array = given_
    array = np.nan_to_num(array, posinf=1, neginf=0)
    entry = {"name": "x", "shape": list(array.shape), "datatype": datatype, "data": array.tolist()}
    (read,) = decode({"inputs": [entry]}).inputs
    assert isinstance(read.data, np.ndarray)
    assert read.data.tobytes() == array.tobytes()


@QUIET
@given(BYTES_LISTS, TEXT_LISTS)
def test_bytes_stay_bytes_in_binary_and_are_text_in_json(raw: list[bytes], texts: list[str]) -> None:
    a = InferInput("a", [len(raw)], "BYTES").set_data_from_numpy(np.array(raw, dtype=np.object_))
    b = InferInput("b", [len(texts), 1], "BYTES")
    b.set_data_from_numpy(np.array(texts, dtype=np.object_).reshape(-1, 1), binary_data=False)
    read = request([a, b]).inputs
    assert read[0].data == raw
    assert read[1].data == texts


@QUIET
@given(st.lists(NUMBERS, min_size=1, max_size=4), BYTES_LISTS, st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_client_reads_our_answers(
    numbers: list[tuple[str, np.ndarray]], raw: list[bytes], binary: list[bool]
) -> None:
    tensors = [Tensor(f"t{i}", t, a.shape, a.reshape(-1)) for i, (t, a) in enumerate(numbers)]
    wanted = [Wanted(t.name, b) for t, b in zip(tensors, binary, strict=False)]
    tensors.append(Tensor("b", "BYTES", (len(raw),), raw))
    asked = InferRequest((), (*wanted, Wanted("b", True)))
    done = encode_response({"model_name": "m", "model_version": "1"}, tensors, asked)
    result = InferResult.from_response_body(done.body, header_length=done.header_length)
    assert result.as_numpy("b").tolist() == raw
    for i, (_, array) in enumerate(numbers):
        got = result.as_numpy(f"t{i}")
        assert got.shape == array.shape
        if binary[i]:
            assert got.tobytes() == array.tobytes()
        else:
            expected = array if array.dtype.kind != "f" else np.where(np.isfinite(array), array, np.nan)
            np.testing.assert_array_equal(got.astype(array.dtype), expected)


@QUIET
@given(st.lists(st.floats(), min_size=1))
def test_json_keeps_every_bit_of_a_float(floats: list[float]) -> None:
    done = encode_response({}, [Tensor("p", "FP64", (len(floats),), np.array(floats))], InferRequest(()))
    data = json.loads(done.body)["outputs"][0]["data"]
    assert data == [f if math.isfinite(f) else None for f in floats]
    assert done.header_length is None


@QUIET
@given(st.binary(max_size=200), st.none() | st.text("0123456789", max_size=3))
def test_random_bytes_are_refused(body: bytes, header: str | None) -> None:
    with pytest.raises(FuselineError) as caught:
        decode_request(body, header, SETTINGS)
    assert caught.value.code in ("bad_request", "too_large")


@QUIET
@given(st.data())
def test_one_wrong_byte_is_refused_or_read(data: st.DataObject) -> None:
    sent = InferInput("x", [2], "BYTES").set_data_from_numpy(np.array([b"ab", b"cde"], dtype=np.object_))
    good, size = _get_inference_request([sent], "id", None, 0, False, False, 0, None, None)
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for tried in (bytes(body), bytes(body[:cut])):
        refused = ""
        try:
            decode_request(tried, str(size), SETTINGS)
        except FuselineError as error:
            refused = error.code
        assert refused in ("", "bad_request", "too_large")


def test_outputs_parameters_and_id_are_read() -> None:
    sent = InferInput("x", [1], "INT64").set_data_from_numpy(np.array([7]))
    outputs = [InferRequestedOutput("a", binary_data=True), InferRequestedOutput("b", binary_data=False)]
    read = request([sent], outputs, request_id="r1", timeout=5000, custom_parameters={"k": "v"})
    assert read.outputs[0] == Wanted("a", True)
    assert not read.outputs[1].binary
    assert read.id == "r1"
    assert read.parameters == {"timeout": 5000, "k": "v"}
    assert request([sent]).parameters == {"binary_data_output": True}


def test_nulls_are_nan_in_floats_and_none_elsewhere() -> None:
    floats = decode(tensor(datatype="FP32", data=[None, 1])).inputs[0].data
    assert isinstance(floats, np.ndarray)
    assert math.isnan(floats[0])
    assert decode(tensor(datatype="INT64", data=[None, 1])).inputs[0].data == [None, 1]
    assert decode(tensor(datatype="BOOL", data=[True, None])).inputs[0].data == [True, None]
    assert decode(tensor(datatype="BYTES", data=["", None])).inputs[0].data == ["", None]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"shape": [3]}, "has 3 elements, the data 2"),
        ({"shape": [-2]}, "`shape` is not a list of sizes"),
        ({"shape": [2.0]}, "`shape`"),
        ({"shape": [True, 2]}, "`shape`"),
        ({"shape": "2"}, "`shape`"),
        ({"shape": None}, "`shape`"),
        ({"shape": [1] * 9}, "`shape`"),
        ({"shape": [2**63]}, "`shape`"),
        ({"shape": [2**62, 2**62]}, "too many elements"),
        ({"shape": [65]}, "at most 64"),
        ({"shape": [2, 1], "data": [[1], 2]}, "not nested as its shape"),
        ({"shape": [2, 1], "data": [[1, 2], [3]]}, "not nested"),
        ({"shape": [2], "data": [[1], [2]]}, "nested"),
        ({"shape": [2, 1], "data": [[[1]], [[2]]]}, "nested deeper"),
        ({"shape": [], "data": [[1]]}, "nested"),
        ({"datatype": "INT8", "data": [128, 0]}, "element 0 does not fit INT8"),
        ({"datatype": "UINT8", "data": [0, -1]}, "element 1 does not fit"),
        ({"datatype": "UINT64", "data": [2**64, 0]}, "does not fit"),
        ({"data": [1.5, 2]}, "element 0 is not of the datatype INT32"),
        ({"data": [True, 2]}, "element 0"),
        ({"data": ["1", 2]}, "element 0"),
        ({"datatype": "BOOL", "data": [1, 0]}, "element 0"),
        ({"datatype": "FP32", "data": [True, 0]}, "element 0"),
        ({"datatype": "FP64", "data": [10**400, 0]}, "an integer does not fit FP64"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "element 1"),
        ({"datatype": "BYTES", "data": ["a", {}]}, "element 1"),
        ({"datatype": "BF16"}, "send FP32"),
        ({"datatype": "float32"}, "not a datatype"),
        ({"datatype": None}, "not a datatype"),
        ({"datatype": ["INT32"]}, "not a datatype"),
        ({"data": None}, "`data` is not a list"),
        ({"data": 5}, "`data` is not a list"),
        ({"name": None}, "with a name"),
        ({"name": 5}, "with a name"),
        ({"parameters": []}, "`parameters` is not an object"),
        ({"parameters": {"shared_memory_region": "r"}, "data": None}, "shared memory"),
        ({"parameters": {"binary_data_size": 8}}, "both data and binary_data_size"),
        ({"parameters": {"binary_data_size": -1}, "data": None}, "not a number of bytes"),
        ({"parameters": {"binary_data_size": True}, "data": None}, "not a number of bytes"),
        ({"parameters": {"binary_data_size": 8}, "data": None}, "Inference-Header-Content-Length is missing"),
    ],
)
def test_a_tensor_that_is_wrong_says_how(fields: dict[str, Any], text: str) -> None:
    entry = tensor(**fields)
    assert text in str(refusal(entry))


@pytest.mark.parametrize(
    ("size", "tail", "text"),
    [
        (8, b"1234567", "only 7 are left"),
        (7, b"1234567", "2 elements of INT32 are 8 bytes, not 7"),
        (8, b"123456789", "1 bytes are left after the last tensor"),
        (2**70, b"12345678", "by its binary_data_size"),
    ],
)
def test_binary_sizes_that_do_not_fit(size: int, tail: bytes, text: str) -> None:
    assert text in str(refusal(tensor(data=None, parameters={"binary_data_size": size}), tail))


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"\1\0\0\0a", "the data ends after 1"),
        (b"\1\0\0\0a\1\0\0\0", "element 1 has 1 bytes by its length, 0 are left"),
        (b"\xff\xff\xff\xffa", "element 0 has 4294967295 bytes"),
        (b"\1\0\0\0a\1\0\0\0bc", "1 bytes are left after 2 BYTES elements"),
        (b"\1\0\0\0a\1\0\0", "the data ends after 1"),
    ],
)
def test_bytes_elements_that_do_not_fit(tail: bytes, text: str) -> None:
    entry = tensor(datatype="BYTES", data=None, parameters={"binary_data_size": len(tail)})
    assert text in str(refusal(entry, tail))


def test_a_binary_bool_is_0_or_1() -> None:
    entry = tensor(datatype="BOOL", data=None, parameters={"binary_data_size": 2})
    assert decode(entry, b"\1\0").inputs[0].data.tolist() == [True, False]  # type: ignore[union-attr]
    assert "neither 0 nor 1" in str(refusal(entry, b"\1\2"))


@pytest.mark.parametrize("header", ["-1", "99999", "abc", " 5", "9" * 30, "٣"])
def test_a_header_length_that_is_wrong(header: str) -> None:
    assert "Inference-Header-Content-Length" in str(refusal(tensor(), header=header))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "JSON object"),
        ({}, "`inputs`"),
        ({"inputs": []}, "`inputs`"),
        ({"input": [1]}, "'input' meant"),
        ({"inputs": {}}, "`inputs`"),
        ({"inputs": [5]}, "with a name"),
        (tensor() | {"id": 5}, "`id`"),
        (tensor() | {"id": "x" * 2000}, "`id`"),
        (tensor() | {"parameters": 5}, "`parameters`"),
        (tensor() | {"outputs": 5}, "`outputs`"),
        (tensor() | {"outputs": [5]}, "`outputs`"),
        (tensor() | {"outputs": [{"name": "p", "parameters": {"binary_data": 1}}]}, "binary_data"),
        (tensor() | {"outputs": [{"name": "p", "parameters": {"classification": 3}}]}, "classification"),
        (tensor() | {"outputs": [{"name": "p", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    ],
)
def test_a_request_that_is_wrong_says_how(data: Any, text: str) -> None:
    error = refusal(data)
    assert error.code == "bad_request"
    assert text in str(error)
