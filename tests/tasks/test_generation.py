"""Texts to targets and back, and their scores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseline.errors import FuselineError
from fuseline.tasks import task_class, vocabulary
from fuseline.tasks.base import Decoded
from fuseline.tasks.decoding import PAD, Decoding
from fuseline.tasks.generation import Generation, GenerationConfig

TEXTS = ["a red boat", "a blue boat on the sea", "咳嗽 and fever", "Кашель.", "two\nlines", "", None]


def fitted(texts: list[Any] | None = None, **options: Any) -> Generation:
    config = GenerationConfig.model_validate({"target": "t", **options})
    return Generation.fit(config, {"t": TEXTS * 3 if texts is None else texts})


LONG = fitted(max_length=256)


def written(task: Generation, texts: list[str]) -> dict[str, np.ndarray]:
    """Outputs that say these texts."""
    ids = np.full((len(texts), task.length), PAD, np.int64)
    for row, text in zip(ids, texts, strict=True):
        target = task.encode({"t": text})
        assert target is not None
        row[:] = target[: task.length]
    return {"ids": ids, "log_chances": np.where(ids == PAD, 0.0, -0.5).astype(np.float32)}


def test_a_text_goes_through_and_back() -> None:
    task = fitted()
    assert task_class("generation") is Generation
    kept = [t for t in TEXTS if t is not None]
    for answer, text in zip(task.decode(written(task, kept)), kept, strict=True):
        assert answer.value == text
        assert answer.details is not None
        assert answer.details["finish"] == "stop"
        assert answer.details["log_chance"] == -0.5
    again = Generation.from_state(json.loads(json.dumps(task.state())))
    assert again.state() == task.state()
    for text in kept:
        np.testing.assert_array_equal(again.encode({"t": text}), task.encode({"t": text}))


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30))
def test_any_text_of_any_alphabet_goes_through_and_back(text: str) -> None:
    task = LONG
    [answer] = task.decode(written(task, [text]))
    target = task.encode({"t": text})
    assert target is not None
    [reference] = task.references(target[None])
    assert answer.value == vocabulary.clean(text)
    assert reference == vocabulary.clean(text)[: task.room]


def test_a_text_that_says_the_signs_of_the_vocabulary() -> None:
    task = fitted([*(t for t in TEXTS if t), "he said </s> and <s> then <pad>"], max_length=64)
    text = "he said </s> and <s> then <pad>"
    assert task.decode(written(task, [text]))[0].value == text


def test_absent_and_empty_are_not_the_same() -> None:
    task = fitted()
    assert task.encode({"t": None}) is None
    assert task.encode({"t": float("nan")}) is None
    empty = task.encode({"t": "  "})
    assert empty is not None
    assert empty[0] == task.end_ids[0]
    assert (empty[1:] == PAD).all()
    with pytest.raises(FuselineError) as caught:
        task.encode({"t": ["a"]})
    assert caught.value.code == "bad_cell"
    for texts in ([None], ["", None], []):
        with pytest.raises(FuselineError) as caught:
            fitted(texts)
        assert caught.value.code == "no_target"


def test_long_targets_are_cut_for_learning_and_whole_for_scoring() -> None:
    long = "word " * 400
    task = fitted(["a short one", long] * 3, max_length=10)
    assert task.notes == ("t: 3 of 6 training texts are learned up to token 10 only",)
    target = task.encode({"t": long})
    assert target is not None
    assert target.shape == (10 + task.room,)
    assert task.end_ids[0] not in target[:10], "a cut text does not end there"
    assert task.references(target[None]) == [long.strip()]
    assert fitted(["a", "b c"]).length < 10, "as long as the longest"
    assert fitted([long, "a"], max_length=None).length <= 128


def test_scores_and_their_intervals() -> None:
    task = fitted()
    wanted = ["a red boat", "a blue boat on the sea", "咳嗽 and fever", "a red boat"] * 6
    said = ["a red boat", "a red boat on the sea", "fever", ""] * 6
    targets = np.stack([task.encode({"t": t}) for t in wanted])  # type: ignore[misc]
    perfect = task.score(targets, written(task, wanted), bootstrap=50)
    assert {k: round(m.value, 6) for k, m in perfect.metrics.items()} == {
        "bleu": 100,
        "chrf": 100,
        "rouge1": 100,
        "rouge2": 100,
        "rougeL": 100,
        "exact": 1,
    }
    found = task.score(targets, written(task, said), bootstrap=200, seed=1)
    for name, metric in found.metrics.items():
        assert metric.low is not None, name
        assert metric.high is not None
        assert metric.low <= metric.value <= metric.high
        assert 0 < metric.value < 100
    assert found.metrics["exact"].value == 0.25
    told = found.details["texts"]
    assert (told["distinct"], told["distinct_references"], told["empty"], told["unfinished"]) == (4, 3, 6, 0)
    outputs = written(task, said)
    judged = task.judge(targets, outputs, task.decode(outputs))["error"]
    assert judged[0] == 0
    assert judged[3] == 100
    assert task.scale(outputs).shape == (24, 1)
    assert task.summary({"train": {"t": wanted}, "test": {"t": [None]}})["characters"]["test"] == []


def test_while_it_learns_it_is_scored_by_loss() -> None:
    task = fitted()
    targets = np.stack([task.encode({"t": t}) for t in ("a", "b")])  # type: ignore[misc]
    scores = task.score(targets, {"nll": np.array([6.0, 2.0]), "tokens": np.array([3.0, 1.0])})
    metric = scores.metrics[task.watched]
    assert metric.value == 2.0
    assert not metric.higher_is_better


def steps_saying(task: Generation, text: str) -> tuple[dict[str, np.ndarray], Any]:
    """A model that says one text."""
    ids = [*task.tokenizer.encode(text, add_special_tokens=False).ids, task.end_ids[0]]

    def logits(place: int) -> np.ndarray:
        return np.eye(task.vocab_size)[ids[place]][None] * 20.0

    def step(given: np.ndarray, state: dict[str, np.ndarray]) -> Any:
        place = state["cache.at"] + 1
        return logits(min(int(place[0]), len(ids) - 1)).repeat(len(given), axis=0), {"cache.at": place}

    return {"logits": logits(0), "cache.at": np.zeros(1), "embedding": np.ones((1, 2))}, step


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_a_stream_adds_up_to_the_answer(strategy: str) -> None:
    task, text = fitted(max_length=64), "a boat 咳嗽\nКашель 🙂 on the sea"
    outputs, step = steps_saying(task, text)
    *pieces, last = task.stream(outputs, step, Decoding(strategy=strategy))
    assert isinstance(last, Decoded)
    assert last.value == "".join(pieces) == text
    assert not any("\ufffd" in p for p in pieces)
    assert len([p for p in pieces if p]) > 5
    [whole] = task.decode(task.complete(outputs, step, Decoding(strategy=strategy)))
    assert (whole.value, whole.details) == (last.value, last.details)


@pytest.mark.parametrize("stop", [["sea"], ["boat 咳"], ["嗽"], ["nowhere", "\n", "Каш"], ["a"], ["🙂 on"]])
def test_a_stream_ends_before_a_stop(stop: list[str]) -> None:
    task, text = fitted(max_length=64), "a boat 咳嗽\nКашель 🙂 on the sea"
    outputs, step = steps_saying(task, text)
    *pieces, last = task.stream(outputs, step, stop=stop)
    assert isinstance(last, Decoded)
    cut = text[: min(at for s in stop if (at := text.find(s)) >= 0)]
    assert last.value == "".join(pieces) == cut
    assert last.details is not None
    assert last.details["finish"] == "stop"


def test_a_tokenizer_of_another_house_needs_its_ids() -> None:
    text = vocabulary.train(["a b c"], 300).to_str()
    with pytest.raises(FuselineError, match="start_id"):
        fitted(tokenizer=text)
    task = fitted(tokenizer=text, start_id=0, end_ids=[2, 5])
    assert (task.start_id, task.end_ids, task.rules.banned) == (0, (2, 5), (0,))
    with pytest.raises(FuselineError) as caught:
        fitted(tokenizer="{}", start_id=0, end_ids=[2])
    assert caught.value.code == "bad_tokenizer"
