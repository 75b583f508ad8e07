"""The arithmetic beneath: ranges, blocks, packing, biases, and the graph that is taken apart and written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fuseline.errors import FuselineError
from fuseline.lab.compress.calibrate import METHODS, Watched, watch
from fuseline.lab.compress.fusions import prepare
from fuseline.lab.compress.onnx_graph import WEIGHTS, Graph
from fuseline.lab.compress.onnx_rounding import round_graph
from fuseline.lab.compress.onnx_run import few_rows, runner
from fuseline.lab.compress.onnx_weights import blocks, by_channel

RNG = np.random.default_rng(4)
NAMES = ("picture", "note")


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[Any], kind: int = 1) -> Graph:
    """A graph from `x` to `y` whose constants count as trained."""
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info("x", kind, shape),
                helper.make_tensor_value_info("present", 9, ["batch", 2]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    graph = Graph(proto, NAMES, constants)
    prepare(graph)
    return graph


def batch(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": x, "present": np.ones((len(x), 2), bool)}


def linear(width: int = 64, out: int = 48) -> tuple[Graph, np.ndarray]:
    """A linear layer of the second input's encoder, as the exporter writes it."""
    weight = RNG.normal(size=(out, width)).astype(np.float32)
    bias = RNG.normal(size=out).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], name="/w_turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["m"], name="encoders.1.layer/MatMul_1"),
        helper.make_node("Add", ["m", "b"], ["y"], name="encoders.1.layer/Add_1"),
    ]
    return graph_of(nodes, {"w": weight, "b": bias}, ["batch", "T", width]), weight


def convolution(channels: int = 16) -> Graph:
    """Depthwise, then pointwise with a residual sum, as in a mobile net; far from zero mean."""
    deep = RNG.normal(size=(channels, 1, 3, 3)).astype(np.float32)
    point = RNG.normal(size=(channels, channels, 1, 1), scale=0.3).astype(np.float32)
    zero = np.zeros(channels, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "d", "b"], ["c"], name="encoders.0.a/Conv_1", group=channels, pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="encoders.0.a/Relu_1"),
        helper.make_node("Conv", ["r", "p", "b"], ["q"], name="encoders.0.b/Conv_2"),
        helper.make_node("Conv", ["q", "p"], ["s"], name="encoders.0.c/Conv_3"),
        helper.make_node("Add", ["q", "s"], ["y"], name="encoders.0/Add_1"),
    ]
    return graph_of(nodes, {"d": deep, "p": point, "b": zero}, ["batch", channels, "H", "W"])


# --- ranges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e5])
def test_the_histogram_grows_with_what_it_sees(scale: float) -> None:
    seen, parts = Watched(), [RNG.normal(size=(5, 7 * (i + 1))).astype(np.float32) * scale * 3**i for i in range(5)]
    for part in parts:
        seen.see(part)
    values = np.concatenate([p.reshape(-1) for p in parts])
    assert seen.counts.sum() == values.size
    assert seen.range("minmax") == (values.min(), values.max())
    for share in (60.0, 90.0, 99.0):
        low, high = seen._percentile(share)
        step = 2 * seen.reach / len(seen.counts)
        assert low == pytest.approx(np.quantile(values, 1 - share / 100), abs=3 * step + 0.02 * seen.reach)
        assert high == pytest.approx(np.quantile(values, share / 100), abs=3 * step + 0.02 * seen.reach)


def test_a_range_holds_zero_and_no_more_than_was_seen() -> None:
    seen = Watched()
    seen.see(np.linspace(2, 3, 50, dtype=np.float32))
    for method in METHODS:
        low, high = seen.range(method)  # type: ignore[arg-type]
        assert low == 0
        assert 2 < high <= 3
    nothing = Watched()
    nothing.see(np.zeros(9, np.float32))
    assert [nothing.range(method) for method in METHODS] == [(0, 0)] * 3  # type: ignore[arg-type]


def test_entropy_cuts_off_what_is_rare() -> None:
    seen = Watched()
    seen.see(RNG.normal(size=200_000).astype(np.float32))
    seen.see(np.array([40.0], np.float32))
    assert seen.range("minmax")[1] == 40
    assert 2.5 < seen.range("entropy")[1] < 10


