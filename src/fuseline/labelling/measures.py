"""How unsure a model is of a row. Larger is less sure. Dimensions: N rows, C classes or labels, K committee members."""

from __future__ import annotations

import numpy as np

MEASURES = ("entropy", "margin", "least_confidence", "disagreement")


def unsure(chances_NC: np.ndarray, measure: str, *, several: bool) -> np.ndarray:
    """(N,) in [0, 1]. `several`: any number of labels a row, each with a chance of its own.

    entropy: -Σ p·log p over its most, log C (several: mean over labels, two outcomes each). margin: 1 less the distance
    of the two likeliest classes (several: of the nearest label from one half, doubled). least_confidence: 1 - max p
    over its most (several: of the least sure label). Settles 2009, "Active Learning Literature Survey", 3.1.
    """
    p_NC = np.clip(np.asarray(chances_NC, np.float64), 0.0, 1.0)
    if several:
        p_NC2 = np.stack([p_NC, 1 - p_NC], axis=2)
        if measure == "entropy":
            return np.asarray(-_plogp(p_NC2).sum(axis=2).mean(axis=1) / np.log(2))
        return np.asarray(1 - np.abs(2 * p_NC - 1).min(axis=1))
    classes = max(2, p_NC.shape[1])
    if measure == "entropy":
        return np.asarray(-_plogp(p_NC).sum(axis=1) / np.log(classes))
    top_NC = -np.sort(-p_NC, axis=1)
    if measure == "margin":
        return np.asarray(1 - (top_NC[:, 0] - (top_NC[:, 1] if p_NC.shape[1] > 1 else 0.0)))
    return np.asarray((1 - top_NC[:, 0]) / (1 - 1 / classes))


def _plogp(p: np.ndarray) -> np.ndarray:
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def disagreement(answers_KNC: np.ndarray, valid_KN: np.ndarray, *, classes: bool, several: bool = False) -> np.ndarray:
    """How far a committee's answers (K, N, C) lie apart (N,); NaN where fewer than two members answer.

    Classes: the mean Kullback-Leibler divergence of each member from their mean (McCallum & Nigam 1998, "Employing EM
    and Pool-Based Active Learning"). Numbers: root mean square over the C targets of their standard deviation.
    """
    answers_KNC = np.asarray(answers_KNC, np.float64)
    if several:
        answers_KNC = np.concatenate([answers_KNC, 1 - answers_KNC], axis=2) / answers_KNC.shape[2]
    share_KN1 = valid_KN[:, :, None] / np.maximum(valid_KN.sum(axis=0), 1)[None, :, None]
    answers_KNC = np.where(valid_KN[:, :, None], answers_KNC, 0.0)
    mean_NC = (answers_KNC * share_KN1).sum(axis=0)
    if classes:
        inner_KN = _plogp(np.clip(answers_KNC, 0, 1)).sum(axis=2)
        out_N = (inner_KN * share_KN1[:, :, 0]).sum(axis=0) - _plogp(np.clip(mean_NC, 0, 1)).sum(axis=1)
    else:
        out_N = np.sqrt((((answers_KNC - mean_NC) ** 2) * share_KN1).sum(axis=0).mean(axis=1))
    return np.asarray(np.where(valid_KN.sum(axis=0) > 1, np.maximum(out_N, 0.0), np.nan))
