from __future__ import annotations

from typing import Any

import pytest
import torch
from lab.heads.views import seen

from fuseline.lab.heads import head_class
from fuseline.lab.heads.multi import MultiHead
from fuseline.lab.tokens import Fused
from fuseline.tasks.multi import Multi, MultiConfig

CELLS = {"kind": ["a", "b", "a", None], "size": [1.0, None, 3.0, 5.0]}
TASKS: dict[str, Any] = {"kind": {"kind": "classification", "label_smoothing": 0}, "size": {"kind": "regression"}}
B, D = 4, 8


def made(**options: Any) -> tuple[Multi, MultiHead, torch.Tensor]:
    task = Multi.fit(MultiConfig(tasks=TASKS, **options), CELLS)
    torch.manual_seed(0)
    head = MultiHead(task, {}, width=D, dropout=0.0)
    rows = [task.encode({c: CELLS[c][i] for c in CELLS}) for i in range(B)]
    return task, head, torch.stack([torch.from_numpy(r) for r in rows])


def fused() -> Fused:
    pooled = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    return Fused(pooled, pooled[:, None], torch.ones(B, 1, dtype=torch.bool))


def own_losses(task: Multi, head: MultiHead, targets: torch.Tensor) -> list[torch.Tensor]:
    """Each task's loss over the rows that have its target, by that task's own head."""
    outputs = head(*seen(fused()))
    return [
        head.heads[0].loss({"logits": outputs["kind.logits"][:3]}, torch.tensor([0, 1, 0])),
        head.heads[1].loss({"prediction": outputs["size.prediction"][[0, 2, 3]]}, torch.tensor([[1.0], [3.0], [5.0]])),
    ]


def test_outputs_are_named_by_task() -> None:
    task, head, _ = made()
    outputs = head(*seen(fused()))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {"kind.logits": (B, 2), "size.prediction": (B, 1)}
    assert isinstance(head.heads[0], head_class("classification"))
    assert len(task.decode({k: v.detach().numpy() for k, v in outputs.items()})) == B


@pytest.mark.parametrize(
    ("weights", "factors"), [("equal", (1, 1)), ({"kind": 0.5, "size": 2.0}, (0.5, 2)), ("learned", (1, 1))]
)
def test_a_row_counts_for_the_tasks_whose_target_it_has(weights: Any, factors: tuple[float, float]) -> None:
    task, head, targets = made(weights=weights)
    kind, size = own_losses(task, head, targets)
    found = head.loss(head(*seen(fused())), targets)
    torch.testing.assert_close(found, factors[0] * kind + factors[1] * size)
    assert head.weights() == dict(zip(("kind", "size"), factors, strict=True))


def test_learned_weights_are_the_inverse_of_the_losses_at_their_best() -> None:
    """The minimum of exp(-s)·L + s/2 lies at exp(-s) = 1 / 2L."""
    task, head, targets = made()
    losses = [x.item() for x in own_losses(task, head, targets)]
    outputs = {k: v.detach() for k, v in head(*seen(fused())).items()}
    assert head.log_variance_K is not None
    optimizer = torch.optim.Adam([head.log_variance_K], lr=0.05)
    for _ in range(400):
        loss = head.loss(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert list(head.weights().values()) == pytest.approx([1 / (2 * x) for x in losses], rel=1e-2)


def test_a_batch_without_a_tasks_targets_leaves_its_weight_alone() -> None:
    _, head, targets = made()
    outputs = head(*seen(fused()))
    head.loss({k: v[3:] for k, v in outputs.items()}, targets[3:]).backward()
    assert head.log_variance_K is not None
    assert head.log_variance_K.grad is not None
    assert head.log_variance_K.grad[0] == 0
    assert head.log_variance_K.grad[1] != 0
    assert head.heads[0].project.weight.grad is None or not head.heads[0].project.weight.grad.any()


def test_needs_are_those_of_its_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_class("regression"), "needs", classmethod(lambda cls, config: {"text": {"width": 3}}))
    assert MultiHead.needs(MultiConfig(tasks=TASKS)) == {"text": {"width": 3}}
