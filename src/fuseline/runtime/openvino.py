"""OpenVINO on the CPU. The extra `openvino`."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import platform
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.package import Package, read_buffer, read_member
from fuseline.runtime.backend import OUTPUT
from fuseline.tasks.decoding import Steps

log = logging.getLogger(__name__)

GRAPH, WEIGHTS, BLOB = "openvino.xml", "openvino.bin", "openvino.blob"
HALF = frozenset(("bfloat16", "bf16"))
BYTES = frozenset(("int8",))
IN_FLOAT = {"LP_TRANSFORMS_MODE": False}
"""leaves an int8 graph's rounding where it is, and computes between it in float32"""
_importing = threading.Lock()


def import_openvino() -> Any:
    """The module `openvino`, without its telemetry. Raises FuselineError ``missing_extra``.

    Left alone, `import openvino` starts a process that tells a web analytics service of it, and leaves files in the
    home folder. It does neither where the package `openvino_telemetry` cannot be imported, and so it cannot.
    """
    telemetry = "openvino_telemetry"
    with _importing:
        before = sys.modules.get(telemetry)
        sys.modules[telemetry] = None  # type: ignore[assignment]  # what makes an import of it fail
        try:
            return importlib.import_module("openvino")
        except ImportError as error:
            raise FuselineError(
                "missing_extra", f"this package runs with OpenVINO: {error}", "pip install 'fuseline[openvino]'"
            ) from None
        finally:
            if before is None:
                del sys.modules[telemetry]
            else:
                sys.modules[telemetry] = before


def open_core(ov: Any) -> Any:
    """A `Core` whose CPU plugin is loaded.

    The plugin lays a signal stack of its own under the thread that loads it, and frees it when it is unloaded, from
    whatever thread: a Ctrl-C in the first one would then be a segmentation fault. So a thread that ends loads it.
    """
    core = ov.Core()
    loading = threading.Thread(target=core.get_property, args=("CPU", "FULL_DEVICE_NAME"))
    loading.start()
    loading.join()
    return core


class OpenVino:
    """Safe to call from several threads; up to `lanes` of them at the same time, others wait.

    Computes in float32 unless the package says that it was measured in bfloat16: OpenVINO's own default would be
    bfloat16 wherever the processor has it, and answers would change with the machine. For the same reason an int8 graph
    computes in float32, rounded as it was proven, where this processor's products of bytes overflow (see overflows).

    Arrays are read where they lie. What a batch took is given back after it, as onnxruntime does without its arena:
    OpenVINO would keep the memory of the largest batch (ResNet-50 with BERT-base, 16 rows: 100 MB of 190), and
    freeing it costs less than can be measured. Threads are not tied to processors: several processes would be tied
    to the same ones (two of one thread each on two processors: 1.1 to 1.5 times as fast untied).
    """

    kind = "openvino"
    steps: Steps | None = None  # packages that answer step by step hold no graph for it

    def __init__(self, package: Package, threads: int, lanes: int = 1, *, count: bool = False) -> None:
        """`threads` of one batch. `count`: also take the time of every node."""
        ov = import_openvino()
        core = open_core(ov)
        options, notes = options_for(core, package, threads, lanes)
        if count:
            options["PERF_COUNT"] = True
        self.model, self._weights, said = open_model(ov, core, package, options)
        self.notes = (*notes, *said)
        self.inputs = {name for i in self.model.inputs for name in i.get_names()}
        self.outputs = [_output(o) for o in self.model.outputs]

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.counted(arrays)[0]

    def counted(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Any]:
        """The outputs, and the request that made them."""
        # A request of its own for every batch: it costs 14 µs, and holds the batch no longer than needed.
        request = self.model.create_infer_request()
        values = request.infer({k: v for k, v in arrays.items() if k in self.inputs}, share_inputs=True)
        out = {name: values[i] for i, name in enumerate(self.outputs)}
        with contextlib.suppress(RuntimeError):  # another batch is running: the last one gives the memory back
            self.model.release_memory()
        return out, request


def _output(output: Any) -> str:
    names = sorted(output.get_names(), key=lambda name: (not name.startswith(OUTPUT), name))
    return str(names[0]).removeprefix(OUTPUT)


_overflows: list[bool] = []


