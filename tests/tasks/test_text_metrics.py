"""Our counting against the field's own libraries."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from fuseline.tasks import text_metrics as m

WORDS = ["the", "cat,", "sat.", "on", "a", "mat-3", "3.5%", "of", "(old)", "wood", "don't", "A", "B", "&amp;", "it's"]
sentence = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
letters = st.text(alphabet="ab c.é咳嗽 Ж-1", max_size=12)


def corpus(one: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(one, one), min_size=1, max_size=6)


@settings(deadline=None)
@given(corpus(sentence) | corpus(letters))
def test_bleu_and_chrf_are_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    answers, wanted = (list(part) for part in zip(*pairs, strict=True))
    once = np.ones((1, len(pairs)))
    for kind in ("13a", "char"):
        ours = m.bleu(once @ m.bleu_counts(answers, wanted, kind))[0]
        assert ours == pytest.approx(sacrebleu.corpus_bleu(answers, [wanted], tokenize=kind).score, abs=1e-9)
    ours = m.chrf(once @ m.chrf_counts(answers, wanted))[0]
    assert ours == pytest.approx(sacrebleu.corpus_chrf(answers, [wanted]).score, abs=1e-9)


@settings(deadline=None)
@given(corpus(sentence))
def test_rouge_is_rouge_scores(pairs: list[tuple[str, str]]) -> None:
    answers, wanted = (list(part) for part in zip(*pairs, strict=True))
    ours = m.rouge(answers, wanted)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for i, (a, b) in enumerate(pairs):
        for name, found in scorer.score(b, a).items():
            assert ours[name][i] == pytest.approx(100 * found.fmeasure, abs=1e-9)


@settings(deadline=None)
@given(corpus(sentence), st.integers(0, 5))
def test_weights_are_rows_given_that_often(pairs: list[tuple[str, str]], seed: int) -> None:
    answers, wanted = (list(part) for part in zip(*pairs, strict=True))
    times = np.random.default_rng(seed).integers(0, 3, len(pairs))
    again = [i for i, n in enumerate(times) for _ in range(n)]
    more, most = [answers[i] for i in again], [wanted[i] for i in again]
    for counts, score in ((m.bleu_counts(answers, wanted, "13a"), m.bleu), (m.chrf_counts(answers, wanted), m.chrf)):
        rows = {m.bleu: lambda a, b: m.bleu_counts(a, b, "13a"), m.chrf: m.chrf_counts}[score](more, most)
        assert score((times @ counts)[None])[0] == pytest.approx(score(rows.sum(axis=0)[None])[0], abs=1e-9)


def test_other_alphabets_have_words() -> None:
    assert m.rouge_words("Été à 咳嗽: foo_bar, Привет 3.5") == [
        "été",
        "à",
        "咳",
        "嗽",
        "foo",
        "bar",
        "привет",
        "3",
        "5",
    ]
    assert m.rouge(["咳嗽 и кашель"], ["咳嗽 и кашель"])["rougeL"][0] == 100
    assert m.rouge(["сухой кашель"], ["кашель"])["rouge1"][0] == pytest.approx(200 / 3)
    assert m.tokenize_for(["咳嗽", "发热 x"]) == "char"
    assert m.tokenize_for(["a dry cough", "Été", ""]) == "13a"


def test_empty_texts_are_no_error() -> None:
    assert m.rouge(["", "a", ""], ["", "", "a"])["rougeL"].tolist() == [0, 0, 0]
    counts = m.bleu_counts(["", "a b c d e"], ["a", "a b c d e"], "13a")
    assert m.bleu(counts[:1])[0] == 0
    assert m.bleu(counts[1:])[0] == pytest.approx(100)
    assert m.chrf(m.chrf_counts([""], [""]))[0] == 0
