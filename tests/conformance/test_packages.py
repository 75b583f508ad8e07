"""Every kind as a package answers it: onnxruntime over the exported graph, through the torch-free predictor; and as
plain ONNX Runtime and plain OpenVINO answer it, over the files that `fuseline export` writes.

Small encoders are in the packages of the fusions; every other kind of encoder and task has a package of its own.
One file, since every package costs ten seconds or more to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from conformance import checks
from conformance.subjects import PARITY, SAME_GRAPH, Case, Subject, cases, gap

from fuseline.errors import FuselineError
from fuseline.lab.encoders import ENCODERS
from fuseline.lab.export.onnxfile import write_onnx
from fuseline.lab.export.openvino import config_of, write_openvino
from fuseline.lab.export.parity_shapes import check_lengths
from fuseline.lab.export.runners import OnnxFile, OpenVinoFile
from fuseline.lab.fusion import FUSIONS
from fuseline.package import read_package
from fuseline.runtime import Predictor, load
from fuseline.tasks import TASKS

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

# Two inputs a fusion, both of varying length where their tokens meet: an export of four takes three times as long, and
# tests/lab/export has one.
PAIRS = {"attention": ("picture", "note"), "cross_attention": ("note", "sound")}
LENGTHS = 4


def _smaller(case: Case) -> Case:
    if not case.name.startswith("fusion-"):
        return case
    return replace(case, inputs=PAIRS.get(case.fusion, ("note", "vitals")))


EXPORTED = [_smaller(c) for c in cases() if c.exported]
MOST_EXPORTS = 26
"""each costs seconds"""
IN_PACKAGES = ("task-", "timeseries", "graph")
"""without varying lengths of their own: one export tells as much as two"""
FILES = [c for c in EXPORTED if not c.name.startswith(IN_PACKAGES)]

every_package = pytest.mark.parametrize("subject", EXPORTED, ids=lambda c: c.name, indirect=True, scope="module")

# A cell that no input of that modality may swallow.
BAD: dict[str, Any] = {
    "text": ["a", "list"],
    "image": b"no picture",
    "audio": b"no sound",
    "video": b"no video",
    "document": b"no picture",
    "images": [b"no picture", b"nor this"],
    "texts": ["a text", ["a", "list"]],
    "tabular": "neither a number nor a date",
    "graph": ["a", "list"],
    "timeseries": [1.0, "two"],
}


def test_every_kind_has_a_package() -> None:
    assert {c.fusion for c in EXPORTED} == set(FUSIONS)
    assert {c.task[0] for c in EXPORTED} == set(TASKS)
    exported = {k for c in EXPORTED for k in c.encoders.values()}
    assert exported | {"small", *SAME_GRAPH} == {k for kinds in ENCODERS.values() for k in kinds}
    assert {c.fusion for c in FILES} == set(FUSIONS)
    assert {n for c in FILES for n in c.inputs if not c.encoders} == set(made.FEW)
    assert len(EXPORTED) <= MOST_EXPORTS


@every_package
def test_the_package_answers_as_the_model(subject: Subject) -> None:
    """Batches of 1, 2, 3, 7 and 33 rows, and the shortest and longest arrays that there can be."""
    batches = [subject.rows[-n:] for n in (1, 2, 3, 7, 33)]
    batches += [[subject.nothing], [subject.nothing] * 2, [subject.short], [subject.long] * 3, [subject.full]]
    for batch in batches:
        assert gap(subject.run(batch), subject.predictor.run(batch)) < PARITY


@every_package
def test_a_row_answers_the_same_in_any_company(subject: Subject) -> None:
    checks.answers_alike_in_any_company(subject, subject.predictor.run)
    checks.order_does_not_matter(subject, subject.predictor.run)


@every_package
def test_every_subset_of_inputs_answers(subject: Subject) -> None:
    checks.every_subset_answers(subject, subject.predictor.run)
    checks.what_is_present_matters(subject, subject.predictor.run)


@every_package
def test_loading_gives_identical_answers(subject: Subject) -> None:
    first, second = (_answers(load(subject.package, threads=1), subject, subject.cells) for _ in range(2))
    assert first == second
    decoded = subject.task.decode(subject.predictor.run(subject.rows[:3]))
    assert [a["value"] for a in _answers(subject.predictor, subject, subject.cells[:3])] == [d.value for d in decoded]


@every_package
def test_a_bad_cell_is_its_rows_error_and_leaves_the_neighbours_alone(subject: Subject) -> None:
    for name in subject.names:
        column = subject.recipe.columns_of(name)[0]
        cells = [dict(c) for c in subject.cells[-7:]]
        before = _answers(subject.predictor, subject, cells)
        cells[3][column] = BAD[subject.recipe.inputs[name].modality]
        answers = subject.predictor.predict(cells, media=subject.folder)
        error = answers[3].error
        assert isinstance(error, FuselineError)
        assert (error.code, error.row, error.column) == ("bad_cell", 3, column)
        assert (answers[3].value, answers[3].probabilities, answers[3].used) == (None, None, ())
        for i in (0, 1, 2, 4, 5, 6):
            after = answers[i].to_dict()
            assert (after["used"], after["absent"]) == (before[i]["used"], before[i]["absent"])
            np.testing.assert_allclose(_numbers(after), _numbers(before[i]), rtol=1e-4, atol=1e-5)


@every_package
def test_answers_say_what_they_used(subject: Subject) -> None:
    for hidden in (None, *subject.names):
        cells = dict(subject.full_cells[0])
        for column in () if hidden is None else subject.recipe.columns_of(hidden):
            cells[column] = None
        [answer] = subject.predictor.predict([cells], media=subject.folder)
        assert answer.error is None
        assert answer.used == tuple(n for n in subject.names if n != hidden)
        assert answer.absent == tuple(n for n in subject.names if n == hidden)


@pytest.mark.parametrize("subject", FILES, ids=lambda c: c.name, indirect=True, scope="module")
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


def _answers(predictor: Predictor, subject: Subject, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = [a.to_dict() for a in predictor.predict(cells, media=subject.folder)]
    assert not any("error" in a for a in answers)
    return answers


def _numbers(answer: dict[str, Any]) -> list[float]:
    return checks.numbers([answer.get("probabilities"), answer["value"], answer.get("details")])
