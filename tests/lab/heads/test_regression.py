from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lab.heads.views import seen

from fuseline.lab.heads import head_class
from fuseline.lab.tokens import Fused
from fuseline.tasks.regression import Regression, RegressionConfig

PRICES = [1000.0, 1500.0, 3000.0, 500.0]
AGES = [20, 30, 40, None]


def head_of(**options):
    config = RegressionConfig(targets=("price", "age"), **options)
    task = Regression.fit(config, {"price": PRICES, "age": AGES})
    torch.manual_seed(0)
    return task, head_class("regression")(task, {}, width=8, dropout=0.0)


def fused(rows: int) -> Fused:
    pooled = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))
    return Fused(pooled, pooled[:, None], torch.ones(rows, 1, dtype=torch.bool))


def test_answers_in_the_targets_own_units_starting_at_their_means():
    task, head = head_of()
    with torch.no_grad():
        head.project.weight.zero_()
    assert head(*seen(fused(2)))["prediction"].tolist() == [list(task.mean)] * 2
    assert task.mean == (1500.0, 30.0)


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_loss_is_on_the_standardised_scale(kind):
    task, head = head_of(loss=kind)
    mean, std = torch.tensor(task.mean), torch.tensor(task.std)
    prediction, targets = mean + std * torch.randn(5, 2) * 2, mean + std * torch.randn(5, 2)
    function = F.huber_loss if kind == "huber" else F.mse_loss
    expected = function((prediction - mean) / std, (targets - mean) / std)
    torch.testing.assert_close(head.loss({"prediction": prediction}, targets), expected)


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_absent_targets_are_left_out_of_the_loss(kind):
    _, head = head_of(loss=kind)
    outputs = head(*seen(fused(3)))
    outputs["prediction"].retain_grad()
    targets = torch.tensor([[900.0, torch.nan], [torch.nan, torch.nan], [2000.0, 25.0]])
    loss = head.loss(outputs, targets)
    loss.backward()
    known = ~targets.isnan()
    grad = outputs["prediction"].grad
    assert (grad[~known] == 0).all()
    assert (grad[known] != 0).all()
    filled = torch.where(known, targets, outputs["prediction"].detach())
    torch.testing.assert_close(loss, head.loss(outputs, filled) * 6 / 3)
    assert head.loss(outputs, torch.full((3, 2), torch.nan)) == 0


def test_reduced_precision_does_not_reach_the_targets_units():
    _, head = head_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(*seen(fused(2)))["prediction"].dtype == torch.float32


def test_learns_a_linear_problem_of_two_scales():
    _, head = head_of()
    given = fused(64)
    targets = given.pooled_BD[:, :2] * torch.tensor([900.0, 8.0]) + torch.tensor([1500.0, 30.0])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss = head.loss(head(*seen(given)), targets)
        loss.backward()
        optimizer.step()
    assert ((head(*seen(given))["prediction"] - targets).abs() < torch.tensor([20.0, 0.2])).all()
