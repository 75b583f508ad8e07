"""docs/works.md: which modality, task, fusion and backend go together, as they were run.

    FUSELINE_WRITE_MATRIX=1 python -m pytest tests/conformance/test_matrix.py

runs every cell (tens of minutes) and writes the page. `make slow` runs some of its cells.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conformance.subjects import INPUT_OF, PARITY, TASK_INPUTS, Case, Subject, gap

from fuseline.lab.export.openvino import config_of, write_openvino
from fuseline.lab.export.runners import OpenVinoFile
from fuseline.lab.fusion import FUSIONS
from fuseline.modalities import MODALITIES
from fuseline.package import read_package
from fuseline.tasks import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "works.md"
ROWS_FOLDER = PAGE.parents[1] / "build" / "matrix"
WRITING = bool(os.environ.get("FUSELINE_WRITE_MATRIX"))
SOME = [("graph", "retrieval")]
"""cells run on every machine; the conformance suite runs each modality, task and fusion by itself anyway"""
ROWS = 12


def fusion_of(modality: str, task: str) -> str:
    """Each in turn, so that every fusion meets every modality and every task."""
    return FUSIONS[(MODALITIES.index(modality) + TASKS.index(task)) % len(FUSIONS)]


def run_cell(modality: str, task: str, folder: Path) -> tuple[str, ...]:
    """Exported, and answered by both backends as by torch. The names of the backends that agree."""
    beside = "note" if modality == "tabular" else "vitals"
    inputs = tuple(dict.fromkeys((INPUT_OF[modality], *TASK_INPUTS.get(task, (beside,)))))
    subject = Subject(Case(f"{modality}-{task}", {}, inputs, "", fusion_of(modality, task), (task, 0)), folder)
    rows = [*subject.rows[:ROWS], subject.full, subject.nothing]
    wanted = subject.run(rows)
    agreed = []
    if gap(wanted, subject.predictor.run(rows)) < PARITY:
        agreed.append("onnxruntime")
    package = read_package(subject.package)
    if package.writes:  # token by token, over two graphs: onnxruntime alone does that
        return tuple(agreed)
    (folder / "ov").mkdir()
    write_openvino(package, folder / "ov")
    found = OpenVinoFile(folder / "ov" / "model.xml", 1, config_of(package)).run(subject.parser.arrays(rows))
    if gap(wanted, found) < PARITY:
        agreed.append("openvino")
    return tuple(agreed)


@pytest.mark.parametrize(("modality", "task"), SOME)
def test_a_cell_of_the_table_is_what_it_says(modality: str, task: str, tmp_path: Path) -> None:
    assert run_cell(modality, task, tmp_path) == ("onnxruntime", "openvino")


def test_the_page_names_every_kind_that_there_is() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    [head] = [line for line in lines if line.startswith("| modality |")]
    assert tuple(head.strip("| ").split(" | ")[1:]) == TASKS
    rows = [line.strip("| ").split(" | ") for line in lines if ": " in line and line.startswith("| ")]
    assert tuple(row[0] for row in rows) == MODALITIES
    for name, *cells in rows:
        for task, cell in zip(TASKS, cells, strict=True):
            assert cell.startswith(f"{fusion_of(name, task)}: "), (name, task)


def test_every_fusion_meets_every_task() -> None:
    for task in TASKS:
        assert {fusion_of(m, task) for m in MODALITIES} == set(FUSIONS)


@pytest.mark.skipif(not WRITING, reason="writes docs/works.md when FUSELINE_WRITE_MATRIX is set; takes long")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("modality", MODALITIES)
def test_write_the_page(modality: str, tmp_path: Path) -> None:
    """Each modality's row; the page where all rows are there."""
    words = {("onnxruntime", "openvino"): "both", ("onnxruntime",): "onnxruntime", ("openvino",): "openvino"}
    row = {}
    for task in TASKS:
        folder = tmp_path / task
        folder.mkdir()
        try:
            agreed = words.get(run_cell(modality, task, folder), "none")
        except Exception as error:  # the page says it, whatever it is
            agreed = f"no ({type(error).__name__})"
            print(modality, task, str(error)[:500])
        row[task] = f"{fusion_of(modality, task)}: {agreed}"
    ROWS_FOLDER.mkdir(parents=True, exist_ok=True)
    (ROWS_FOLDER / f"{modality}.json").write_text(json.dumps(row), encoding="utf-8")
    found = {m: ROWS_FOLDER / f"{m}.json" for m in MODALITIES}
    if not all(path.exists() for path in found.values()):
        return
    lines = [PREFACE, "| modality | " + " | ".join(TASKS) + " |", "|---" * (len(TASKS) + 1) + "|"]
    for name, path in found.items():
        cells = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"| {name} | " + " | ".join(cells[task] for task in TASKS) + " |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


PREFACE = """# What goes together

Every modality with every task: an untrained model of both (beside a table, so that something can be absent), exported
and answered row by row by torch, onnxruntime and OpenVINO, which must agree within 1e-4, rows without anything too.
Each cell names its fusion: in turn, so that every fusion meets every task. `both`: both backends agree with torch. The
tests write this page (`FUSELINE_WRITE_MATRIX=1 python -m pytest tests/conformance/test_matrix.py`; `make slow` runs one
of its cells); training, absence, order and company of rows are checked for every kind in `tests/conformance`.
"""
