"""BLEU, chrF and ROUGE from counts of every row, so that resampled rows cost a product.

Dimensions: R resamples, N rows.

Counted here, since the libraries of the field give totals or means and a server's base install has none of them; equal
to sacrebleu (BLEU, chrF) and rouge-score (ROUGE of English texts) in the tests. Scores are 0 to 100.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Tokenize = Literal["13a", "char"]
ORDERS = 4
"""n-grams of BLEU"""
CHARACTERS = 6
"""n-grams of chrF"""
_RULES_13A = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_CROWDED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""letters of alphabets that put no blanks between words, and Hangul, whose words carry much"""
_WORD = re.compile(
    _CROWDED.pattern
    + r"|[a-z0-9]+|(?:(?!"
    + _CROWDED.pattern
    + r")[^\W_a-z0-9])(?:(?!"
    + _CROWDED.pattern
    + r")[^\W_])*"
)


def words_13a(text: str) -> list[str]:
    """The words of mteval-v13a, sacrebleu's default."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for mark, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(mark, sign)
    text = f" {text} "
    for pattern, into in _RULES_13A:
        text = pattern.sub(into, text)
    return text.split()


def tokenize_for(texts: Sequence[str]) -> Tokenize:
    """`char` where most letters are of an alphabet without blanks between words: there 13a sees sentences as words."""
    letters = [c for text in texts for c in text if c.isalnum()]
    return "char" if letters and 2 * sum(bool(_CROWDED.match(c)) for c in letters) > len(letters) else "13a"


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def bleu_counts(answers: Sequence[str], references: Sequence[str], tokenize: Tokenize) -> np.ndarray:
    """(N, 10): for n = 1..4 the answer's n-grams that are right, then all of them; words of answer and reference."""
    cut: Callable[[str], list[str]] = words_13a if tokenize == "13a" else lambda text: list("".join(text.split()))
    out = np.zeros((len(answers), 2 * ORDERS + 2))
    for row, answer, reference in zip(out, answers, references, strict=True):
        a, b = cut(answer), cut(reference)
        for n in range(1, ORDERS + 1):
            ours, theirs = _ngrams(a, n), _ngrams(b, n)
            row[n - 1], row[ORDERS + n - 1] = (ours & theirs).total(), ours.total()
        row[-2:] = len(a), len(b)
    return out


def bleu(counts_R: np.ndarray) -> np.ndarray:
    """Corpus BLEU (Papineni et al. 2002) of summed counts (R, 10), zero counts smoothed as in sacrebleu (`exp`)."""
    out = np.zeros(len(counts_R))
    for r, row in enumerate(counts_R):
        right, of, length, wanted = row[:ORDERS], row[ORDERS : 2 * ORDERS], row[-2], row[-1]
        if not right.any():
            continue
        precisions, smooth = [], 1.0
        for hits, total in zip(right, of, strict=True):
            if total == 0:
                break
            if hits == 0:
                smooth *= 2
                precisions.append(100 / (smooth * total))
            else:
                precisions.append(100 * hits / total)
        if len(precisions) == ORDERS:
            brevity = 1.0 if length >= wanted else np.exp(1 - wanted / length)
            out[r] = brevity * np.exp(np.log(precisions).mean())
    return out


def chrf_counts(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """(N, 18): for n = 1..6 characters the n-grams of the answer, of the reference, and those in both. Blanks do not
    count."""
    out = np.zeros((len(answers), 3 * CHARACTERS))
    for row, answer, reference in zip(out, answers, references, strict=True):
        a, b = "".join(answer.split()), "".join(reference.split())
        for n in range(1, CHARACTERS + 1):
            ours, theirs = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (a, b))
            both = (ours & theirs).total()
            # As in sacrebleu: a reference shorter than n says nothing of an answer's n-grams.
            row[3 * n - 3 : 3 * n] = ours.total() if theirs else 0, theirs.total(), both
    return out


def chrf(counts_R: np.ndarray, beta: float = 2.0) -> np.ndarray:
    """Corpus chrF2 (Popović 2015) of summed counts (R, 18): F_β of the mean precision and the mean recall over n."""
    parts = counts_R.reshape(len(counts_R), CHARACTERS, 3)
    ours, theirs, both = parts[..., 0], parts[..., 1], parts[..., 2]
    known = (ours > 0) & (theirs > 0)
    orders_R = np.maximum(known.sum(axis=1), 1)
    precision_R, recall_R = (
        np.divide(both, of, out=np.zeros_like(both), where=known).sum(axis=1) / orders_R for of in (ours, theirs)
    )
    bottom_R = beta**2 * precision_R + recall_R
    top_R = 100 * (1 + beta**2) * precision_R * recall_R
    return np.asarray(np.divide(top_R, bottom_R, out=np.zeros_like(top_R), where=bottom_R > 0))


def rouge_words(text: str) -> list[str]:
    """Lower-cased words. Of English as in rouge-score; there, letters beyond a to z are no letters, here they are, and
    alphabets without blanks count by the letter."""
    return _WORD.findall(text.lower())


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) of every row (N,)."""
    out = {name: np.zeros(len(answers)) for name in ("rouge1", "rouge2", "rougeL")}
    for i, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        a, b = rouge_words(answer), rouge_words(reference)
        for name, n in (("rouge1", 1), ("rouge2", 2)):
            ours, theirs = _ngrams(a, n), _ngrams(b, n)
            out[name][i] = _f1((ours & theirs).total(), ours.total(), theirs.total())
        out["rougeL"][i] = _f1(_common(a, b), len(a), len(b))
    return out


def _f1(both: int, ours: int, theirs: int) -> float:
    return 200 * both / (ours + theirs) if both else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]
