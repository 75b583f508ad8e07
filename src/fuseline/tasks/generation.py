"""Texts written token by token. Dimensions: N rows, B batch, L tokens of an answer, R characters of a reference.

How tokens are chosen is :mod:`fuseline.tasks.decoding`; how texts compare is :mod:`fuseline.tasks.text_metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from fuseline.errors import FuselineError
from fuseline.recipe import Component, Stratify
from fuseline.tasks import text_metrics, vocabulary
from fuseline.tasks.base import Decoded, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure
from fuseline.tasks.decoding import PAD, Decoding, Forced, Rules, Steps, answer, beam_walk, split, walk
from fuseline.tasks.scored import scored

if TYPE_CHECKING:
    from fuseline.modalities.base import Modality

LONGEST = 128
"""tokens of an answer unless the recipe says more"""
MOST_CHARACTERS = 8192
"""of a reference that are kept for scoring"""


class GenerationConfig(TaskConfig):
    """Options of the generation task."""

    target: str = Field(min_length=1, description="the column of texts to write")
    decoder: Component = Field(
        Component(kind="small"),
        description="what writes: small (from scratch), seq2seq or prefix (a Hugging Face model), and its options",
    )
    decoding: Decoding = Field(Decoding(), description="how tokens are chosen when it answers")
    max_length: int | None = Field(
        None,
        ge=2,
        le=4096,
        description="tokens of an answer, its end included; longer targets are cut; default: the longest training "
        f"target's, at most {LONGEST}",
    )
    vocab_size: int = Field(4000, ge=300, le=100_000, description="tokens of a tokenizer trained on the targets")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over all tokens")
    tokenizer: str | None = Field(
        None,
        repr=False,
        description="the text of a tokenizer.json; default: the decoder's, or one trained on the targets",
    )
    start_id: int | None = Field(None, ge=0, description="the token before the first; default: the decoder's")
    end_ids: tuple[int, ...] = Field(
        (), description="tokens that end an answer, the first is learned; default: the decoder's"
    )
    score_by: Literal["auto", "13a", "char"] = Field(
        "auto", description="BLEU counts words (13a) or characters (char); auto: char where words are not set apart"
    )

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,)


class Generation:
    """Texts to token ids, steps to texts.

    A target is an int32 array (L + R,): the ids with their end, cut at L, then the characters of the whole text, PAD
    behind both: what is learned may be cut, what is scored is not.
    """

    Config: ClassVar[type[TaskConfig]] = GenerationConfig
    stratify: ClassVar[Stratify] = "none"
    name = "generation"
    mode = "text"
    metric = "rougeL"
    watched = "token_loss"

    def __init__(
        self, config: GenerationConfig, tokenizer: Tokenizer, *, length: int, room: int, score_by: str
    ) -> None:
        # The tokenizer's text is kept once, in the state.
        self.config = config.model_copy(update={"tokenizer": None})
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = True  # a text that says </s> says it in letters
        self.columns: tuple[str, ...] = (config.target,)
        self.length, self.room, self.score_by = length, room, score_by
        own = {name: tokenizer.token_to_id(name) or 0 for name in vocabulary.SPECIALS}  # those of a tokenizer of ours
        self.start_id = own["<s>"] if config.start_id is None else config.start_id
        self.end_ids = config.end_ids or (own["</s>"],)
        banned = {self.start_id, *([own["<pad>"]] if config.start_id is None else [])}
        self.rules = Rules(self.end_ids, length, tuple(sorted(banned - set(self.end_ids))))
        self.notes: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1

    @classmethod
    def fit(cls, config: GenerationConfig, targets: Mapping[str, Sequence[Any]]) -> Generation:
        """The vocabulary and lengths of the training texts. Raises FuselineError ``bad_cell``, ``no_target``,
        ``bad_tokenizer``, ``bad_recipe``."""
        column = config.target
        found = (text_of(cell, column) for cell in targets[column])
        texts = [text for text in found if text is not None]
        if not any(texts):
            raise FuselineError("no_target", "no training row has a text", "is it the right column?", column=column)
        if config.tokenizer is not None and (config.start_id is None or not config.end_ids):
            raise FuselineError("bad_recipe", "task.tokenizer needs task.start_id and task.end_ids", "say both")
        if config.tokenizer is None:
            tokenizer = vocabulary.train(texts, config.vocab_size)
        else:
            tokenizer = vocabulary.load(config.tokenizer)
        tokenizer.encode_special_tokens = True
        sizes = [len(e.ids) + 1 for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        length = config.max_length or min(LONGEST, max(2, *sizes))
        score_by = text_metrics.tokenize_for(texts) if config.score_by == "auto" else config.score_by
        room = min(MOST_CHARACTERS, max(16, 2 * max(map(len, texts))))
        task = cls(config, tokenizer, length=length, room=room, score_by=score_by)
        cut = sum(size > length for size in sizes)
        if cut:
            task.notes = (f"{column}: {cut} of {len(texts)} training texts are learned up to token {length} only",)
        return task

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Generation:
        config = GenerationConfig.model_validate(state["config"])
        tokenizer = vocabulary.load(state["tokenizer"])
        return cls(config, tokenizer, length=state["length"], room=state["room"], score_by=state["score_by"])

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json", exclude={"tokenizer"}),
            "length": self.length,
            "room": self.room,
            "score_by": self.score_by,
            "tokenizer": self.tokenizer.to_str(),
        }

    def check(self, inputs: Mapping[str, Modality]) -> None:
        """Any inputs do."""

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        text = text_of(cells.get(self.columns[0]), self.columns[0])
        if text is None:
            return None
        ids = [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.end_ids[0]][: self.length]
        out = np.full(self.length + self.room, PAD, np.int32)
        out[: len(ids)] = ids
        characters = np.frombuffer(text[: self.room].encode("utf-32-le"), np.int32)
        out[self.length : self.length + len(characters)] = characters
        return out

    def references(self, targets: np.ndarray) -> list[str]:
        """The texts behind encoded targets."""
        return ["".join(map(chr, row[row != PAD])) for row in np.asarray(targets)[:, self.length :]]

    def complete(
        self, outputs: Mapping[str, np.ndarray], steps: Steps | None, how: Decoding | Forced | None = None
    ) -> dict[str, np.ndarray]:
        """`ids` (B, L) int64 and `log_chances` (B, L), PAD and 0 behind an answer's end; and the `embedding`."""
        assert steps is not None
        ids_BL, log_BL = answer(outputs, steps, self.config.decoding if how is None else how, self.rules)
        kept = {"embedding": outputs["embedding"]} if "embedding" in outputs else {}
        return {"ids": ids_BL, "log_chances": log_BL.astype(np.float32), **kept}

    def stream(
        self, outputs: Mapping[str, np.ndarray], steps: Steps, how: Decoding | None = None, stop: Sequence[str] = ()
    ) -> Iterator[str | Decoded]:
        """One row's answer as it is written: pieces of text ("" where a token completes no character), at last the
        whole. Beam search knows its answer at its end only. `stop`: texts that end an answer and are no part of it."""
        writer = vocabulary.Writer(self.tokenizer, self.end_ids)
        held = max((len(s) for s in stop), default=1) - 1
        sent, chances, ended, stopped = 0, [], False, False
        for token, chance in self._tokens(outputs, steps, how or self.config.decoding):
            if token is None:
                yield ""
                continue
            writer.push(token)
            chances.append(chance)
            ended = token in self.end_ids
            if stopped := (place := _first(writer.sent, stop)) is not None:
                writer.sent = writer.sent[:place]
                break
            upto = max(sent, len(writer.sent) - held)
            yield writer.sent[sent:upto]
            sent = upto
        if not stopped:
            writer.finish()
            stopped = (place := _first(writer.sent, stop)) is not None
            writer.sent = writer.sent[:place]
        if writer.sent[sent:]:
            yield writer.sent[sent:]
        yield Decoded(writer.sent, details=_details(len(chances), ended or stopped, chances))

    def _tokens(
        self, outputs: Mapping[str, np.ndarray], steps: Steps, how: Decoding
    ) -> Iterator[tuple[int | None, float]]:
        """One row's tokens and their log chances; (None, 0) for a step that gave none yet."""
        logits, state = split(outputs)
        if how.strategy != "beam":
            for token in walk(logits, state, steps, how, self.rules):
                yield int(token.ids_B[0]), float(token.log_chances_B[0])
            return
        for found in beam_walk(logits, state, steps, how, self.rules):
            if found is None:
                yield None, 0.0
                continue
            for i, c in zip(found.ids_BL[0], found.log_chances_BL[0], strict=True):
                if i != PAD:
                    yield int(i), float(c)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        out = []
        for ids_L, log_L in zip(np.asarray(outputs["ids"]), np.asarray(outputs["log_chances"]), strict=True):
            ids = [int(i) for i in ids_L if i != PAD]
            ended = bool(ids) and ids[-1] in self.end_ids
            details = _details(len(ids), ended, log_L[: len(ids)].tolist())
            out.append(Decoded(self._text(ids), details=details))
        return out

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode([i for i in ids if i not in self.end_ids], skip_special_tokens=True))

    def score(
        self,
        targets: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        *,
        bootstrap: int = 0,
        seed: int = 0,
        groups: np.ndarray | None = None,
        details: bool = True,
    ) -> Scores:
        """`bleu`, `chrf`, `rouge1`, `rouge2`, `rougeL` (0 to 100) and `exact` (share of answers equal to the text).

        While a model trains it writes nothing: its outputs are then `nll` and `tokens` of each row, and the metric
        `token_loss`, the mean of -log chance over all tokens of the targets.
        """
        rows = len(targets)
        scores = scored(
            self.measure(targets, outputs),
            rows,
            resamples=bootstrap,
            seed=seed,
            groups=groups,
            higher=lambda name: name != "token_loss",
        )
        if details and "ids" in outputs and rows:
            scores.details = self._lengths(targets, outputs)
        return scores

    def _lengths(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """How the answers are as texts: an average answer given to every row would show here."""
        answers = self.decode(outputs)
        texts, wanted = [a.value for a in answers], self.references(targets)
        ended = [a.details is not None and a.details["finish"] == "stop" for a in answers]
        return {
            "texts": {
                "distinct": len(set(texts)),
                "distinct_references": len(set(wanted)),
                "empty": sum(not t for t in texts),
                "unfinished": len(ended) - sum(ended),
                "characters": float(np.mean([len(t) for t in texts])),
                "characters_of_references": float(np.mean([len(t) for t in wanted])),
            },
            "notes": [f"bleu counts {'characters' if self.score_by == 'char' else 'words (13a)'}"],
        }

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        if "nll" in outputs:
            nll_N, tokens_N = (np.asarray(outputs[k], np.float64) for k in ("nll", "tokens"))

            def by_loss(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
                return {"token_loss": _ratio(weights_RN @ nll_N, weights_RN @ tokens_N)}

            return by_loss
        answers, wanted = [d.value for d in self.decode(outputs)], self.references(targets)
        bleu_ND = text_metrics.bleu_counts(answers, wanted, "char" if self.score_by == "char" else "13a")
        chrf_ND = text_metrics.chrf_counts(answers, wanted)
        means = text_metrics.rouge(answers, wanted)
        means["exact"] = np.array([float(a == b) for a, b in zip(answers, wanted, strict=True)])

        def by_text(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
            total_R = weights_RN.sum(axis=1)
            return {
                "bleu": np.where(total_R > 0, text_metrics.bleu(weights_RN @ bleu_ND), np.nan),
                "chrf": np.where(total_R > 0, text_metrics.chrf(weights_RN @ chrf_ND), np.nan),
                **{name: _ratio(weights_RN @ values_N, total_R) for name, values_N in means.items()},
            }

        return by_text

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        """How far each answer is from its text: 100 - ROUGE-L."""
        found = text_metrics.rouge([d.value for d in decoded], self.references(targets))
        return {"error": [float(100 - v) for v in found["rougeL"]]}

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Nothing is left to settle."""
        return []

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """Deciles of the texts' lengths in characters, by part."""
        column = self.columns[0]
        lengths = {
            part: [len(t) for t in (text_of(c, column) for c in own[column]) if t is not None]
            for part, own in cells.items()
        }
        deciles = {p: np.quantile(n, np.linspace(0, 1, 11)).tolist() if n else [] for p, n in lengths.items()}
        return {"characters": deciles, "max_length": self.length, "vocabulary": self.vocab_size}

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Mean log chance of a row's tokens (B, 1)."""
        tokens_B = (np.asarray(outputs["ids"]) != PAD).sum(axis=1)
        return np.asarray(np.asarray(outputs["log_chances"], np.float64).sum(axis=1) / np.maximum(tokens_B, 1))[:, None]


def text_of(cell: Any, column: str) -> str | None:
    """A target's text; "" is one, None is not. Raises FuselineError ``bad_cell``."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, (str, int, float, np.number)):
        return vocabulary.clean(str(cell))
    kind = type(cell).__name__
    raise FuselineError("bad_cell", f"a {kind} is no text", "join its parts to one text first", column=column)


def _details(tokens: int, ended: bool, chances: Sequence[float]) -> dict[str, Any]:
    mean = float(np.mean(chances)) if len(chances) else 0.0
    return {"tokens": tokens, "finish": "stop" if ended else "length", "log_chance": round(mean, 6)}


def _first(text: str, stop: Sequence[str]) -> int | None:
    places = [at for at in (text.find(s) for s in stop) if at >= 0]
    return min(places, default=None)


def _ratio(top_R: np.ndarray, bottom_R: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.divide(top_R, bottom_R, out=np.full(np.shape(bottom_R), np.nan), where=bottom_R > 0)
    return out
