"""The machine's measured peak: large products of matrices through the very runtime that runs the model.

For openvino the product is built of its own operations: float32, bfloat16 (where the processor has it) by its precision
hint, int8 as a quantised graph has it (8-bit activations behind a FakeQuantize, 8-bit constants behind a scale). For
onnxruntime it is an ONNX file of one node, written by hand: MatMul of float32, MatMulInteger of 8-bit integers
(unsigned by signed, as its quantised graphs have it); onnxruntime computes no bfloat16 on these processors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fuseline.runtime import wire
from fuseline.runtime.backend import cpu_quota
from fuseline.runtime.onnxruntime import options_for
from fuseline.runtime.openvino import import_openvino, open_core

SIZES = (512, 1024, 2048, 4096)
LONG_ENOUGH = 0.01
"""seconds of one product, below which a larger one is tried, too: a short one may end before all threads are awake,
and a long one seldom runs undisturbed"""
SECONDS = 0.3
"""of one measurement; the best run counts, since a neighbour's load only ever adds"""

Product = Callable[[int], Callable[[], object]]
"""size -> what multiplies two matrices of it"""


def measure_peak(backend: str, threads: int | None = None) -> dict[str, float]:
    """GFLOP/s by number format: float32, bfloat16 and int8, as far as this backend computes with them here.

    `threads`: that work on one product; None: all that the process may use.
    """
    threads = threads or cpu_quota()
    products = _openvino(threads) if backend == "openvino" else _onnxruntime(threads)
    return {name: _best(product) for name, product in products.items()}


def _best(product: Product) -> float:
    best = 0.0
    for size in SIZES:
        run = product(size)
        run()  # the first one packs the weights
        shortest = float("inf")
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            run()
            shortest = min(shortest, time.perf_counter() - start)
        best = max(best, 2e-9 * size**3 / shortest)
        if shortest > LONG_ENOUGH:
            break
    return best


def _onnxruntime(threads: int) -> dict[str, Product]:
    import onnxruntime as ort

    def product(op: str, left: Any, right: Any, kinds: tuple[int, int, int], size: int) -> Callable[[], object]:
        weights = np.ones((size, size), dtype=right)
        model = wire.product_model(op, *kinds, size, weights.tobytes())
        session = ort.InferenceSession(model, options_for(threads), providers=["CPUExecutionProvider"])
        x = np.ones((size, size), dtype=left)
        return lambda: session.run(None, {"x": x})

    floats, integers = (wire.FLOAT,) * 3, (wire.UINT8, wire.INT8, wire.INT32)
    return {
        "float32": lambda size: product("MatMul", np.float32, np.float32, floats, size),
        "int8": lambda size: product("MatMulInteger", np.uint8, np.int8, integers, size),
    }


def _openvino(threads: int) -> dict[str, Product]:
    ov = import_openvino()
    ops = ov.opset8
    core = open_core(ov)

    def product(hint: str, whole: bool, size: int) -> Callable[[], object]:
        x = ops.parameter([size, size], np.float32, name="x")
        if whole:
            low, high = np.float32(0), np.float32(255 / 64)
            left = ops.fake_quantize(x, low, high, low, high, 256)
            right = ops.multiply(ops.convert(np.ones((size, size), np.int8), np.float32), np.float32(1 / 64))
        else:
            left, right = x, ops.constant(np.ones((size, size), np.float32))
        model = ov.Model([ops.matmul(left, right, False, False)], [x], "product")
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
        options["PERFORMANCE_HINT"] = "LATENCY"
        request = core.compile_model(model, "CPU", {**options, "ENABLE_CPU_PINNING": False}).create_infer_request()
        feed = {"x": np.ones((size, size), np.float32)}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)

    out: dict[str, Product] = {"float32": lambda size: product("f32", False, size)}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        out["bfloat16"] = lambda size: product("bf16", False, size)
    return {**out, "int8": lambda size: product("f32", True, size)}
