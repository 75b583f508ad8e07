from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.encoders.text import SmallText, SmallTextConfig
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.text import Text
from fuseline.recipe import read_options

TINY = SmallTextConfig(width=16, heads=2)


def make(config: SmallTextConfig = TINY) -> SmallText:
    torch.manual_seed(0)
    encoder = SmallText(config, SimpleNamespace(vocab_size=50)).eval()
    with torch.no_grad():  # zero biases would hide padding that leaks
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


def batch(*lengths: int) -> dict[str, Tensor]:
    ids = torch.randint(4, 50, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return {"ids": ids * mask, "mask": mask}


def test_a_row_does_not_see_its_neighbours_nor_their_padding() -> None:
    encoder = make(SmallTextConfig(width=16, heads=2, layers=2))
    lengths = (1, 9, 4, 30)
    arrays = batch(*lengths)
    tokens = encoder(**arrays)
    assert tokens.values_BTD.shape == (4, 30, 16)
    for i, length in enumerate(lengths):
        alone = encoder(**{key: value[i : i + 1, :length] for key, value in arrays.items()})
        assert tokens.mask_BT[i].sum() == length
        torch.testing.assert_close(alone.values_BTD[0], tokens.values_BTD[i, :length], atol=1e-5, rtol=0)


def test_order_of_words_matters() -> None:
    encoder = make()
    a = encoder(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.int64)).values_BTD
    b = encoder(torch.tensor([[7, 6, 5]]), torch.ones(1, 3, dtype=torch.int64)).values_BTD
    assert (a.mean(1) - b.mean(1)).abs().max() > 1e-3


def test_the_exported_graph_gives_the_same_tokens(export, same_tokens) -> None:  # type: ignore[no-untyped-def]
    encoder = make()
    length = torch.export.Dim("T", min=1, max=128)
    graph = export(encoder, batch(7, 5, 3), {"ids": {1: length}, "mask": {1: length}})
    for lengths in [(1,), (128,), (1, 1), (9, 40), (3, 1, 2, 5, 4)]:
        arrays = batch(*lengths)
        same_tokens(graph(arrays), encoder(**arrays), 1e-4)


def test_dropout_is_for_training_only_and_every_weight_learns() -> None:
    encoder, arrays = make(), batch(9, 4)
    assert torch.equal(encoder(**arrays).values_BTD, encoder(**arrays).values_BTD)
    encoder.train()
    first, second = encoder(**arrays).values_BTD, encoder(**arrays).values_BTD
    assert not torch.equal(first, second)
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_it_reads_the_real_modality_and_its_dummy() -> None:
    cells = [{"note": text} for text in ("no fever", "mild fever", "no cough", "strong cough and fever")]
    modality = Text.fit(Text.Config(max_length=8, vocab_size=300), {"note": ""}, iter(cells), MediaRoot())
    encoder = SmallText(SmallText.Config(), modality).eval()
    values = [modality.parse(cells[0], MediaRoot()), None]
    tokens = encoder(**{key: torch.from_numpy(value) for key, value in modality.collate(values).items()})
    assert tokens.values_BTD.shape[2] == encoder.width == 128
    assert torch.isfinite(tokens.values_BTD).all()


@pytest.mark.parametrize("options", [{"width": 30}, {"kernel": 4}, {"layer": 2}, {"dropout": 1.0}])
def test_impossible_options_name_the_path(options: dict[str, float]) -> None:
    with pytest.raises(FuselineError, match=r"inputs\.note\.encoder"):
        read_options(SmallText.Config, options, "inputs.note.encoder")


def test_few_short_texts_are_learned() -> None:
    """The class is which of two words comes first: needs order, not only a bag of words."""
    torch.manual_seed(0)
    ids = torch.randint(10, 50, (64, 6))
    target = torch.randint(0, 2, (64,))
    ids[:, 2] = torch.where(target == 1, 5, 6)
    ids[:, 3] = torch.where(target == 1, 6, 5)
    encoder, head = make().train(), torch.nn.Linear(16, 2)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)
    mask = torch.ones_like(ids)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(head(encoder(ids, mask).values_BTD.mean(1)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    accuracy = (head(encoder(ids, mask).values_BTD.mean(1)).argmax(1) == target).float().mean()
    assert accuracy > 0.95
