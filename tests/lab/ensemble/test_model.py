"""The mean of several models' answers, and what folds must have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made import recipe

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.ensemble.model import Recode, mean_of_classes, mean_of_labels, mean_of_numbers
from fuseline.lab.ensemble.same import check_ensemble, joined
from fuseline.modalities import MediaRoot
from fuseline.modalities.tabular import Tabular, TabularConfig
from fuseline.modalities.text import Text, TextConfig
from fuseline.recipe import parse_recipe


def outputs(seed: int, **shapes: tuple[int, ...]) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{k: 20 * torch.randn(s, generator=generator) for k, s in shapes.items()} for _ in range(3)]


def test_the_mean_of_classes_is_the_mean_of_their_probabilities() -> None:
    members = outputs(0, logits=(4, 5))
    wanted = torch.stack([m["logits"].softmax(-1) for m in members]).mean(0)
    torch.testing.assert_close(mean_of_classes(members)["logits"].softmax(-1), wanted)


def test_the_mean_of_labels_is_the_mean_of_their_probabilities() -> None:
    members = outputs(1, logits=(4, 5))
    wanted = torch.stack([m["logits"].sigmoid() for m in members]).mean(0)
    torch.testing.assert_close(mean_of_labels(members)["logits"].sigmoid(), wanted)
    extreme = [{"logits": torch.tensor([[1e4, -1e4]])}] * 2
    assert mean_of_labels(extreme)["logits"].isfinite().all()


def test_quantiles_still_rise_and_embeddings_have_no_mean() -> None:
    members = [
        {**m, "forecast": m["forecast"].sort(-1).values} for m in outputs(2, forecast=(2, 3, 1, 5), embedding=(2, 8))
    ]
    found = mean_of_numbers(members)
    assert set(found) == {"forecast"}
    assert (found["forecast"].diff(dim=-1) >= 0).all()


def tables(*cells: list[str]) -> list[Tabular]:
    columns = {"ward": "category", "age": "number"}
    config, media = TabularConfig(min_count=1), MediaRoot(None)
    return [Tabular.fit(config, columns, [{"ward": w, "age": i} for i, w in enumerate(own)], media) for own in cells]


def test_each_member_reads_the_categories_that_it_met() -> None:
    members = tables(["a", "a", "b"], ["c", "c", "b"])
    union, recodes = joined("vitals", members)
    assert isinstance(union, Tabular)
    assert recodes is not None
    for cell in ("a", "b", "c", "never", None):
        row = {"ward": cell, "age": 1.0}
        common = union.collate([union.parse(row, MediaRoot(None))])["categories"]
        for member, recode in zip(members, recodes, strict=True):
            own = member.collate([member.parse(row, MediaRoot(None))])["categories"]
            np.testing.assert_array_equal(recode(torch.from_numpy(common)).numpy(), own)


def test_folds_with_the_same_categories_need_no_recoding() -> None:
    union, recodes = joined("vitals", tables(["a", "b"], ["a", "b"]))
    assert recodes is None
    assert isinstance(union, Tabular)


def test_texts_of_vocabularies_of_their_own_are_refused() -> None:
    texts = [
        Text.fit(TextConfig(), {"note": ""}, [{"note": words}] * 4, MediaRoot(None))
        for words in ("red green", "blue one")
    ]
    with pytest.raises(FuselineError, match="its own tokenizer") as caught:
        joined("note", texts)
    assert caught.value.code == "unlike_folds"
    assert "pretrained" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": {"kind": "random"}}, "cross-validation"),
        ({"task": {"kind": "retrieval", "left": ["note"], "right": ["photo"]}}, "no mean"),
        ({"fusion": {"kind": "stacked"}}, "boosted trees"),
    ],
)
def test_what_has_no_ensemble_is_said_before_training(changes: dict[str, object], said: str) -> None:
    given = parse_recipe(recipe(**{"split": {"kind": "random", "folds": 2}, **changes}))
    with pytest.raises(FuselineError, match=said):
        check_ensemble(given)


def test_recode_is_a_lookup() -> None:
    recode = Recode(np.array([[0, 1, 2], [0, 1, 1]]))
    assert recode(torch.tensor([[2, 2], [0, 1]])).tolist() == [[2, 1], [0, 1]]


def test_a_folder_without_folds_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="is no cross-validation"):
        api.ensemble(tmp_path)
