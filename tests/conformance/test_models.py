"""Every kind, as torch runs it: a row's answer depends on that row alone.

Exported packages go through the same checks in test_packages.py.
"""

from __future__ import annotations

from typing import Any

import made
import numpy as np
import pytest
import torch
from conformance import checks
from conformance.subjects import TOLERANCE, Subject, cases, gap, through_json

from fuseline.lab.encoders import ENCODERS
from fuseline.lab.heads import head_class
from fuseline.modalities import MODALITIES, modality_class
from fuseline.modalities.rows import RowParser
from fuseline.tasks import TASKS, task_class

every_kind = pytest.mark.parametrize("subject", cases(), ids=lambda c: c.name, indirect=True, scope="module")


def test_the_tables_are_walked() -> None:
    """A modality without cells in made.py, without an encoder, or a task without a head would go untested."""
    assert {spec["modality"] for spec in made.INPUTS.values()} == set(MODALITIES) == set(ENCODERS)
    assert all("small" in kinds for kinds in ENCODERS.values())
    for kind in TASKS:
        head_class(kind)


@every_kind
def test_a_row_answers_the_same_in_any_company(subject: Subject) -> None:
    checks.answers_alike_in_any_company(subject, subject.run)
    checks.order_does_not_matter(subject, subject.run)


@every_kind
def test_every_subset_of_inputs_answers(subject: Subject) -> None:
    checks.every_subset_answers(subject, subject.run)
    checks.what_is_present_matters(subject, subject.run)


@every_kind
def test_rows_reach_the_longest_and_the_shortest(subject: Subject) -> None:
    """Or the checks of padding would check none."""
    for name, modality in subject.parser.modalities.items():
        for key, (shortest, longest) in modality.lengths.items():
            for row, wanted in ((subject.long, longest), (subject.nothing, shortest)):
                arrays = modality.collate([row[name]])
                shapes = {k: modality.arrays()[k].shape for k in arrays}
                got = {arrays[k].shape[s.index(key)] for k, s in shapes.items() if key in s}
                assert got == {wanted}, f"{name}: no row in made.py or subjects.py has length {wanted}"


@every_kind
def test_garbage_in_neighbours_and_in_absent_cells_changes_nothing(subject: Subject) -> None:
    """NaN and extremes in the arrays of other rows, and of what the row itself has not."""
    rows = [subject.full, *({**subject.full, n: None} for n in subject.names), *subject.rows[:9]]
    mine = len(subject.names) + 1
    arrays = subject.parser.arrays(rows)
    before = subject.run_arrays(arrays)
    for fill in (float("nan"), 1e30):
        dirty = {k: v.copy() for k, v in arrays.items()}
        for key, array in dirty.items():
            name = key.partition(".")[0]
            if key == "present":
                array[mine:] = True
                continue
            hit = np.arange(len(rows)) >= mine
            if name in subject.names:
                hit[1 + subject.names.index(name)] = True
            if array.dtype == np.float32:
                array[hit] = fill
            elif array.dtype == np.uint8:
                array[hit] = 255
        after = subject.run_arrays(dirty)
        kept = {k: v[:mine] for k, v in after.items()}
        assert gap({k: v[:mine] for k, v in before.items()}, kept) < TOLERANCE / 10


@every_kind
def test_another_content_of_neighbours_changes_nothing(subject: Subject) -> None:
    """Same shapes, other neighbours: here not even the last bits may differ by more than noise."""
    for row in (subject.full, {**subject.full, subject.names[0]: None}):
        outs = [subject.run([row, subject.long, other]) for other in (*subject.rows[:3], subject.nothing)]
        for out in outs[1:]:
            assert gap(outs[0], out, slice(0, 1), slice(0, 1)) < TOLERANCE / 10


@every_kind
def test_state_goes_through_json(subject: Subject) -> None:
    """Modalities and task rebuilt from their state parse, collate and decode as before."""
    states = through_json(subject.parser.states())
    again = RowParser.from_states(subject.recipe, states)
    assert through_json(again.states()) == states
    for cells, values in zip(subject.cells, subject.rows, strict=True):
        arrays, wanted = (subject.parser.arrays([v]) for v in (again.parse(cells, subject.media).values, values))
        assert arrays.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_array_equal(arrays[key], wanted[key])
    task = task_class(subject.task.name).from_state(through_json(subject.task.state()))
    outputs = subject.run(subject.rows)
    assert through_json(task.state()) == through_json(subject.task.state())
    assert task.decode(outputs) == subject.task.decode(outputs)


@every_kind
def test_modalities_keep_their_promises(subject: Subject) -> None:
    """Arrays are as announced; equal content has equal digests; size and summary are plain numbers."""
    for name, modality in subject.parser.modalities.items():
        assert modality.name == subject.recipe.inputs[name].modality
        assert isinstance(modality, modality_class(modality.name))
        for values in ([subject.full[name], None, subject.long[name]], [None], [subject.short[name]]):
            arrays = modality.collate(values)
            assert arrays.keys() == modality.arrays().keys()
            for key, spec in modality.arrays().items():
                assert arrays[key].dtype == spec.dtype
                assert len(arrays[key].shape) == len(spec.shape)
                assert len(arrays[key]) == len(values)
                for size, wanted in zip(arrays[key].shape[1:], spec.shape[1:], strict=True):
                    low, high = modality.lengths[wanted] if isinstance(wanted, str) else (wanted, wanted)
                    assert low <= size <= high
        value, other = subject.full[name], subject.other[name]
        again = subject.parsed(subject.full_cells[0])[name]
        assert modality.digest(value) == modality.digest(again) != modality.digest(other)
        assert modality.size(value) > 0
        through_json(modality.summary(value))


@every_kind
def test_gradients_are_finite_and_absent_inputs_teach_nothing(subject: Subject) -> None:
    """In training mode, with rows that lack inputs and one that has nothing; then with one input in no row at all."""
    model = subject.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    try:
        rows = [subject.nothing, *subject.rows[:5], subject.full, subject.short]
        assert _gradients(subject, rows, list(model.parameters()))
        for i, name in enumerate(subject.names):
            without = [{**row, name: None} for row in rows]
            own = [*model.encoders[i].parameters(), *model.adapters[i].parameters()]
            assert not any(bool(g.any()) for g in _gradients(subject, without, own)), f"{name} learns from dummies"
    finally:
        model.zero_grad(set_to_none=True)
        model.load_state_dict(before)
        model.eval()


def _gradients(
    subject: Subject, rows: list[dict[str, Any]], parameters: list[torch.nn.Parameter]
) -> list[torch.Tensor]:
    arrays = subject.parser.arrays(rows)
    present = torch.from_numpy(arrays.pop("present"))
    subject.model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    outputs = subject.model({k: torch.from_numpy(v) for k, v in arrays.items()}, present)
    torch.autograd.backward(torch.stack([v.square().sum() for v in outputs.values()]).sum())
    found = [p.grad for p in parameters if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in found)
    return found
