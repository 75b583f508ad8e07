"""Each fusion against its published formula, written out. Dimensions: B batch, M inputs, D model width."""

from __future__ import annotations

import pytest
import torch

from fuseline.lab.tokens import Tokens


def test_low_rank_equals_the_full_tensor_times_the_outer_product(make):
    fusion = make("low_rank", 3, rank=3)
    x_BMD = torch.randn(4, 3, 16)
    one = torch.ones(4, 1)
    # The weight tensor that LMF never forms: W = Σ_r w_r · w_1^(r) ⊗ w_2^(r) ⊗ w_3^(r), for each output dimension.
    weight = torch.einsum("r,rad,rbd,rcd->abcd", fusion.weight_R, *fusion.factors_MRED)
    outer = torch.einsum("na,nb,nc->nabc", *(torch.cat([x_BMD[:, m], one], dim=1) for m in range(3)))
    expected = torch.einsum("nabc,abcd->nd", outer, weight) + fusion.bias_D
    torch.testing.assert_close(fusion.product(x_BMD), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_low_rank_starts_at_a_sound_scale_whatever_the_number_of_inputs(count):
    from fuseline.lab.fusion.low_rank import LowRankConfig, LowRankFusion

    torch.manual_seed(0)
    fusion = LowRankFusion(LowRankConfig(), names=tuple("abcdef"[:count]), width=64)
    spread = fusion.product(torch.randn(256, count, 64)).std(dim=0).mean()
    assert 0.1 < spread < 10


def test_gated_with_two_inputs_is_the_papers_sigmoid_gate(make, inputs):
    fusion = make("gated", 2)
    tokens, present_BM = inputs(2)
    x = fusion.inputs(tokens, present_BM).values_BMD
    both = x.flatten(1)
    z = torch.sigmoid(
        both @ (fusion.gates.weight[:16] - fusion.gates.weight[16:]).T + fusion.gates.bias[:16] - fusion.gates.bias[16:]
    )
    h = z * torch.tanh(fusion.transforms[0](x[:, 0])) + (1 - z) * torch.tanh(fusion.transforms[1](x[:, 1]))
    torch.testing.assert_close(fusion(tokens, present_BM).pooled_BD, fusion.out(h), rtol=1e-4, atol=1e-4)


def test_sum_is_the_articles_stack(make, inputs):
    fusion = make("sum", 3)  # M = 3, so F_1, F_2, F_3
    tokens, present_BM = inputs(3)
    x = fusion.inputs(tokens, present_BM).values_BMD
    f1, f2, f3 = fusion.functions
    embedded = [x[:, m] + fusion.modality_embedding.weight[m] for m in range(3)]
    inner = f2(f1(embedded[0]) + f1(embedded[1]) + f1(embedded[2]))
    torch.testing.assert_close(fusion(tokens, present_BM).pooled_BD, fusion.norm(f3(inner) + inner))


@pytest.mark.parametrize(("count", "layers", "expected"), [(1, None, 2), (2, None, 2), (4, None, 4), (2, 5, 5)])
def test_sum_has_one_function_an_input_unless_told(make, count, layers, expected):
    assert len(make("sum", count, layers=layers).functions) == expected


def test_attention_pools_what_a_plain_transformer_gives_cls(make, inputs):
    fusion = make("attention", 2, layers=1)
    tokens, _ = inputs(2)
    present_BM = torch.ones(6, 2, dtype=torch.bool)
    row = 3
    real = [tokens[f"m{i}"].values_BTD[row][tokens[f"m{i}"].mask_BT[row]] for i in range(2)]
    x = torch.cat([fusion.cls_1D, *(r + fusion.modality_embedding.weight[i] for i, r in enumerate(real))])[None]
    out = fusion.blocks[0](x, Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool)))
    expected = fusion.norm(out)[0, 0]
    torch.testing.assert_close(fusion(tokens, present_BM).pooled_BD[row], expected, rtol=1e-4, atol=1e-5)


def through(make, inputs, layers: int, part: slice) -> torch.Tensor:
    """How the tokens of input 0 move when those of input 1 change."""
    fusion = make("attention", 2, layers=layers, bottleneck=2)
    tokens, _ = inputs(2)
    present_BM = torch.ones(6, 2, dtype=torch.bool)
    changed = {**tokens, "m1": Tokens(tokens["m1"].values_BTD.flip(-1), tokens["m1"].mask_BT)}
    moved = (fusion(tokens, present_BM).tokens_BTD - fusion(changed, present_BM).tokens_BTD).abs()
    return moved[:, part].amax(dim=(1, 2))


def test_with_a_bottleneck_inputs_reach_each_other_only_a_layer_later(make, inputs):
    # Tokens: CLS, 2 bottleneck, 5 of m0, 3 of m1. One layer: m1 -> bottleneck. The second: bottleneck -> m0.
    first_input = slice(3, 8)
    assert (through(make, inputs, 1, first_input) == 0).all()
    assert (through(make, inputs, 2, first_input) > 1e-5).all()
    assert (through(make, inputs, 1, slice(1, 3)) > 1e-5).all()


def test_with_a_bottleneck_cls_is_no_way_around_it(make, inputs):
    fusion = make("attention", 2, layers=3, bottleneck=2)
    tokens, present_BM = inputs(2)
    before = fusion(tokens, present_BM).tokens_BTD[:, 1:]
    with torch.no_grad():
        fusion.cls_1D.add_(torch.randn_like(fusion.cls_1D))
    torch.testing.assert_close(fusion(tokens, present_BM).tokens_BTD[:, 1:], before)


def test_cross_attention_has_a_stack_for_every_ordered_pair(make):
    fusion = make("cross_attention", 4, layers=2)
    assert [[len(stack) for stack in stream.cross] for stream in fusion.streams] == [[2, 2, 2]] * 4


def test_cross_attention_by_hand_with_two_inputs(make, inputs):
    fusion = make("cross_attention", 2, self_layers=0, pooling="mean")
    tokens, _ = inputs(2)
    present_BM = torch.ones(6, 2, dtype=torch.bool)
    row, vectors = 2, []
    real = [tokens[f"m{i}"].values_BTD[row][tokens[f"m{i}"].mask_BT[row]][None] for i in range(2)]
    for i in range(2):
        stream, source = fusion.streams[i], real[1 - i]
        seen = stream.cross[0][0](real[i], Tokens(source, torch.ones(source.shape[:2], dtype=torch.bool)))
        vectors.append(stream.mix(seen).mean(dim=1))
    expected = fusion.out(torch.cat(vectors, dim=-1))[0]
    torch.testing.assert_close(fusion(tokens, present_BM).pooled_BD[row], expected, rtol=1e-4, atol=1e-5)


def test_concat_by_hand(make, inputs):
    fusion = make("concat", 2, pooling="mean")
    tokens, _ = inputs(2)
    present_BM = torch.tensor([[True, False]] * 6)
    own = tokens["m0"]
    mean = torch.stack([v[m].mean(dim=0) for v, m in zip(own.values_BTD, own.mask_BT, strict=True)])
    joined = torch.cat([fusion.inputs.norms[0](mean), fusion.inputs.absent_MD[1].expand(6, -1)], dim=1)
    torch.testing.assert_close(fusion(tokens, present_BM).pooled_BD, fusion.mlp(joined), rtol=1e-4, atol=1e-5)
