"""From a graph's steps to whole answers, token by token: greedy, beam search, sampling. numpy only, one loop for all.

Training's own model and a served package are both driven by this file: they differ in what a step calls.

Dimensions: B rows, K beams, V tokens of the vocabulary, L tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field, ValidationError

from fuseline.errors import FuselineError
from fuseline.recipe import Frozen

if TYPE_CHECKING:
    from fuseline.tasks.base import Task

State = dict[str, np.ndarray]
"""What a decoder remembers, rows on axis 0: `memory.*` stays as the first graph gave it, `cache.*` grows."""

Steps = Callable[[np.ndarray, State], tuple[np.ndarray, State]]
"""ids (B, 1) and what was remembered -> logits of the next token (B, V), and what is remembered then"""

Pick = Callable[[np.ndarray, int, np.ndarray], np.ndarray]
"""log chances (B, V) of token number t (0 is the first) of the rows with these numbers (B,) -> chosen ids (B,)"""

PAD = -1
"""fills what lies behind an answer's end"""


class Decoding(Frozen):
    """How tokens are chosen."""

    strategy: Literal["greedy", "beam", "sample"] = Field(
        "greedy", description="greedy: the likeliest token; beam: the likeliest of several answers; sample: by chance"
    )
    beams: int = Field(4, ge=1, le=64, description="beam: answers that are kept in sight")
    length_penalty: float = Field(
        1.0, ge=0, le=5, description="beam: answers compare by log chance / length to this power; above 0 favours long"
    )
    temperature: float = Field(1.0, gt=0, le=10, description="sample: below 1 keeps to likely tokens, above 1 strays")
    top_k: int = Field(0, ge=0, description="sample: only among the k likeliest tokens; 0: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="sample: only among the likeliest tokens that make up this chance (nucleus)"
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="sample: the same seed gives a row the same answer, in any company"
    )
    no_repeat: int = Field(0, ge=0, le=16, description="no sequence of so many tokens twice in an answer; 0: allowed")
    max_tokens: int | None = Field(
        None, ge=1, description="tokens of an answer at most, its end included; default: the task's max_length"
    )


def read_decoding(options: Mapping[str, Any]) -> Decoding:
    """A caller's options. Raises FuselineError ``bad_request``, naming the option."""
    try:
        return Decoding.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        known = ", ".join(Decoding.model_fields)
        raise FuselineError("bad_request", f"decoding.{name}: {first['msg']}", f"known: {known}") from None


@dataclass(frozen=True)
class Forced:
    """Takes given tokens instead of choosing: what a package says of another's answer. `ids_BL`, PAD behind the end."""

    ids_BL: np.ndarray


@dataclass(frozen=True)
class Rules:
    """What holds for every answer: the ids that end one, those that never occur, and the longest."""

    ends: tuple[int, ...]
    length: int
    banned: tuple[int, ...] = ()


class Writes(Protocol):
    """What a task has beside others that answers step by step."""

    watched: str
    """the metric of rows whose words were only rated, not written: what training watches"""

    def complete(
        self, outputs: Mapping[str, np.ndarray], steps: Steps | None, how: Decoding | Forced | None = None
    ) -> dict[str, np.ndarray]:
        """The first graph's outputs and what makes steps -> the outputs that `decode` and `score` read, of one width
        in every batch. `how`: the task's own way unless told otherwise."""
        ...


def complete(
    task: Task, outputs: Mapping[str, np.ndarray], steps: Steps | None, how: Decoding | Forced | None = None
) -> dict[str, np.ndarray]:
    """A graph's outputs as the task reads them: of one that answers step by step, after the steps."""
    writes: Any = task
    return writes.complete(outputs, steps, how) if by_steps(task) else dict(outputs)


def by_steps(task: Task) -> bool:
    """Whether the task answers step by step (:class:`Writes`)."""
    return hasattr(task, "complete")


def watched(task: Task) -> str:
    """The metric that training watches where the recipe names none."""
    return str(getattr(task, "watched", task.metric))


class Token(NamedTuple):
    """One more token of every row: PAD and 0 for rows whose answer has ended."""

    ids_B: np.ndarray
    log_chances_B: np.ndarray


def log_softmax(logits_BV: np.ndarray) -> np.ndarray:
    values_BV = np.asarray(logits_BV, np.float64)
    values_BV = values_BV - values_BV.max(axis=1, keepdims=True)
    out: np.ndarray = values_BV - np.log(np.exp(values_BV).sum(axis=1, keepdims=True))
    return out


def split(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, State]:
    """The first graph's outputs: logits of the first token (B, V), and what its decoder remembers."""
    state = {k: v for k, v in outputs.items() if k.startswith(("memory.", "cache."))}
    return np.asarray(outputs["logits"]), state


