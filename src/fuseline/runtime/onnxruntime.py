"""onnxruntime on the CPU: needs no extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.package import Package, read_member
from fuseline.package.format import STEP
from fuseline.runtime.backend import GRAPH, IDS, OUTPUT
from fuseline.tasks.decoding import State, Steps

WEIGHTS = ("weights.safetensors", "weights.bin")
"""files that a graph may refer to, as far as the package has them; it can read no others"""


class OnnxRuntime:
    """Safe to call from several threads, each of which runs a batch of its own.

    The weights are handed over as the very bytes whose hash was checked. Given a path, onnxruntime maps the file
    instead, and a file that is overwritten later (a deployment that copies in place) would change the answers of a
    model that is already running, without a word.

    No IO binding: on a processor `run` reads the arrays where they lie, too, and outputs are small. Bound and plain
    runs in turn, medians of the time bound / plain: 0.95 to 0.99 for a small model of four inputs at 1 and 32 rows,
    1.00 to 1.03 for ResNet-50 with BERT-base at 1 and 8. That is the machine's noise.
    """

    kind = "onnxruntime"
    notes: tuple[str, ...] = ()

    def __init__(self, package: Package, threads: int) -> None:
        weights = read_weights(package)
        self.session = open_session(package, options_for(threads), weights=weights)
        self.outputs, self.inputs = _names(self.session)
        self.steps: Steps | None = None
        if package.writes:
            self.stepper = open_session(package, options_for(threads), STEP, weights)
            self.step_outputs, self.step_inputs = _names(self.stepper)
            self.steps = self._step

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feed = {k: v for k, v in arrays.items() if k in self.inputs}
        return _named(self.outputs, self.session.run(self.outputs, feed))

    def _step(self, ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        feed = {k: v for k, v in {IDS: ids, **state}.items() if k in self.step_inputs}
        out = _named(self.step_outputs, self.stepper.run(self.step_outputs, feed))
        logits = out.pop("logits")
        return logits, {**state, **out}


def _names(session: Any) -> tuple[list[str], set[str]]:
    return [o.name for o in session.get_outputs()], {i.name for i in session.get_inputs()}


def _named(names: list[str], values: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(OUTPUT): v for n, v in zip(names, values, strict=True)}


def exact_bytes(options: Any) -> None:
    """Processors without VNNI add products of bytes in 16 bits, which overflow: an int8 graph would answer otherwise
    there than where it was proven. This takes the slower exact way there, and changes nothing elsewhere."""
    options.add_session_config_entry("session.x64quantprecision", "1")


def options_for(threads: int) -> Any:
    """Session options. The arena is off: it keeps the largest shape ever seen, and lengths vary."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    exact_bytes(options)
    options.log_severity_level = 3
    return options


def read_weights(package: Package) -> dict[str, bytes]:
    """The files that a graph may refer to, read once for all graphs."""
    return {name: read_member(package, name) for name in WEIGHTS if name in package.manifest["members"]}


def open_session(
    package: Package, options: Any, member: str = GRAPH, weights: Mapping[str, bytes] | None = None
) -> Any:
    """An `InferenceSession` over the package's verified bytes. Raises FuselineError ``bad_package``."""
    import onnxruntime as ort

    weights = read_weights(package) if weights is None else weights
    try:
        if weights:
            sizes = [len(w) for w in weights.values()]
            options.add_external_initializers_from_files_in_memory([*weights], [*weights.values()], sizes)
        return ort.InferenceSession(read_member(package, member), options, providers=["CPUExecutionProvider"])
    except FuselineError:
        raise
    except Exception as error:  # onnxruntime raises a dozen private types
        raise FuselineError(
            "bad_package", f"onnxruntime cannot load {member}: {error}", "upgrade onnxruntime, or export again"
        ) from None
