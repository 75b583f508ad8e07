"""What every fusion in the table must hold. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.fusion import FUSIONS, fusion_class
from fuseline.lab.tokens import Fused, Tokens
from fuseline.recipe import read_options

CASES = [
    *((kind, {}) for kind in FUSIONS),
    ("attention", {"bottleneck": 2}),
    ("concat", {"pooling": "mean"}),
    ("cross_attention", {"layers": 2, "self_layers": 0, "pooling": "mean"}),
]
IDS = [" ".join([kind, *(f"{k}={v}" for k, v in options.items())]) for kind, options in CASES]

every_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)


def rows_of(tokens: dict[str, Tokens], index: Tensor) -> dict[str, Tokens]:
    return {k: Tokens(t.values_BTD[index], t.mask_BT[index]) for k, t in tokens.items()}


def same(a: Fused, b: Fused, index: Tensor | slice = slice(None)) -> None:
    torch.testing.assert_close(a.pooled_BD, b.pooled_BD[index], rtol=1e-5, atol=1e-5)
    assert torch.equal(a.mask_BT, b.mask_BT[index])
    kept = a.mask_BT
    torch.testing.assert_close(a.tokens_BTD[kept], b.tokens_BTD[index][kept], rtol=1e-5, atol=1e-5)


@every_case
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shapes_and_no_nan_even_with_nothing_present(kind, options, count, make, inputs):
    tokens, present_BM = inputs(count)
    fused = make(kind, count, **options)(tokens, present_BM)
    assert fused.pooled_BD.shape == (6, 16)
    assert fused.tokens_BTD.shape == (*fused.mask_BT.shape, 16)
    assert fused.tokens_BTD.isfinite().all()
    assert fused.mask_BT.any(dim=1).all(), "a head that attends needs a token in every row"


@every_case
def test_with_nothing_present_the_answer_is_learned_and_always_the_same(kind, options, make, inputs):
    fusion = make(kind, **options)
    first, second = (fusion(t, torch.zeros_like(p)).pooled_BD for t, p in (inputs(seed=0), inputs(seed=5)))
    torch.testing.assert_close(first, second[:1].expand_as(first), rtol=0, atol=1e-6)
    assert (first.abs() > 1e-3).any()


@every_case
def test_what_is_present_matters_and_so_does_its_value(kind, options, make, inputs):
    fusion = make(kind, **options)
    tokens, _ = inputs()
    present_BM = torch.ones(6, 3, dtype=torch.bool)
    whole = fusion(tokens, present_BM).pooled_BD
    for m in range(3):
        without = present_BM.clone()
        without[:, m] = False
        assert (fusion(tokens, without).pooled_BD - whole).abs().amax(dim=1).min() > 1e-4
        values = tokens[f"m{m}"].values_BTD.flip(-1)
        changed = {**tokens, f"m{m}": Tokens(values, tokens[f"m{m}"].mask_BT)}
        assert (fusion(changed, present_BM).pooled_BD - whole).abs().amax(dim=1).min() > 1e-4


@every_case
def test_garbage_in_absent_rows_and_padding_reaches_neither_output_nor_gradient(kind, options, make, inputs):
    tokens, present_BM = inputs()

    def run(garbage: bool) -> tuple[Fused, list[Tensor], list[Tensor]]:
        fusion = make(kind, **options, dropout=0.0, modality_dropout=0.0).train()
        given, leaves = {}, []
        for i, (name, t) in enumerate(tokens.items()):
            hidden_BT = ~(t.mask_BT & present_BM[:, i, None])
            values = t.values_BTD.clone()
            values[hidden_BT] = torch.tensor([float("nan"), float("inf")] * 8) if garbage else 0.0
            leaves.append(values.requires_grad_())
            given[name] = Tokens(values, t.mask_BT)
        fused = fusion(given, present_BM)
        fused.pooled_BD.square().sum().add(fused.pooled_BD[:, 0].sum()).backward()
        return fused, [v.grad for v in leaves], [p.grad for p in fusion.parameters() if p.grad is not None]

    (clean, clean_inputs, clean_weights), (dirty, dirty_inputs, dirty_weights) = run(False), run(True)
    assert torch.equal(clean.pooled_BD, dirty.pooled_BD)
    for i, (a, b) in enumerate(zip(clean_inputs, dirty_inputs, strict=True)):
        assert torch.equal(a, b)
        hidden_BT = ~(tokens[f"m{i}"].mask_BT & present_BM[:, i, None])
        assert (b[hidden_BT] == 0).all()
        assert (b[~hidden_BT] != 0).any()
    for a, b in zip(clean_weights, dirty_weights, strict=True):
        assert torch.equal(a, b)
        assert b.isfinite().all()


@every_case
def test_longer_padding_changes_nothing(kind, options, make, inputs):
    fusion = make(kind, **options)
    tokens, present_BM = inputs()
    padded = {
        k: Tokens(
            torch.cat([t.values_BTD, torch.full((6, 4, 16), torch.nan)], dim=1),
            torch.cat([t.mask_BT, torch.zeros(6, 4, dtype=torch.bool)], dim=1),
        )
        for k, t in tokens.items()
    }
    a, b = fusion(tokens, present_BM), fusion(padded, present_BM)
    torch.testing.assert_close(a.pooled_BD, b.pooled_BD, rtol=1e-5, atol=1e-5)


@every_case
def test_a_row_answers_the_same_alone_and_in_any_company(kind, options, make, inputs):
    fusion = make(kind, **options)
    tokens, present_BM = inputs(rows=9)
    whole = fusion(tokens, present_BM)
    for row in range(9):
        index = torch.tensor([row])
        same(fusion(rows_of(tokens, index), present_BM[index]), whole, index)
    order = torch.tensor([4, 8, 0, 2, 7, 1, 3, 6, 5])
    same(fusion(rows_of(tokens, order), present_BM[order]), whole, order)


@every_case
def test_present_without_a_real_token_is_absent(kind, options, make, inputs):
    fusion = make(kind, **options)
    tokens, present_BM = inputs()
    empty = {**tokens, "m0": Tokens(tokens["m0"].values_BTD, torch.zeros_like(tokens["m0"].mask_BT))}
    without = present_BM.clone()
    without[:, 0] = False
    torch.testing.assert_close(fusion(empty, present_BM).pooled_BD, fusion(tokens, without).pooled_BD)


@every_case
def test_no_parameter_is_dead(kind, options, make, inputs):
    fusion = make(kind, 2, **options, modality_dropout=0.0).train()
    tokens, present_BM = inputs(2)
    (fusion(tokens, present_BM).pooled_BD * torch.arange(16.0)).sum().backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_case
def test_training_is_seeded_and_evaluation_draws_nothing(kind, options, make, inputs):
    fusion = make(kind, **options)
    tokens, present_BM = inputs()
    assert torch.equal(fusion(tokens, present_BM).pooled_BD, fusion(tokens, present_BM).pooled_BD)
    fusion.train()
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(fusion(tokens, present_BM).pooled_BD)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


class Flat(nn.Module):
    """A fusion with two inputs as plain arguments."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, a: Tensor, a_mask: Tensor, b: Tensor, b_mask: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.fusion({"m0": Tokens(a, a_mask), "m1": Tokens(b, b_mask)}, present))


