"""Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fuseline.lab.fusion.parts import Attention, AttentionPool, Block, Intake, mean_pool, modality_dropout
from fuseline.lab.tokens import Tokens


def test_modality_dropout_hides_at_the_stated_rate_and_never_the_last_one():
    torch.manual_seed(0)
    present_BM = torch.ones(20_000, 3, dtype=torch.bool)
    present_BM[:5000, 0] = False
    present_BM[:2000, 1] = False
    present_BM[:500] = False
    kept = modality_dropout(present_BM, 0.3)
    assert not (kept & ~present_BM).any()
    assert torch.equal(kept.any(dim=1), present_BM.any(dim=1))
    assert kept[500:2000, 2].all(), "the only present input stays"
    # Each is hidden with chance p, except that one of three is put back where all three were drawn: p - p³/3.
    rate = 1 - kept[5000:].float().mean().item()
    assert abs(rate - (0.3 - 0.3**3 / 3)) < 0.005


def test_modality_dropout_works_in_training_only():
    tokens = {n: Tokens(torch.ones(500, 2, 4), torch.ones(500, 2, dtype=torch.bool)) for n in "ab"}
    present_BM = torch.ones(500, 2, dtype=torch.bool)
    intake = Intake(("a", "b"), 0.5)
    torch.manual_seed(0)
    assert not intake(tokens, present_BM).present_BM.all()
    state = torch.get_rng_state()
    assert intake.eval()(tokens, present_BM).present_BM.all()
    assert torch.equal(state, torch.get_rng_state()), "evaluation draws no random number"


def test_mean_pool_is_the_mean_of_real_tokens():
    values_BTD = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]], [[1.0], [1.0], [1.0]]])
    mask_BT = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    assert mean_pool(Tokens(values_BTD, mask_BT)).flatten().tolist() == [2.0, 7.0, 0.0]


def test_attention_pool_starts_as_the_mean_and_then_follows_its_query():
    torch.manual_seed(0)
    tokens = Tokens(torch.randn(3, 5, 8), torch.arange(5)[None] < torch.tensor([[5], [2], [1]]))
    pool = AttentionPool(8)
    torch.testing.assert_close(pool(tokens), mean_pool(tokens))
    with torch.no_grad():
        pool.query_D.copy_(torch.randn(8))
    score = F.layer_norm(tokens.values_BTD[1, :2], (8,)) @ pool.query_D / 8**0.5
    torch.testing.assert_close(pool(tokens)[1], score.softmax(0) @ tokens.values_BTD[1, :2])


def test_attention_equals_torch_multihead_attention_with_the_same_weights():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2, 0.0), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    query, key = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    expected, _ = theirs(query, key, key, key_padding_mask=~mask)
    torch.testing.assert_close(ours(query, key, mask), expected)


def test_block_equals_torch_pre_norm_encoder_layer_with_the_same_weights():
    torch.manual_seed(0)
    ours = Block(8, 2, 2, 0.0)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([ours.attention.q.weight, ours.attention.kv.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([ours.attention.q.bias, ours.attention.kv.bias]))
        theirs.self_attn.out_proj.load_state_dict(ours.attention.out.state_dict())
        theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
        theirs.linear2.load_state_dict(ours.mlp[3].state_dict())
    x = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    torch.testing.assert_close(ours(x, Tokens(x, mask)), theirs(x, src_key_padding_mask=~mask))
