from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.heads.retrieval import RetrievalHead
from fuseline.lab.tokens import Fused, Tokens, View
from fuseline.tasks.retrieval import Retrieval, RetrievalConfig

B, D, E = 6, 8, 4
INPUTS: dict[str, Any] = dict.fromkeys(("a", "b", "c"))


def head_of(**options: Any) -> RetrievalHead:
    config = RetrievalConfig(left=("a", "b"), right=("c",), dim=E, **options)
    torch.manual_seed(0)
    return RetrievalHead(Retrieval(config), INPUTS, width=D, dropout=0.0)


def view(present_BM: Tensor) -> tuple[View, list[Tensor]]:
    """A fusion that sums the tokens of what is present, and what it was asked to fuse."""
    generator = torch.Generator().manual_seed(1)
    tokens = {n: Tokens(torch.randn(B, 1, D, generator=generator), torch.ones(B, 1, dtype=torch.bool)) for n in INPUTS}
    asked: list[Tensor] = []

    def fuse(seen_BM: Tensor) -> Fused:
        asked.append(seen_BM)
        pooled = sum(t.values_BTD[:, 0] * seen_BM[:, i, None] for i, t in enumerate(tokens.values())) + 0.1
        return Fused(pooled, pooled[:, None], torch.ones(B, 1, dtype=torch.bool))

    return View(tokens, present_BM, fuse), asked


def answer(head: RetrievalHead, present_BM: Tensor) -> dict[str, Tensor]:
    seen, _ = view(present_BM)
    return head(seen.fuse(present_BM), seen)


def test_each_side_sees_its_own_inputs_alone() -> None:
    head, present = head_of(), torch.ones(B, 3, dtype=torch.bool)
    present[0, 0] = False
    seen, asked = view(present)
    whole = head(seen.fuse(present), seen)
    assert asked[1].tolist() == (present & torch.tensor([True, True, False])).tolist()
    assert asked[2].tolist() == (present & torch.tensor([False, False, True])).tolist()
    for side, others in (("left", [2]), ("right", [0, 1])):
        torch.testing.assert_close(whole[side].norm(dim=1), torch.ones(B))
        without = present.clone()
        without[:, others] = False
        torch.testing.assert_close(answer(head, without)[side], whole[side])


def test_an_absent_side_is_all_zero_and_has_no_gradient() -> None:
    head, present = head_of(), torch.ones(B, 3, dtype=torch.bool)
    present[1, :2] = False
    present[2, 2] = False
    out = answer(head, present)
    assert (out["left"][1] == 0).all()
    assert (out["right"][2] == 0).all()
    assert out["left"][2].norm().item() == pytest.approx(1)
    head.loss(out, torch.arange(2 * B).reshape(B, 2) + 1).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in head.parameters())


def unit_pair(rows: int = B) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {side: F.normalize(torch.randn(rows, E), dim=1).requires_grad_() for side in ("left", "right")}


def alone(rows: int = B) -> Tensor:
    return torch.arange(2 * rows).reshape(rows, 2) + 1


def test_infonce_is_cross_entropy_both_ways() -> None:
    head, out = head_of(temperature=0.2), unit_pair()
    logits = out["left"] @ out["right"].T / 0.2
    own = torch.arange(B)
    wanted = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(head.loss(out, alone()), wanted)


