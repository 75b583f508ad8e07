"""The averaged weights, and the loss of rows without a target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fuseline.lab.heads.classification import ClassificationHead
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Fused
from fuseline.lab.training.average import Average
from fuseline.lab.training.checkpoint import trained_names
from fuseline.lab.training.consistency import Consistency, doubts
from fuseline.lab.training.reader import Batch
from fuseline.recipe import UnlabelledSpec
from fuseline.tasks.classification import Classification, ClassificationConfig


def task(counts: tuple[int, ...] = (5, 5, 5), smoothing: float = 0.0) -> Classification:
    config = ClassificationConfig(target="y", label_smoothing=smoothing)
    return Classification(config, mode="multiclass", classes=["a", "b", "c"], counts=counts, rows=sum(counts))


class Sides(nn.Module):
    """Two inputs of a number each; an input that is hidden counts as 0. Its answer is linear in what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.head = ClassificationHead(task(), {}, width=2, dropout=0.5)
        self.register_buffer("bound", torch.tensor([math.inf, 1.0]))
        self.seen: list[torch.Tensor] = []

    def forward(self, arrays: dict[str, torch.Tensor], present_BM: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(present_BM)
        pooled = arrays["x.numbers"] * present_BM
        logits: dict[str, torch.Tensor] = self.head(Fused(pooled, pooled[:, None], present_BM[:, :1]), None)
        return logits


def model() -> FusionModel:
    made = Sides()
    with torch.no_grad():
        made.head.project.weight.copy_(torch.tensor([[4.0, 4.0], [-4.0, -4.0], [0.0, 0.0]]))
    return made  # type: ignore[return-value]


def batch(rows: int = 64) -> Batch:
    numbers = torch.linspace(-1, 1, rows)[:, None].repeat(1, 2)
    return Batch({"x.numbers": numbers}, torch.ones(rows, 2, dtype=torch.bool), None, np.arange(rows))


def consistency(spec: dict[str, object] | None = None, **task_options: float) -> Consistency:
    return Consistency(UnlabelledSpec.model_validate(spec or {}), task(**task_options), None, 100, 2)  # type: ignore[arg-type]


def test_the_average_follows_by_its_formula_and_leaves_the_weights_alone() -> None:
    part = model()
    names = trained_names(part)
    average = Average(part, names, 0.9)
    expected = average.kept()
    for step in range(1, 30):
        with torch.no_grad():
            part.head.project.weight.add_(0.1 * step)
        average.update(part)
        decay = min(0.9, (1 + step) / (10 + step))
        now = part.head.project.weight.detach()
        key = "head.project.weight"
        expected[key] = decay * expected[key] + (1 - decay) * now
    torch.testing.assert_close(average.kept()[key], expected[key])
    assert average.kept()["bound"].isinf().tolist() == [True, False], "a constant stays what it is"
    before = {k: v.clone() for k, v in part.state_dict().items()}
    part.eval()
    one, two = average.answer(part, batch().arrays, batch().present_BM), part(batch().arrays, batch().present_BM)
    assert not torch.allclose(one["logits"], two["logits"])
    for key, value in part.state_dict().items():
        torch.testing.assert_close(value, before[key])
    again = Average(part, names, 0.9)
    again.load(average.state())
    torch.testing.assert_close(again.kept(), average.kept())
    assert again.updates == average.updates


def test_the_student_agrees_with_the_teacher_when_inputs_are_hidden() -> None:
    part, loss_of = model().train(), consistency({"threshold": 0.9, "drop": 0.5, "ramp": 0})
    torch.manual_seed(0)
    loss = loss_of(part, None, batch(), 0)
    assert part.training
    teacher, student = part.seen  # type: ignore[misc,attr-defined]
    assert teacher.all(), "the teacher sees rows as they are"
    assert not student.all()
    assert student.any(dim=1).all(), "a row keeps an input"
    loss.backward()
    assert part.head.project.weight.grad is not None
    figures = loss_of.figures()
    with torch.no_grad():
        sure = part.eval()(batch().arrays, batch().present_BM)["logits"].softmax(-1).max(-1).values >= 0.9
    assert figures["unlabelled_confident"] == pytest.approx(float(sure.float().mean()), abs=1e-6)
    assert 0 < figures["unlabelled_confident"] < 1
    assert sum(loss_of.shares()) == pytest.approx(1)
    assert loss_of.shares()[2] == 0


def test_unsure_rows_teach_nothing_and_smoothing_lowers_what_is_sure() -> None:
    loss_of = consistency({"threshold": 0.999999, "ramp": 0})
    assert float(loss_of(model(), None, batch(), 0).detach()) == 0
    assert loss_of.figures()["unlabelled_commonest"] == 0
    assert loss_of.shares() == []
    smoothed = consistency({"threshold": 0.9}, smoothing=0.3)
    assert float(smoothed._needed()[0]) == pytest.approx(0.9 * (0.7 + 0.1))


def test_the_weight_rises() -> None:
    loss_of = consistency({"ramp": 0.5, "weight": 2.0})
    assert loss_of.weight(0) == pytest.approx(2 * math.exp(-5))
    assert loss_of.weight(25) == pytest.approx(2 * math.exp(-5 / 4))
    assert loss_of.weight(50) == loss_of.weight(99) == 2
    assert consistency({"ramp": 0.0}).weight(0) == 1


def test_auto_asks_less_of_rare_classes_and_align_brings_shares_back() -> None:
    loss_of = consistency({"threshold": "auto"})
    logits = torch.tensor([[4.0, 0.0, 0.0]] * 9 + [[0.0, 2.0, 0.0]])
    for _ in range(300):
        loss_of._labels(logits, logits)
    needed = loss_of._needed()
    chance = logits.softmax(-1)
    assert float(needed[0]) == pytest.approx(float(chance.max(-1).values.mean()), abs=0.05)
    assert float(needed[1]) < 0.5 < float(needed[0])
    leaning = torch.tensor([[2.0, 1.0, 0.0]] * 7 + [[1.5, 1.4, 0.0]])
    for align in (False, True):
        loss_of = consistency({"threshold": 0.1, "align": align})
        for _ in range(300):
            loss_of._labels(leaning, leaning)
        assert (float(loss_of.said_C[1]) > 0) is align, "all lean to the first class; the last one does so least"


def test_what_was_remembered_is_restored() -> None:
    one, two = consistency(), consistency()
    one(model(), None, batch(), 0)
    one.figures()
    two.load(one.state())
    torch.manual_seed(0)
    first = one(model(), None, batch(), 1)
    torch.manual_seed(0)
    assert torch.equal(first, two(model(), None, batch(), 1))
    assert one.shares() == two.shares()


def test_doubts() -> None:
    labels = ["a", "b", "c"]
    assert doubts(labels, [0.4, 0.3, 0.3], [0.45, 0.3, 0.25], 0.8) == []
    assert "collapsed" in doubts(labels, [0.4, 0.3, 0.3], [0.97, 0.02, 0.01], 0.8)[0]
    assert doubts(labels, [0.95, 0.03, 0.02], [0.97, 0.02, 0.01], 0.8) == []
    assert "'c'" in doubts(labels, [0.4, 0.3, 0.3], [0.5, 0.5, 0.0], 0.8)[0]
    assert "of no unlabelled row" in doubts(labels, [0.4, 0.3, 0.3], [], 0.0)[0]
    assert "taught little" in doubts(labels, [0.4, 0.3, 0.3], [0.4, 0.3, 0.3], 0.001)[0]