def arguments(rows: int, length: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 100 + length)
    a_mask = torch.rand(rows, length, generator=generator) > 0.3
    present = torch.rand(rows, 2, generator=generator) > 0.4
    present[-1] = False
    a, b = (torch.randn(rows, n, 16, generator=generator) for n in (length, 1))
    return a, a_mask, b, torch.ones(rows, 1, dtype=torch.bool), present


@pytest.mark.parametrize(("kind", "options"), CASES[len(FUSIONS) : -1], ids=IDS[len(FUSIONS) : -1])
def test_exports_with_any_batch_and_length(kind, options, make, tmp_path: Path):
    """Kinds as they come are exported by the conformance suite."""
    model = Flat(make(kind, 2, **options)).eval()
    batch, length = torch.export.Dim("B", min=1, max=64), torch.export.Dim("T", min=1, max=64)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter's own internals
        program = torch.onnx.export(
            model,
            arguments(3, 6),
            dynamo=True,
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}, {0: batch}, {0: batch}, {0: batch}),
            input_names=["a", "a_mask", "b", "b_mask", "present"],
            output_names=["pooled", "tokens", "mask"],
            verbose=False,
        )
    program.save(tmp_path / "graph.onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", settings, providers=["CPUExecutionProvider"])
    for rows in (1, 2, 5):
        for tokens in (1, 7):
            given = arguments(rows, tokens)
            feed = dict(zip(["a", "a_mask", "b", "b_mask", "present"], (x.numpy() for x in given), strict=True))
            with torch.no_grad():
                expected = model(*given)
            for want, got in zip(expected, session.run(None, feed), strict=True):
                np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "cross_attention"])
def test_heads_must_divide_the_width(kind):
    cls = fusion_class(kind)
    with pytest.raises(FuselineError, match="heads") as caught:
        cls(cls.Config(heads=5), names=("a",), width=16)
    assert caught.value.code == "bad_recipe"


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_misspelt_option_is_named(kind):
    with pytest.raises(FuselineError, match=r"fusion\.modality_dropuot.*'modality_dropout'"):
        read_options(fusion_class(kind).Config, {"modality_dropuot": 0.1}, "fusion")


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_option_is_described(kind):
    assert [n for n, f in fusion_class(kind).Config.model_fields.items() if not f.description] == []