def test_siglip_is_a_sigmoid_a_pair() -> None:
    head, out = head_of(loss="siglip", temperature=0.1), unit_pair()
    logits = out["left"] @ out["right"].T * 10 - 10
    wanted = F.binary_cross_entropy_with_logits(logits, torch.eye(B), reduction="sum") / B
    torch.testing.assert_close(head.loss(out, alone()), wanted)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_rows_that_lack_a_side_teach_nothing(loss: str) -> None:
    head, out = head_of(loss=loss), unit_pair()
    kept = [0, 2, 3, 5]
    short = {k: v[kept] for k, v in out.items()}
    holes = {k: v.detach().clone() for k, v in out.items()}
    holes["left"][1], holes["right"][4] = 0, 0
    holes = {k: v.requires_grad_() for k, v in holes.items()}
    found = head.loss(holes, alone())
    torch.testing.assert_close(found, head.loss(short, alone()[kept]))
    found.backward()
    assert all(bool((v.grad[[1, 4]] == 0).all()) for v in holes.values() if v.grad is not None)
    assert head.loss({k: torch.zeros(B, E) for k in out}, alone()) == 0


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_rows_of_the_same_content_are_no_wrong_answers(loss: str) -> None:
    """The pair of two rows with one text adds nothing: its gradient is that of a batch without it."""
    head, out = head_of(loss=loss, temperature=1.0), unit_pair(2)
    targets = alone(2)
    targets[1, 0] = targets[0, 0]
    found = head.loss(out, targets)
    apart = [head.loss({k: v[i : i + 1] for k, v in out.items()}, targets[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(found, sum(apart) / 2)
    assert head.loss(out, alone(2)) > found
    unknown = torch.zeros(2, 2, dtype=torch.int64)  # two absent digests are not the same content
    torch.testing.assert_close(head.loss(out, unknown), head.loss(out, alone(2)))


def test_the_temperature_is_learned_and_bounded() -> None:
    head, out = head_of(), unit_pair()
    head.loss(out, alone()).backward()
    assert head.sharpness.grad is not None
    assert head.sharpness.grad != 0
    with torch.no_grad():
        head.sharpness.fill_(50.0)
    logits = out["left"] @ out["right"].T * 100
    own = torch.arange(B)
    torch.testing.assert_close(
        head.loss(out, alone()), (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    )
    assert head_of(temperature=0.05).sharpness.item() == pytest.approx(math.log(20))


def test_training_brings_pairs_together() -> None:
    torch.manual_seed(0)
    left = torch.randn(32, 6)
    right = left @ torch.randn(6, 6)
    head = head_of()
    maps = torch.nn.ModuleList([torch.nn.Linear(6, E), torch.nn.Linear(6, E)])
    optimizer = torch.optim.Adam([*maps.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(150):
        out = {s: F.normalize(m(x), dim=1) for s, m, x in zip(("left", "right"), maps, (left, right), strict=True)}
        loss = head.loss(out, alone(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


class Frozen(torch.nn.Module):
    def __init__(self, *, frozen: bool = True) -> None:
        super().__init__()
        self.width = 5
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=not frozen)


def locked(encoder: torch.nn.Module) -> RetrievalHead:
    config = RetrievalConfig(left=("a", "b"), right=("c",), dim=E, locked="right")
    torch.manual_seed(0)
    head = RetrievalHead(Retrieval(config), INPUTS, width=D, dropout=0.0)
    head.meet({"a": encoder, "b": encoder, "c": encoder})
    return head


def test_a_locked_side_keeps_its_encoders_own_vector() -> None:
    head, present = locked(Frozen()), torch.ones(B, 3, dtype=torch.bool)
    present[1, 2] = False
    seen, asked = view(present)
    encoded = torch.randn(B, 3, 5)
    encoded[1] = torch.nan
    mask = torch.ones(B, 3, dtype=torch.bool)
    mask[0, 2] = False
    own = seen.tokens["c"]._replace(mask_BT=mask, aside={"encoded": encoded})
    seen = seen._replace(tokens={**seen.tokens, "c": own})
    out = head(seen.fuse(present), seen)
    wanted = F.normalize(torch.stack([encoded[0, :2].mean(0), *encoded[2:].mean(1)]), dim=1)
    torch.testing.assert_close(out["right"][[0, 2, 3, 4, 5]], wanted)
    assert (out["right"][1] == 0).all()
    assert out["left"].shape == (B, 5)
    assert len(asked) == 2, "only the other side is fused, beside the whole"
    head.loss(out, alone()).backward()
    assert head.centre_E.grad is not None
    assert head.centre_E.grad.isfinite().all()
    assert head.centre_E.grad.any()


def test_only_a_frozen_encoder_can_be_locked() -> None:
    with pytest.raises(FuselineError, match="not frozen"):
        locked(Frozen(frozen=False))