def test_large_tensors_are_sampled_over_all_channels() -> None:
    seen = Watched()
    values = np.zeros((2**12, 256), np.float32)
    values[:, 3] = 5  # a stride of a power of two would see this channel always or never
    seen.see(values)
    assert seen.counts.sum() < 2**18
    share = seen.counts[-len(seen.counts) // 4 :].sum() / seen.counts.sum()
    assert share == pytest.approx(1 / 256, rel=0.05)


def test_batches_of_any_size_give_the_same_means() -> None:
    graph, _ = linear()
    x = RNG.normal(size=(7, 5, 64), loc=2).astype(np.float32)
    watched = [
        watch(graph, {"x": -1, "m": None}, [batch(x[i : i + step]) for i in range(0, 7, step)]) for step in (1, 3, 7)
    ]
    for seen in watched:
        np.testing.assert_allclose(seen["x"].mean(), x.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(seen["m"].high, watched[0]["m"].high, rtol=1e-5)
    assert [len(few["x"]) for few in few_rows([batch(x)], 4)] == [4, 3]


def test_values_that_are_not_finite() -> None:
    graph, _ = linear()
    with pytest.raises(FuselineError, match="not finite") as caught:
        watch(graph, {"m": None}, [batch(np.full((1, 2, 64), np.inf, np.float32))])
    assert caught.value.code == "quantise_failed"


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "size", "limit"), [(8, 128, 0.01), (4, 32, 0.12)])
@pytest.mark.parametrize("width", [32, 100, 256])
def test_blocks_are_near_the_weight(bits: int, size: int, limit: float, width: int) -> None:
    weight = RNG.normal(size=(width, 40)).astype(np.float32)
    weight[:, 0] = 0
    values, scales = blocks(weight, bits, size)
    assert values.min() >= -(2 ** (bits - 1))
    assert values.max() <= 2 ** (bits - 1) - 1
    back = (values * scales).reshape(40, -1)[:, :width].T
    assert np.abs(back - weight).mean() / np.abs(weight).mean() < limit
    assert (back[:, 0] == 0).all()


def test_channels_have_their_own_scale() -> None:
    weight = RNG.normal(size=(6, 4, 3)).astype(np.float32) * np.geomspace(1e-3, 1e3, 6, dtype=np.float32)[:, None, None]
    values, scale = by_channel(weight, 0)
    assert scale.shape == (6, 1, 1)
    assert (np.abs(values).max(axis=(1, 2)) == 127).all()
    np.testing.assert_allclose(values * scale, weight, atol=0, rtol=1, equal_nan=False)
    assert (np.abs(values * scale - weight) <= scale / 2 * 1.0001).all()


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "weights-int8", "weights-int4"])
@pytest.mark.parametrize("width", [64, 100])
def test_a_linear_layer(precision: str, width: int) -> None:
    graph, _ = linear(width)
    x = RNG.normal(size=(4, 6, width), loc=0.5).astype(np.float32)
    before = runner(graph)(batch(x))["y"]
    round_graph(graph, {"note": precision}, (), [batch(x)], "minmax")
    after = runner(graph)(batch(x))["y"]
    limit = 0.12 if precision == "weights-int4" else 0.02
    assert np.abs(after - before).mean() / before.std() < limit
    # What rounding does to the mean of each channel is in its bias.
    assert np.abs((after - before).mean((0, 1))).max() / before.std() < (0.06 if precision == "weights-int4" else 0.01)


@pytest.mark.parametrize("precision", ["int8", "weights-int8"])
def test_the_mean_of_a_convolution_stays(precision: str) -> None:
    x = RNG.normal(size=(6, 16, 24, 24), loc=3).astype(np.float32)
    gaps = []
    for calibration in ([batch(x)], [batch(x - 3)]):  # the second tells of the wrong mean
        state = np.random.default_rng(1)
        globals()["RNG"], kept = state, RNG
        graph = convolution()
        globals()["RNG"] = kept
        before = runner(graph)(batch(x))["y"]
        if precision == "int8":
            calibration = [*calibration, *([batch(x)] if calibration[0]["x"] is not x else [])]
        round_graph(graph, {"picture": precision}, (), calibration, "minmax")
        after = runner(graph)(batch(x))["y"]
        gaps.append(np.abs((after - before).mean((0, 2, 3))).mean() / before.std())
    assert gaps[0] < 0.01
    assert gaps[0] < gaps[1]


def test_a_convolution_is_integers_from_end_to_end() -> None:
    """What is between two convolutions is rounded once, behind its Relu; their sum is rounded, too."""
    graph = convolution()
    round_graph(graph, {"picture": "int8"}, (), [batch(RNG.normal(size=(2, 16, 8, 8)).astype(np.float32))], "minmax")
    quantised = {n.input[0] for n in graph.nodes.values() if n.op_type == "QuantizeLinear"}
    assert quantised == {"x", "r", "q", "s", "y"}
    assert {n.op_type for n in graph.sorted()} == {"QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "Add"}


def test_a_channel_of_zero_weights_with_a_large_bias() -> None:
    weight = RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)
    weight[2] = 0
    bias = np.array([0, 1, 5000, -1], np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="encoders.0/Conv_1")]
    graph = graph_of(nodes, {"w": weight, "b": bias}, ["batch", 3, "H", "W"])
    x = RNG.normal(size=(2, 3, 4, 4)).astype(np.float32)
    before = runner(graph)(batch(x))["y"]
    round_graph(graph, {"picture": "int8"}, (), [batch(x)], "minmax")
    after = runner(graph)(batch(x))["y"]
    assert np.abs(after - before).max() < 25  # a step of the output's range, which the bias makes wide


