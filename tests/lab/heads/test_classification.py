from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lab.heads.views import seen
from torch import Tensor

from fuseline.lab.heads import head_class
from fuseline.lab.tokens import Fused
from fuseline.tasks.classification import Classification, ClassificationConfig

CELLS = ["a"] * 60 + ["b"] * 30 + ["c"] * 10


def head_of(cells=CELLS, **options):
    task = Classification.fit(ClassificationConfig(target="y", **options), {"y": cells})
    torch.manual_seed(0)
    return task, head_class("classification")(task, {}, width=8, dropout=0.0)


def fused(rows: int) -> Fused:
    pooled = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))
    return Fused(pooled, pooled[:, None], torch.ones(rows, 1, dtype=torch.bool))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 3, generator=generator) * 2, torch.randint(0, 3, (12,), generator=generator)


def test_logits_of_all_classes_two_of_them_where_binary():
    assert head_of()[1](*seen(fused(5)))["logits"].shape == (5, 3)
    assert head_of(["no", "yes"] * 5)[1](*seen(fused(5)))["logits"].shape == (5, 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torch_cross_entropy(smoothing):
    logits, targets = batch()
    _, head = head_of(label_smoothing=smoothing)
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(head.loss({"logits": logits}, targets), expected)


def test_balanced_weights_are_scikit_learns_and_are_not_divided_out():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    task, head = head_of(label_smoothing=0.0, class_weights="balanced")
    expected = sklearn.compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(CELLS))
    np.testing.assert_allclose(task.class_weights(), expected)
    logits, targets = batch()
    rows = F.cross_entropy(logits, targets, reduction="none") * torch.tensor(expected)[targets]
    torch.testing.assert_close(head.loss({"logits": logits}, targets), rows.mean().float())


def test_explicit_weights_keep_their_ratio_and_mean_one_over_the_training_rows():
    task, _ = head_of(class_weights={"c": 5.0})
    weights = task.class_weights()
    assert weights[2] / weights[0] == pytest.approx(5)
    assert weights[1] == weights[0]
    assert (weights * [60, 30, 10]).sum() == pytest.approx(100)


def test_focal_loss_is_the_papers():
    logits, targets = batch()
    _, head = head_of(label_smoothing=0.0, focal_gamma=2.0)
    p = logits.softmax(-1)[torch.arange(12), targets]
    torch.testing.assert_close(head.loss({"logits": logits}, targets), (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("cells", [CELLS, [["a"], ["b", "c"], [], ["a", "c"]] * 4], ids=["classes", "labels"])
def test_gradient_is_finite_at_certain_answers(gamma, cells):
    _, head = head_of(cells, focal_gamma=gamma)
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    targets = torch.tensor([0, 2]) if cells is CELLS else torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    loss = head.loss({"logits": logits}, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_multilabel_loss_is_torch_bce_with_positive_weights():
    cells = [["a"]] * 10 + [["a", "b"]] * 5 + [[]] * 5
    task, head = head_of(cells, mode="multilabel", class_weights="balanced", label_smoothing=0.0)
    weights = torch.tensor([5 / 15, 15 / 5])
    torch.testing.assert_close(torch.tensor(task.class_weights()).float(), weights)
    logits, targets = torch.randn(6, 2), torch.randint(0, 2, (6, 2)).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
    torch.testing.assert_close(head.loss({"logits": logits}, targets), expected)


def test_unknown_labels_are_left_out_of_the_loss():
    _, head = head_of([["a"], ["b"], ["a", "b"], []], mode="multilabel")
    logits = torch.randn(3, 2, requires_grad=True)
    targets = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [torch.nan, torch.nan]])
    loss = head.loss({"logits": logits}, targets)
    loss.backward()
    known = ~targets.isnan()
    smoothed = targets[known] * 0.95 + 0.025
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[known], smoothed))
    assert (logits.grad[~known] == 0).all()
    assert logits.grad.isfinite().all()


def test_starts_at_the_classes_frequencies():
    task, head = head_of()
    chances = head(*seen(Fused(torch.zeros(1, 8), torch.zeros(1, 1, 8), torch.ones(1, 1, dtype=torch.bool))))
    answer = task.decode({"logits": chances["logits"].detach().numpy()})[0]
    assert answer.probabilities == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.02)


def test_learns_a_separable_problem():
    _, head = head_of(label_smoothing=0.0)
    given = fused(90)
    targets = given.pooled_BD[:, :3].argmax(dim=1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = head.loss(head(*seen(given)), targets)
        loss.backward()
        optimizer.step()
    assert (head(*seen(given))["logits"].argmax(dim=1) == targets).float().mean() > 0.95