def taken(state: State, rows: np.ndarray) -> State:
    return {k: v[rows] for k, v in state.items()}


def picker(how: Decoding | Forced, length: int) -> Pick:
    """How one token is chosen, for everything but beam search."""
    if isinstance(how, Forced):
        return lambda log_BV, t, rows: how.ids_BL[rows, t]
    if how.strategy == "sample":
        return _sampler(how, length)
    return lambda log_BV, t, rows: log_BV.argmax(axis=1)


def _sampler(how: Decoding, length: int) -> Pick:
    # One number a token, the same for every row: a row's answer does not depend on the rows it is asked with.
    draws_L = np.random.default_rng(how.seed).random(length)

    def pick(log_BV: np.ndarray, t: int, rows: np.ndarray) -> np.ndarray:
        order_BV = np.argsort(-log_BV, axis=1, kind="stable")
        if how.top_k:
            order_BV = order_BV[:, : how.top_k]
        scaled_BV = np.take_along_axis(log_BV, order_BV, axis=1) / how.temperature
        chance_BV = np.exp(scaled_BV - scaled_BV[:, :1])
        chance_BV /= chance_BV.sum(axis=1, keepdims=True)
        before_BV = chance_BV.cumsum(axis=1) - chance_BV
        chance_BV = np.where(before_BV < how.top_p, chance_BV, 0.0)  # the likeliest is always among them
        upto_BV = chance_BV.cumsum(axis=1)
        place_B = (upto_BV <= draws_L[t] * upto_BV[:, -1:]).sum(axis=1)
        place_B = np.minimum(place_B, (chance_BV > 0).sum(axis=1) - 1)
        return np.take_along_axis(order_BV, place_B[:, None], axis=1)[:, 0]

    return pick


def walk(logits_BV: np.ndarray, state: State, steps: Steps, how: Decoding | Forced, rules: Rules) -> Iterator[Token]:
    """Token after token for all rows, until each has ended or is as long as it may be. Rows that have ended are not
    computed any more. Not for beam search, which knows its first token last."""
    rows_B = np.arange(len(logits_BV))
    length = how.ids_BL.shape[1] if isinstance(how, Forced) else min(how.max_tokens or rules.length, rules.length)
    pick, said = picker(how, length), [_Said() for _ in rows_B]
    for t in range(length):
        log_BV = log_softmax(logits_BV)
        if isinstance(how, Decoding):
            log_BV = _allowed(log_BV, [said[i] for i in rows_B], how, rules)
        chosen_B = np.asarray(pick(log_BV, t, rows_B), np.int64)
        live_B = ~np.isin(chosen_B, [*rules.ends, PAD])
        ids_B, chances_B = np.full(len(said), PAD, np.int64), np.zeros(len(said))
        ids_B[rows_B] = chosen_B
        chances_B[rows_B] = np.where(chosen_B == PAD, 0.0, log_BV[np.arange(len(rows_B)), chosen_B])
        yield Token(ids_B, chances_B)
        if not live_B.any() or t + 1 == length:
            return
        if isinstance(how, Decoding) and how.no_repeat:
            for i in rows_B:
                said[i].add(int(ids_B[i]), how.no_repeat)
        if not live_B.all():
            kept = np.flatnonzero(live_B)
            rows_B, chosen_B, state = rows_B[kept], chosen_B[kept], taken(state, kept)
        logits_BV, state = steps(chosen_B[:, None], state)


@dataclass
class _Said:
    """An answer so far, and which token followed each run of tokens in it."""

    ids: list[int] = field(default_factory=list)
    after: dict[tuple[int, ...], set[int]] = field(default_factory=dict)

    def add(self, token: int, n: int) -> None:
        if len(self.ids) >= n - 1:
            self.after.setdefault(tuple(self.ids[len(self.ids) - n + 1 :]), set()).add(token)
        self.ids.append(token)

    def barred(self, n: int) -> set[int]:
        """Tokens that would end a run of n tokens which was there before."""
        return self.after.get(tuple(self.ids[len(self.ids) - n + 1 :]), set()) if len(self.ids) >= n - 1 else set()

    def copy(self) -> _Said:
        return _Said(list(self.ids), {k: set(v) for k, v in self.after.items()})


def _allowed(log_BV: np.ndarray, said: Sequence[_Said], how: Decoding, rules: Rules) -> np.ndarray:
    """Log chances with what may not come at -inf. An end may always come."""
    if rules.banned:
        log_BV[:, list(rules.banned)] = -np.inf
    if how.no_repeat:
        for row_V, one in zip(log_BV, said, strict=True):
            row_V[list(one.barred(how.no_repeat) - set(rules.ends))] = -np.inf
    return log_BV