@pytest.mark.parametrize("precision", ["int8", "weights-int4"])
def test_tables_are_read_in_int8(precision: str) -> None:
    table = RNG.normal(size=(500, 24)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["t", "x"], ["a"], name="encoders.1.embed/Gather_1"),
        helper.make_node("Gather", ["t", "x"], ["b"], name="encoders.1.again/Gather_2"),
        helper.make_node("Add", ["a", "b"], ["y"], name="encoders.1/Add_1"),
    ]
    graph = graph_of(nodes, {"t": table}, ["batch", "T"], TensorProto.INT64)
    x = RNG.integers(0, 500, (3, 9))
    round_graph(graph, {"note": precision}, (), [batch(x)], "minmax")
    np.testing.assert_allclose(runner(graph)(batch(x))["y"], 2 * table[x], atol=np.abs(table).max() / 127)
    constants = {t.name: len(t.raw_data) for t in graph.proto().graph.initializer}
    assert sum(constants.values()) == 500 * (24 + 4)  # one table for both, and nothing of the old one


def test_what_was_not_trained_is_left_alone() -> None:
    """Mel filters and the like: no weights of the state dict."""
    basis = RNG.normal(size=(64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "model.encoders.1.mel"], ["y"], name="encoders.1.mel/MatMul_1")]
    graph = graph_of(nodes, {"model.encoders.1.mel": basis}, ["batch", 64])
    graph._learnt.clear()
    notes = round_graph(graph, {"note": "weights-int8"}, (), [], "minmax")
    assert [n.op_type for n in graph.nodes.values()] == ["MatMul"]
    assert notes == ["note has no weights that weights-int8 is for, it stays in float"]


# --- the graph ------------------------------------------------------------------------------------------------------


def test_weights_are_folded_and_gemm_is_split() -> None:
    weight, bias = RNG.normal(size=(5, 64)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["w", "two"], ["w2"], name="encoders.1.a/Mul_1"),
        helper.make_node("Gemm", ["x", "w2", "b"], ["g"], name="encoders.1.a/Gemm_1", transB=1),
        helper.make_node("Gemm", ["g", "w2", ""], ["y"], name="encoders.1.b/Gemm_2", alpha=2.0),
    ]
    graph = graph_of(nodes, {"w": weight, "b": bias, "two": np.float32(2)}, ["batch", 64])
    ops = {name: n.op_type for name, n in graph.nodes.items()}
    assert ops["encoders.1.a/Gemm_1"] == "MatMul"
    assert ops["encoders.1.b/Gemm_2"] == "Gemm"  # a factor of its own: left as it is
    x = RNG.normal(size=(3, 64)).astype(np.float32)
    got = runner(graph)(batch(x))["y"]
    np.testing.assert_allclose(got, 2 * ((x @ (2 * weight).T + bias) @ (2 * weight)), rtol=1e-4, atol=1e-3)


def test_small_weights_stay_in_the_graph(tmp_path: Path) -> None:
    graph, weight = linear()
    assert graph.write(tmp_path) == ("graph.onnx",)
    again = onnx.load(tmp_path / "graph.onnx").graph
    stored = [onnx.numpy_helper.to_array(t) for t in again.initializer]
    assert any(np.array_equal(array, weight.T) for array in stored)
    assert [n.op_type for n in again.node] == ["MatMul", "Add"]


def test_large_weights_lie_outside(tmp_path: Path) -> None:
    graph, weight = linear(512, 256)
    assert graph.write(tmp_path) == ("graph.onnx", WEIGHTS)
    assert (tmp_path / "graph.onnx").stat().st_size < 5000
    again = onnx.load(tmp_path / "graph.onnx").graph
    assert any(np.array_equal(onnx.numpy_helper.to_array(t), weight.T) for t in again.initializer)


def test_bodies_of_branches_are_seen() -> None:
    """A branch reads tensors from around it: their makers are needed, and folding leaves it alone."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["o"])], "inner", [], [helper.make_tensor_value_info("o", 1, None)]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="encoders.1/Relu_1"),
        helper.make_node("If", ["c"], ["y"], name="encoders.1/If_1", then_branch=inner, else_branch=inner),
    ]
    graph = graph_of(nodes, {"c": np.array(True)}, ["batch", 4])
    assert [n.op_type for n in graph.sorted()] == ["Relu", "If"]
    assert [n.op_type for n in graph.users()["r"]] == ["If"]
    assert runner(graph)(batch(-np.ones((2, 4), np.float32)))["y"].max() == 0
