"""The loop over steps, on models of which everything is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseline.errors import FuselineError
from fuseline.tasks.decoding import PAD, Decoding, Forced, Rules, answer, log_softmax, picker, read_decoding

V, END = 5, 0


class Toy:
    """A language model as a table: the next token's logits are a function of the row and of all tokens so far."""

    def __init__(self, seed: int, rows: int = 3, words: int = V) -> None:
        self.seed, self.rows, self.words, self.steps = seed, rows, words, 0

    def logits(self, row: int, said: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([self.seed, row, *said]).normal(size=self.words) * 2

    def outputs(self, rows: list[int] | None = None) -> dict[str, np.ndarray]:
        rows = list(range(self.rows)) if rows is None else rows
        first = np.stack([self.logits(r, ()) for r in rows])
        return {
            "logits": first,
            "memory.row": np.array(rows, np.float32),
            "cache.said": np.zeros((len(rows), 0), np.float32),
            "embedding": first,
        }

    def __call__(self, ids: np.ndarray, state: dict[str, np.ndarray]) -> Any:
        self.steps += 1
        assert ids.shape == (len(state["memory.row"]), 1)
        said = np.concatenate([state["cache.said"], ids], axis=1)
        out = [self.logits(int(r), tuple(int(t) for t in s)) for r, s in zip(state["memory.row"], said, strict=True)]
        return np.stack(out), {**state, "cache.said": said.astype(np.float32)}


def chance(toy: Toy, row: int, ids: list[int]) -> float:
    return sum(log_softmax(toy.logits(row, tuple(ids[:i]))[None])[0, t] for i, t in enumerate(ids))


def ids_of(found: Any) -> list[list[int]]:
    return [[int(i) for i in row if i != PAD] for row in found.ids_BL]


seeds = st.integers(0, 10_000)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_greedy_takes_the_likeliest_and_rows_do_not_meet(seed: int) -> None:
    toy, rules = Toy(seed), Rules((END,), 6)
    found = answer(toy.outputs(), toy, Decoding(), rules)
    assert found.ids_BL.shape == (3, 6)
    for row, ids in enumerate(ids_of(found)):
        for i, token in enumerate(ids):
            assert token == toy.logits(row, tuple(ids[:i])).argmax()
        assert ids[-1] == END or len(ids) == 6
        assert END not in ids[:-1]
        assert found.log_chances_BL[row].sum() == pytest.approx(chance(toy, row, ids))
        assert ids_of(answer(toy.outputs([row]), toy, Decoding(), rules)) == [ids]
    followed = answer(toy.outputs(), toy, Forced(found.ids_BL), rules)
    np.testing.assert_array_equal(followed.ids_BL, found.ids_BL)
    np.testing.assert_allclose(followed.log_chances_BL, found.log_chances_BL)


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_beams_enough_for_all_texts_find_the_best_of_all(seed: int, penalty: float) -> None:
    toy, longest = Toy(seed, rows=2, words=3), 3
    how = Decoding(strategy="beam", beams=64, length_penalty=penalty)
    found = answer(toy.outputs(), toy, how, Rules((END,), longest))
    texts = [[*body, END] for n in range(longest) for body in itertools.product((1, 2), repeat=n)] + [
        list(t) for t in itertools.product((1, 2), repeat=longest)
    ]
    for row, ids in enumerate(ids_of(found)):
        best = max(chance(toy, row, t) / len(t) ** penalty for t in texts)
        assert chance(toy, row, ids) / len(ids) ** penalty == pytest.approx(best)
        assert found.log_chances_BL[row].sum() == pytest.approx(chance(toy, row, ids))


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 4))
def test_beams_are_alike_in_any_company_and_one_is_greedy(seed: int, beams: int) -> None:
    toy, rules = Toy(seed), Rules((END,), 6)
    how = Decoding(strategy="beam", beams=beams)
    together = ids_of(answer(toy.outputs(), toy, how, rules))
    for row in range(3):
        assert ids_of(answer(toy.outputs([row]), toy, how, rules)) == [together[row]]
    if beams == 1:
        assert together == ids_of(answer(toy.outputs(), toy, Decoding(), rules))


@settings(deadline=None, max_examples=40)
@given(seeds, seeds)
def test_samples_are_seeded_and_alike_in_any_company(seed: int, draw: int) -> None:
    toy, rules = Toy(seed), Rules((END,), 6)
    how = Decoding(strategy="sample", seed=draw, temperature=1.5)
    together = ids_of(answer(toy.outputs(), toy, how, rules))
    assert together == ids_of(answer(toy.outputs(), toy, how, rules))
    for row in range(3):
        assert ids_of(answer(toy.outputs([row]), toy, how, rules)) == [together[row]]
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        one = answer(toy.outputs(), toy, Decoding(strategy="sample", seed=draw, **narrow), rules)
        assert ids_of(one) == ids_of(answer(toy.outputs(), toy, Decoding(), rules))


def test_samples_follow_the_chances() -> None:
    log_1V = log_softmax(Toy(7).logits(0, ())[None])
    want = np.exp(log_1V[0])

    def shares(**how: Any) -> np.ndarray:
        picks = [picker(Decoding(strategy="sample", seed=s, **how), 1) for s in range(2000)]
        drawn = [int(pick(log_1V, 0, np.zeros(1, np.int64))[0]) for pick in picks]
        return np.bincount(drawn, minlength=V) / len(drawn)

    np.testing.assert_allclose(shares(), want, atol=0.04)
    best = np.sort(want)[::-1][:2]
    top = shares(top_k=2)
    np.testing.assert_allclose(np.sort(top)[::-1][:2], best / best.sum(), atol=0.04)
    assert (top > 0).sum() == 2
    nucleus = shares(top_p=float(best[0] + 1e-6))
    assert (nucleus > 0).sum() == 2, "the token that passes the mark is the last one"


def test_what_may_not_come_does_not() -> None:
    toy = Toy(3, rows=4)
    banned = ids_of(answer(toy.outputs(), toy, Decoding(), Rules((END,), 8, (1, 2))))
    assert not {1, 2} & {t for ids in banned for t in ids}
    for how in (Decoding(no_repeat=1), Decoding(no_repeat=2), Decoding(strategy="beam", beams=3, no_repeat=2)):
        for ids in ids_of(answer(toy.outputs(), toy, how, Rules((END,), 12))):
            runs = [tuple(ids[i : i + how.no_repeat]) for i in range(len(ids) - how.no_repeat + 1)]
            assert len(set(runs)) == len(runs)
    short = answer(toy.outputs(), toy, Decoding(max_tokens=2), Rules((), 8))
    assert [len(i) for i in ids_of(short)] == [2] * 4
    assert short.ids_BL.shape == (4, 8)


def test_rows_that_ended_cost_nothing() -> None:
    class Short(Toy):
        def logits(self, row: int, said: tuple[int, ...]) -> np.ndarray:
            return np.eye(self.words)[END if len(said) >= row else 1] * 9

    toy, widths = Short(0), []

    def step(ids: np.ndarray, state: dict[str, np.ndarray]) -> Any:
        widths.append(len(ids))
        return toy(ids, state)

    found = answer(toy.outputs(), step, Decoding(), Rules((END,), 9))
    assert [len(i) for i in ids_of(found)] == [1, 2, 3]
    assert widths == [2, 1]


def test_options_that_do_not_hold() -> None:
    for options in ({"beams": 0}, {"tempo": 2}, {"top_p": 0}, {"strategy": "best"}):
        with pytest.raises(FuselineError) as caught:
            read_decoding(options)
        assert caught.value.code == "bad_request"
        assert next(iter(options)) in str(caught.value)