def overflows(core: Any) -> bool:
    """Whether int8 layers saturate on this processor, as those of x86 without VNNI do: two products of a uint8 with an
    int8 are added in 16 bits there (`vpmaddubsw`), and a layer's answers are wrong by any amount. Found out by a
    product of the largest numbers, since no system tells of its processor as another does."""
    if not _overflows:
        op = importlib.import_module("openvino.opset13")
        ov = import_openvino()
        wide = 64
        x = op.parameter([-1, wide], np.float32)
        ends = [op.constant(np.float32(v)) for v in (0, 255, 0, 255)]
        weight = op.convert(op.constant(np.full((wide, wide), 127, np.int8)), np.float32)
        scaled = op.multiply(weight, op.constant(np.ones((1, wide), np.float32)))
        out = op.matmul(op.fake_quantize(x, *ends, 256), scaled, False, False)
        model = core.compile_model(ov.Model([out], [x], "overflow"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = model(np.full((1, wide), 255, np.float32))[0]
        _overflows.append(bool(np.abs(found - 255 * 127 * wide).max() > 1))
    return _overflows[0]


def options_for(core: Any, package: Package, threads: int, lanes: int = 1) -> tuple[dict[str, Any], tuple[str, ...]]:
    """How the graph is compiled, and what is to be said of it."""
    half = bool(package.precisions("openvino") & HALF)
    notes: tuple[str, ...] = ()
    if half and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        half, notes = False, ("this processor has no bfloat16, float32 is used",)
    if package.precisions("openvino") & BYTES and overflows(core):
        notes = (*notes, "this processor adds products of bytes in 16 bits (it has no VNNI): float32 is used for int8")
        exact: dict[str, Any] = IN_FLOAT
    else:
        exact = {}
    options = {
        **exact,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": threads * lanes,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return options, notes


def open_model(
    ov: Any, core: Any, package: Package, options: Mapping[str, Any]
) -> tuple[Any, np.ndarray | None, tuple[str, ...]]:
    """The package's graph compiled, out of `openvino.blob` where that was made on such a machine, else out of the
    graph; the memory that it reads its constants from, which must live as long; and what is to be said of it.

    Raises FuselineError ``bad_package``.
    """
    notes: tuple[str, ...] = ()
    try:
        if BLOB in package.manifest["members"]:
            head, _, blob = read_member(package, BLOB).partition(b"\n")
            if head == fitting(ov, core, package, options):
                try:
                    return core.import_model(blob, "CPU", dict(options)), None, ()
                except RuntimeError as error:
                    log.info("%s cannot be used: %s", BLOB, error)
            notes = (f"{BLOB} was not made for this processor and OpenVINO; the graph was compiled anew",)
            log.info("%s: %s", package.name, notes[0])
        graph, weights = read_graph(ov, core, package)
        return core.compile_model(graph, "CPU", dict(options)), weights, notes
    except RuntimeError as error:
        raise FuselineError(
            "bad_package", f"OpenVINO cannot load {GRAPH}: {error}", "upgrade openvino, or export again"
        ) from None


def read_graph(ov: Any, core: Any, package: Package) -> tuple[Any, np.ndarray]:
    """The graph over the very bytes whose hash was checked, and these bytes: OpenVINO reads the constants where they
    lie, for as long as the graph or what was compiled of it lives, and does not hold them itself.

    Raises FuselineError ``bad_package``.
    """
    graph = read_member(package, GRAPH)
    # OpenVINO takes what it is given for whatever it looks like. An ONNX graph could name any file of this machine as
    # its weights; XML cannot.
    if not graph.lstrip().startswith((b"<?xml", b"<net")):
        raise FuselineError("bad_package", f"{GRAPH} is not XML", "export it again")
    weights = np.frombuffer(read_buffer(package, WEIGHTS), dtype=np.uint8)
    if not len(weights):
        return core.read_model(model=graph), weights
    return core.read_model(model=graph, weights=ov.Tensor(weights, shared_memory=True)), weights


def fitting(ov: Any, core: Any, package: Package, options: Mapping[str, Any]) -> bytes:
    """One line that says what a compiled graph is good for: the first of `openvino.blob`."""
    members = package.manifest["members"]
    facts = {
        "openvino": ov.__version__,
        "machine": platform.machine(),
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "precision": options["INFERENCE_PRECISION_HINT"],
        "bytes": not (options.keys() & IN_FLOAT.keys()),
        "graph": members[GRAPH]["sha256"],
        "weights": members[WEIGHTS]["sha256"],
    }
    return json.dumps(facts).encode()


def compiled_cache(package: Package, threads: int = 1) -> bytes:
    """What `openvino.blob` may hold for a package: compiled on this machine, for machines like it.

    A package has none unless asked for, since what it saves is small beside what it costs. Time to open, without and
    with it, and size of the graph, without and with it (2 cores, dynamic lengths):

    - small model of four inputs, float32: 0.35 s, 0.06 s; 4 MB, 8 MB; int8: 0.95 s, 0.16 s; 1.6 MB, 3.6 MB
    - ResNet-50 with BERT-base, float32: 1.2 s, 1.0 s; 536 MB, 1073 MB; int8: 2.6 s, 1.4 s; 136 MB, 344 MB

    And it is of use to machines of the very processor and version that made it only. The seconds that are often told
    of come of converting an ONNX graph at every start, which a package has behind it.
    """
    ov = import_openvino()
    core = open_core(ov)
    options, _ = options_for(core, package, threads)
    graph, weights = read_graph(ov, core, package)
    blob = core.compile_model(graph, "CPU", options).export_model().getvalue()
    del weights  # only now: the graph read its constants there
    return fitting(ov, core, package, options) + b"\n" + bytes(blob)
