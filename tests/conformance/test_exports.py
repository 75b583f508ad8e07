"""Every kind as plain ONNX Runtime and plain OpenVINO answer it, over the files that `fuseline export` writes.

Batches of 1, 2, 3, 7 and 64 rows, every varying length from its shortest to its longest, each input absent in turn,
against the torch model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import made
import numpy as np
import pytest
from conformance.subjects import PARITY, SAME_GRAPH, Case, Subject, cases

from fuseline.lab.encoders import ENCODERS
from fuseline.lab.export.onnxfile import write_onnx
from fuseline.lab.export.openvino import config_of, write_openvino
from fuseline.lab.export.parity_shapes import check_lengths
from fuseline.lab.export.runners import OnnxFile, OpenVinoFile
from fuseline.lab.fusion import FUSIONS
from fuseline.package import read_package

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

# A task's head has no lengths of its own. All small encoders are in the model of the first fusion; the others get two
# inputs, both of varying length where their tokens meet: an export of four takes three times as long.
PAIRS = {"attention": None, "cross_attention": ("note", "sound")}
LENGTHS = 6


def _smaller(case: Case) -> Case:
    inputs = None if case.encoders else PAIRS.get(case.fusion, ("note", "vitals"))
    return case if inputs is None else replace(case, inputs=inputs)


IN_PACKAGES = ("timeseries", "graph")
"""modalities without varying lengths of their own: their exports are in test_packages.py"""
KINDS = [_smaller(c) for c in cases() if c.exported and not c.name.startswith(("task-", *IN_PACKAGES))]


def test_every_encoder_and_fusion_is_exported() -> None:
    assert {c.fusion for c in KINDS} == set(FUSIONS)
    kinds = {k for c in KINDS for k in c.encoders.values()} | {"small", *SAME_GRAPH}
    assert kinds == {k for m, known in ENCODERS.items() if m not in IN_PACKAGES for k in known} | {*SAME_GRAPH}
    assert {n for c in KINDS for n in c.inputs if not c.encoders} == set(made.FEW)


@pytest.mark.parametrize("subject", KINDS, ids=lambda c: c.name, indirect=True, scope="module")
def test_exports_answer_as_the_model_at_every_batch_size_and_length(subject: Subject, tmp_path: Path) -> None:
    package = read_package(subject.package)
    write_onnx(package, tmp_path)
    assert write_openvino(package, tmp_path) == "onnxruntime"
    runs = {
        "onnxruntime": OnnxFile(tmp_path / "model.onnx", 1).run,
        "openvino": OpenVinoFile(tmp_path / "model.xml", 1, config_of(package)).run,
    }
    report = check_lengths(
        _together(dict.fromkeys(runs, subject.run_arrays)),
        _together(runs),
        subject.parser.modalities,
        tolerance=PARITY,
        most_lengths=LENGTHS,
        rows=subject.rows[-3:],
    )
    assert set(report["by_batch_size"]) >= {1, 2, 3, 7, 64}
    for name, modality in subject.parser.modalities.items():
        for i, (letter, (low, high)) in enumerate(modality.lengths.items()):
            assert {low, high} <= set(report["by_length"][f"{name}.{letter}" if i else name])


def _together(runs: Mapping[str, Run]) -> Run:
    """Several runners as one: torch then answers each batch once."""

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        once = {one: one(arrays) for one in set(runs.values())}
        return {f"{backend}.{name}": v for backend, one in runs.items() for name, v in once[one].items()}

    return run
