from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.encoders.tabular import Piecewise, Scaler, SmallTabular, SmallTabularConfig
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.tabular import Tabular
from fuseline.recipe import read_options

KINDS = ("piecewise", "periodic", "linear")


def features(numbers: int = 3, cardinalities: tuple[int, ...] = (5, 3)) -> Any:
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        number_names=tuple(f"n{i}" for i in range(numbers)),
        category_names=tuple(f"c{i}" for i in range(len(cardinalities))),
        cardinalities=cardinalities,
        quantiles=np.sort(rng.normal(size=(numbers, 9)) * 100, axis=1).astype(np.float32),
        mean=np.zeros(numbers, np.float32),
        std=np.ones(numbers, np.float32),
    )


def make(modality: Any = None, **options: Any) -> SmallTabular:
    torch.manual_seed(0)
    return SmallTabular(SmallTabularConfig(width=16, **options), modality or features()).eval()


def rows(count: int, numbers: int = 3, cardinalities: tuple[int, ...] = (5, 3)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    out = {}
    if numbers:
        out["numbers"] = torch.randn(count, numbers, generator=generator) * 100
        out["numbers_present"] = torch.rand(count, numbers, generator=generator) > 0.3
        out["numbers"][~out["numbers_present"]] = 0.0
    if cardinalities:
        drawn = [torch.randint(0, c, (count,), generator=generator) for c in cardinalities]
        out["categories"] = torch.stack(drawn, dim=1)
    return out


def dummy() -> dict[str, Tensor]:
    zeros = torch.zeros(1, 3)
    return {"numbers": zeros, "numbers_present": zeros > 0, "categories": torch.zeros(1, 2, dtype=torch.int64)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent", ["token", "masked"])
def test_one_token_a_feature_whatever_the_neighbours(kind: str, absent: str) -> None:
    encoder = make(numbers=kind, absent=absent)
    arrays = {key: torch.cat([value, dummy()[key]]) for key, value in rows(6).items()}
    tokens = encoder(**arrays)
    assert tokens.values_BTD.shape == (7, 5, 16)
    assert torch.isfinite(tokens.values_BTD).all()
    assert tokens.mask_BT.any(dim=1).all()
    if absent == "token":
        assert tokens.mask_BT.all()
    else:
        real = torch.cat([arrays["numbers_present"], arrays["categories"] != 0], dim=1)
        assert torch.equal(tokens.mask_BT[:6], real[:6])
    for i in range(7):
        alone = encoder(**{key: value[i : i + 1] for key, value in arrays.items()})
        torch.testing.assert_close(alone.values_BTD[0], tokens.values_BTD[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "numbers", "cardinalities"),
    [("piecewise", 3, (5, 3)), ("periodic", 2, (4,)), ("linear", 1, ()), ("linear", 0, (4,))],
)
def test_the_exported_graph_gives_the_same_tokens(  # type: ignore[no-untyped-def]
    export, same_tokens, kind, numbers, cardinalities
) -> None:
    encoder = make(features(numbers, cardinalities), numbers=kind)
    graph = export(encoder, rows(3, numbers, cardinalities), {})
    for count in (1, 2, 5):
        arrays = rows(count, numbers, cardinalities)
        same_tokens(graph(arrays), encoder(**arrays), 1e-4)


def test_the_masked_graph_takes_a_row_without_features(export, same_tokens) -> None:  # type: ignore[no-untyped-def]
    encoder = make(absent="masked")
    graph = export(encoder, rows(3), {})
    same_tokens(graph(dummy()), encoder(**dummy()), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_absent_number_holds_does_not_matter(kind: str) -> None:
    encoder, arrays = make(numbers=kind), rows(4)
    arrays["numbers_present"][:, 1] = False
    tokens = encoder(**arrays).values_BTD
    for filler in (math.nan, math.inf, 1e30):
        arrays["numbers"][:, 1] = filler
        assert torch.equal(encoder(**arrays).values_BTD, tokens)


def test_absent_differs_from_every_value_and_zero() -> None:
    encoder, arrays = make(layers=0), dummy()
    absent = encoder(**arrays).values_BTD
    zero = encoder(**{**arrays, "numbers_present": torch.ones(1, 3, dtype=torch.bool)}).values_BTD
    assert (absent[:, :3] - zero[:, :3]).abs().amax(dim=2).min() > 1e-3
    seen = [encoder(**{**arrays, "categories": torch.full((1, 2), i)}).values_BTD[:, 3:] for i in range(3)]
    assert all((seen[i] - seen[j]).abs().max() > 1e-3 for i in range(3) for j in range(i))


def test_piecewise_is_the_published_formula() -> None:
    encode = Piecewise(np.array([[0.0, 1.0, 3.0, 7.0], [2.0, 2.0, 2.0, 4.0]], np.float32), 16)
    got = encode(torch.tensor([[2.0, 3.0], [-5.0, 1.0], [99.0, 1e30]]))
    expected = [[[1, 0.5, 0], [0, 0, 0.5]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [0, 0, 1]]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32))


def test_more_edges_than_bins_keep_both_ends() -> None:
    encode = Piecewise(np.arange(50, dtype=np.float32)[None], 4)
    assert encode.size == 4
    assert encode.edges[0, 0] == 0
    assert encode.edges[0, -1] + encode.widths[0, -1] == 49


def test_the_scale_is_robust_and_never_nought() -> None:
    quantiles = np.array([[-1, 0, 1, 2, 3], [5, 5, 5, 5, 1e6], [4, 4, 4, 4, 4]], np.float32)
    scaler = Scaler(quantiles, np.array([1.0, 300.0, 1.0], np.float32))
    got = scaler(torch.tensor([[1.0, 5.0, 4.0], [1e30, 305.0, 5.0]]))
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 0.0], [8.0, 1.0, 1.0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_for_training_only_and_every_weight_learns(kind: str) -> None:
    encoder, arrays = make(numbers=kind, dropout=0.0, feature_dropout=0.5), rows(64)
    assert torch.equal(encoder(**arrays).values_BTD, encoder(**arrays).values_BTD)
    encoder.train()
    first = encoder(**arrays).values_BTD
    assert not torch.equal(first, encoder(**arrays).values_BTD)
    first.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_reads_the_real_modality_and_its_dummy() -> None:
    columns = {"age": "number", "fixed": "number", "sex": "category", "smoker": "boolean", "seen": "date"}
    cells = [
        {"age": a, "fixed": 1, "sex": s, "smoker": "yes", "seen": f"2020-01-0{a % 9 + 1}"}
        for a, s in zip(range(20, 60), "FM" * 20, strict=True)
    ]
    modality = Tabular.fit(Tabular.Config(), columns, iter(cells), MediaRoot())
    encoder = SmallTabular(SmallTabular.Config(), modality).eval()
    values = [modality.parse(row, MediaRoot()) for row in (*cells[:3], {"age": 1e12, "sex": "other"}, {})]
    assert values[-1] is None
    tokens = encoder(**{key: torch.from_numpy(value) for key, value in modality.collate(values).items()})
    assert tokens.values_BTD.shape == (5, len(modality.number_names) + 2, encoder.width)
    assert torch.isfinite(tokens.values_BTD).all()


@pytest.mark.parametrize("options", [{"width": 30}, {"numbers": "splines"}, {"layer": 2}, {"absent": "zero"}])
def test_impossible_options_name_the_path(options: dict[str, object]) -> None:
    with pytest.raises(FuselineError, match=r"inputs\.vitals\.encoder"):
        read_options(SmallTabular.Config, options, "inputs.vitals.encoder")


@pytest.mark.parametrize("kind", ["piecewise", "periodic"])
def test_a_number_that_matters_in_the_middle_is_learned(kind: str) -> None:
    """No line separates the middle from both ends; the other number is absent where it would tell."""
    torch.manual_seed(0)
    numbers = torch.rand(128, 2) * 4 - 2
    target = (numbers[:, 0].abs() < 1).long()
    modality = features(2, ())
    modality.quantiles = np.quantile(numbers.numpy(), np.linspace(0, 1, 9), axis=0).T.astype(np.float32)
    encoder = make(modality, numbers=kind, layers=0).train()
    head = torch.nn.Linear(16, 2)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)
    here = torch.ones(128, 2, dtype=torch.bool)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(head(encoder(numbers, here).values_BTD.mean(1)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    assert (head(encoder(numbers, here).values_BTD.mean(1)).argmax(1) == target).float().mean() > 0.9
