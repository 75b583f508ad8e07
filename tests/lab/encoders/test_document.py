"""Pages: the place of a word matters, and what is not there does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fuseline.errors import FuselineError
from fuseline.lab.encoders.document import SmallDocument, SmallDocumentConfig
from fuseline.lab.tokens import Tokens
from fuseline.modalities import MediaRoot
from fuseline.modalities.document import Document, DocumentConfig

NAMES = ("alpha", "beta", "gamma", "delta")
CORNERS = ((0.05, 0.05), (0.7, 0.05), (0.05, 0.8), (0.7, 0.8))


def form(rng: np.random.Generator) -> tuple[list[dict[str, Any]], int]:
    """All four words, one in each corner, told in any order. The label is the word at the top right."""
    order = rng.permutation(4)
    words = []
    for name, (x, y) in zip(order, CORNERS, strict=True):
        dx, dy = rng.uniform(0, 0.08, 2)
        words.append({"text": NAMES[name], "box": [x + dx, y + dy, x + dx + 0.15, y + dy + 0.05]})
    return [words[i] for i in rng.permutation(4)], int(order[1])


@pytest.fixture(scope="module")
def modality() -> Document:
    rng = np.random.default_rng(0)
    config = DocumentConfig(size=32, vocab_size=300, max_length=16, boxes="share")
    rows = [{"ocr": form(rng)[0]} for _ in range(20)]
    return Document.fit(config, {"scan": "image", "ocr": "words"}, rows, MediaRoot())


def built(modality: Document, **options: Any) -> SmallDocument:
    config = SmallDocumentConfig(**{"width": 32, "layers": 1, "patch": 16, "dropout": 0, "token_dropout": 0, **options})
    return SmallDocument(config, modality)


def tensors(modality: Document, pages: list[Any]) -> dict[str, torch.Tensor]:
    values = [None if p is None else modality.parse({"ocr": p}, MediaRoot()) for p in pages]
    return {k: torch.from_numpy(v) for k, v in modality.collate(values).items()}


def accuracy(modality: Document, blind: bool) -> float:
    """On unseen forms; `blind`: every word stands at the same place."""
    rng = np.random.default_rng(1)
    forms = [form(rng) for _ in range(900)]
    arrays = tensors(modality, [f for f, _ in forms])
    if blind:
        arrays["boxes"][:, 1:] = 500
    labels = torch.tensor([label for _, label in forms])
    torch.manual_seed(0)
    encoder, head = built(modality), torch.nn.Linear(32, 4)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)

    def logits(rows: slice) -> torch.Tensor:
        return head(encoder(**{k: v[rows] for k, v in arrays.items()}).values_BTD[:, 0])

    for step in range(120):
        at = slice(step % 10 * 64, step % 10 * 64 + 64)
        loss = F.cross_entropy(logits(at), labels[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    with torch.no_grad():
        return float((logits(slice(640, None)).argmax(1) == labels[640:]).float().mean())


def test_where_a_word_stands_is_learned(modality: Document) -> None:
    assert accuracy(modality, blind=False) > 0.95
    assert accuracy(modality, blind=True) < 0.4


def test_padding_and_an_absent_picture_change_nothing(
    modality: Document, same_tokens: Callable[[Tokens, Tokens, float], None]
) -> None:
    encoder = built(modality).eval()
    short, long = form(np.random.default_rng(2))[0][:1], form(np.random.default_rng(3))[0]
    given = tensors(modality, [short, long])
    with torch.no_grad():
        before = encoder(**given)
        given["pixels"][:] = 255
        given["ids"][0, len(modality.parse({"ocr": short}, MediaRoot())) :] = 7
        same_tokens(before, encoder(**given), 1e-6)
        alone = encoder(**tensors(modality, [short]))
        real = alone.values_BTD[0][alone.mask_BT[0]]
        torch.testing.assert_close(before.values_BTD[0][before.mask_BT[0]], real, atol=1e-5, rtol=0)


def test_the_picture_is_looked_at_where_it_is(modality: Document) -> None:
    encoder = built(modality).eval()
    given = tensors(modality, [form(np.random.default_rng(2))[0]])
    given["pictured"][:] = True
    with torch.no_grad():
        one = encoder(**given)
        given["pixels"][:, 4:9, 20:] = 255
        two = encoder(**given)
    assert one.mask_BT.sum() == given["mask"].sum() + 4
    assert (one.values_BTD[:, 0] - two.values_BTD[:, 0]).abs().max() > 1e-3


def test_it_exports(modality: Document, export: Callable[..., Any], same_tokens: Callable[..., None]) -> None:
    encoder = built(modality).eval()
    pages = [form(np.random.default_rng(i))[0] for i in range(3)]
    length = torch.export.Dim("T", min=1, max=16)
    dims = {key: {1: length} for key in ("ids", "boxes", "mask")}
    run = export(encoder, tensors(modality, pages), dims)
    for some in (pages[:1], [None], [pages[0] * 9, None, pages[1][:1]]):
        given = tensors(modality, some)
        given["pictured"][0] = True
        with torch.no_grad():
            same_tokens(encoder(**given), run(given), 1e-4)


def test_a_patch_that_does_not_divide_the_page(modality: Document) -> None:
    with pytest.raises(FuselineError, match="whole patches"):
        built(modality, patch=10)