class Answers(NamedTuple):
    """`ids_BL` with their end where they have one, PAD behind it; the log chance of each token, 0 behind the end."""

    ids_BL: np.ndarray
    log_chances_BL: np.ndarray


def answer(outputs: Mapping[str, np.ndarray], steps: Steps, how: Decoding | Forced, rules: Rules) -> Answers:
    """Whole answers, L = `rules.length` wide whatever was said."""
    logits_BV, state = split(outputs)
    if isinstance(how, Decoding) and how.strategy == "beam":
        *_, last = beam_walk(logits_BV, state, steps, how, rules)
        assert last is not None
        return last
    width = how.ids_BL.shape[1] if isinstance(how, Forced) else rules.length
    ids_BL, chances_BL = np.full((len(logits_BV), width), PAD, np.int64), np.zeros((len(logits_BV), width))
    for t, token in enumerate(walk(logits_BV, state, steps, how, rules)):
        ids_BL[:, t], chances_BL[:, t] = token
    return Answers(ids_BL, chances_BL)


@dataclass
class _Beam:
    """One answer in sight."""

    ids: list[int]
    log_chances: list[float]
    score: float
    """sum of the log chances"""
    said: _Said


def beam_walk(
    logits_BV: np.ndarray, state: State, steps: Steps, how: Decoding, rules: Rules
) -> Iterator[Answers | None]:
    """Beam search, None after every step (whoever asked may have gone), the answers at last. Of each row the K
    likeliest beginnings go on together (see Freitag & Al-Onaizan 2017).

    A row is done when K answers have ended and no beginning, at its present length, compares better than the worst of
    them. Answers compare by sum of log chances / length ** length_penalty.
    """
    rows, size = len(logits_BV), how.beams
    length = min(how.max_tokens or rules.length, rules.length)
    ended: list[list[_Beam]] = [[] for _ in range(rows)]
    live: dict[int, list[_Beam]] = {i: [_Beam([], [], 0.0, _Said())] for i in range(rows)}

    def value(beam: _Beam) -> float:
        return float(beam.score / max(1, len(beam.ids)) ** how.length_penalty)

    for t in range(length):
        log_BV, at = log_softmax(logits_BV), 0
        parents: list[int] = []
        tokens: list[int] = []
        for row in list(live):
            beams = live[row]
            log_KV = _allowed(log_BV[at : at + len(beams)], [b.said for b in beams], how, rules)
            grown: list[_Beam] = []
            scores_KV = log_KV + np.array([b.score for b in beams])[:, None]
            for rank, (k, token) in enumerate(_best(scores_KV, 2 * size)):
                if token in rules.ends and rank >= size:
                    continue  # an end that is not among the K likeliest is no answer
                chance = float(log_KV[k, token])
                said = beams[k].said
                if how.no_repeat:
                    said = said.copy()
                    said.add(token, how.no_repeat)
                new = _Beam([*beams[k].ids, token], [*beams[k].log_chances, chance], beams[k].score + chance, said)
                if token in rules.ends:
                    ended[row].append(new)
                elif len(grown) < size:
                    grown.append(new)
                    parents.append(at + k)
                    tokens.append(token)
            at += len(beams)
            best = sorted(ended[row], key=value, reverse=True)[:size]
            over = len(best) == size and (not grown or max(map(value, grown)) <= value(best[-1]))
            ended[row] = best
            if over or not grown or t + 1 == length:
                ended[row] += [] if over else grown
                del live[row]
                del parents[len(parents) - len(grown) :], tokens[len(tokens) - len(grown) :]
            else:
                live[row] = grown
        if not live:
            break
        logits_BV, state = steps(np.array(tokens, np.int64)[:, None], taken(state, np.array(parents)))
        yield None
    ids_BL, chances_BL = np.full((rows, rules.length), PAD, np.int64), np.zeros((rows, rules.length))
    for row, beams in enumerate(ended):
        best_one = max(beams, key=value)
        ids_BL[row, : len(best_one.ids)], chances_BL[row, : len(best_one.ids)] = best_one.ids, best_one.log_chances
    yield Answers(ids_BL, chances_BL)


def _best(score_KV: np.ndarray, count: int) -> list[tuple[int, int]]:
    """(beam, token) of the highest scores, best first; none of -inf."""
    flat = score_KV.ravel()
    chosen = np.argpartition(-flat, count - 1)[:count] if count < len(flat) else np.arange(len(flat))
    chosen = chosen[np.lexsort((chosen, -flat[chosen]))]
    return [divmod(int(i), score_KV.shape[1]) for i in chosen if np.isfinite(flat[i])]
