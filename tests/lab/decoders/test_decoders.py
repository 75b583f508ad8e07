"""Every decoder: learning and answering go through the same function, and padding is not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import writers
from transformers.modeling_outputs import BaseModelOutput

from fuseline.errors import FuselineError
from fuseline.lab.decoders import DECODERS, Decoder, decoder_class
from fuseline.lab.encoders.tuning import merge_lora
from fuseline.lab.tokens import Tokens
from fuseline.recipe import read_options
from fuseline.tasks.decoding import Decoding, complete
from fuseline.tasks.generation import Generation, GenerationConfig

KINDS = ("small", *writers.CAUSAL, *writers.SEQ2SEQ)
WIDTH = 16


def spec_of(kind: str, folder: Path, **more: Any) -> dict[str, Any]:
    if kind == "small":
        return {"kind": "small", "width": 32, **more}
    source = str(writers.language_model(folder / kind, kind))
    return {"kind": "prefix" if kind in writers.CAUSAL else "seq2seq", "source": source, "tune": "full", **more}


def build(spec: dict[str, Any], **task: Any) -> tuple[Generation, Decoder]:
    kind = decoder_class(spec["kind"])
    config = read_options(kind.Config, {k: v for k, v in spec.items() if k != "kind"}, "task.decoder")
    options = {"target": "story", "decoder": spec, "max_length": 12, **kind.task_options(config), **task}
    fitted = Generation.fit(GenerationConfig.model_validate(options), {"story": list(writers.TEXTS)})
    torch.manual_seed(1)
    return fitted, kind(config, fitted, width=WIDTH).eval()


def memory(lengths: tuple[int, ...], seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), max(lengths), WIDTH, generator=generator)
    return Tokens(values, torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None])


def steps(decoder: Decoder) -> Any:
    def step(ids: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        said = decoder.step(torch.from_numpy(ids), {k: torch.from_numpy(v.copy()) for k, v in state.items()})
        return said.logits_BLV[:, -1].numpy(), {k: v.numpy() for k, v in said.state.items()}

    return step


def greedy(task: Generation, decoder: Decoder, tokens: Tokens, **how: Any) -> np.ndarray:
    with torch.no_grad():
        said = decoder.begin(tokens)
        outputs = {"logits": said.logits_BLV[:, -1].numpy(), **{k: v.numpy() for k, v in said.state.items()}}
        return complete(task, outputs, steps(decoder), Decoding(**how))["ids"]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_all_tokens_at_once_are_as_one_after_the_other(kind: str, tmp_path: Path) -> None:
    task, decoder = build(spec_of(kind, tmp_path))
    begun = decoder.begin(memory((5, 3, 1)))
    ids = torch.randint(3, task.vocab_size, (3, 6), generator=torch.Generator().manual_seed(2))
    whole, state, parts = decoder.step(ids, begun.state), begun.state, []
    for i in range(6):
        said = decoder.step(ids[:, i : i + 1], state)
        state = said.state
        parts.append(said.logits_BLV)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.logits_BLV, rtol=1e-4, atol=1e-5)
    assert state.keys() == whole.state.keys() == begun.state.keys()
    for key, value in state.items():
        assert value.is_floating_point()
        assert key.startswith(("memory.", "cache."))
        if key.startswith("memory."):
            assert value is begun.state[key] or torch.equal(value, begun.state[key])
        else:
            axis = decoder.growing[key.split(".")[1]]
            assert value.shape[axis] == begun.state[key].shape[axis] + 6


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_between_tokens_changes_nothing(kind: str, tmp_path: Path) -> None:
    _, decoder = build(spec_of(kind, tmp_path))
    values = memory((6,)).values_BTD
    keep = torch.tensor([True, False, True, True, False, True])
    ids = torch.tensor([[5, 9, 40]])
    padded = Tokens(torch.where(keep[None, :, None], values, 1e4), keep[None])
    short = Tokens(values[:, keep], torch.ones(1, 4, dtype=torch.bool))
    for a, b in ((padded, short),):
        one, two = decoder.begin(a), decoder.begin(b)
        torch.testing.assert_close(one.logits_BLV, two.logits_BLV, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            decoder.step(ids, one.state).logits_BLV, decoder.step(ids, two.state).logits_BLV, rtol=1e-4, atol=1e-5
        )
    other = decoder.begin(Tokens(values + 1 + torch.randn_like(values), keep[None]))
    assert (decoder.begin(padded).logits_BLV - other.logits_BLV).abs().max() > 1e-3, "the inputs are looked at"


@pytest.mark.parametrize("kind", writers.CAUSAL)
@pytest.mark.parametrize("prompt", ["", "say: "])
@torch.no_grad()
def test_a_prefix_writes_as_transformers_generates(kind: str, prompt: str, tmp_path: Path) -> None:
    task, decoder = build(spec_of(kind, tmp_path, prompt=prompt))
    model: Any = decoder.model
    tokens = memory((4,))
    start = [task.start_id, *(task.tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else [])]
    words = torch.cat([decoder.project(tokens.values_BTD), model.get_input_embeddings()(torch.tensor([start]))], dim=1)  # type: ignore[operator]
    wanted = model.generate(
        inputs_embeds=words,
        attention_mask=torch.ones(words.shape[:2], dtype=torch.int64),
        max_new_tokens=task.length,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=[task.start_id],
    )
    got = greedy(task, decoder, tokens)[0]
    assert got[got >= 0].tolist() == wanted[0].tolist()[: (got >= 0).sum()]
    assert len(wanted[0]) == (got >= 0).sum()


@pytest.mark.parametrize("kind", writers.SEQ2SEQ)
@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_a_seq2seq_decoder_writes_as_transformers_generates(kind: str, beams: int, tmp_path: Path) -> None:
    """The whole model again, its encoder too: what it is given for the encoder's output are our projected tokens."""
    from transformers import AutoModelForSeq2SeqLM

    task, decoder = build(spec_of(kind, tmp_path))
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / kind).eval()
    tokens = memory((5,))
    wanted = whole.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=decoder.project(tokens.values_BTD)),  # type: ignore[operator]
        max_new_tokens=task.length,
        num_beams=beams,
        do_sample=False,
        length_penalty=1.0,
        early_stopping=False,
        suppress_tokens=[i for i in (task.start_id,) if i not in task.end_ids],
    )[0].tolist()[1:]
    how = {"strategy": "beam", "beams": beams} if beams > 1 else {}
    got = greedy(task, decoder, tokens, **how)[0]
    ended = [*got[got >= 0].tolist()]
    assert ended == wanted[: len(ended)]
    assert set(wanted[len(ended) :]) <= {0}


def test_a_seq2seq_decoder_leaves_its_encoder_behind(tmp_path: Path) -> None:
    _, decoder = build(spec_of("bart", tmp_path))
    assert not any(".encoder." in name for name in decoder.state_dict())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_lora_trains_little_and_merges_to_the_same_answers(kind: str, tmp_path: Path) -> None:
    _, decoder = build(spec_of(kind, tmp_path, tune="lora", rank=2))
    trained = {n for n, p in decoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.startswith("project.") or "lora_" in n for n in trained)
    with torch.no_grad():
        for name, p in decoder.named_parameters():
            if "lora_B" in name:
                p.normal_()
        before = decoder.begin(memory((3,))).logits_BLV
        merge_lora(decoder)
        torch.testing.assert_close(decoder.begin(memory((3,))).logits_BLV, before, rtol=1e-4, atol=1e-5)


def test_refusals(tmp_path: Path) -> None:
    folder = writers.language_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(FuselineError, match="random"):
        build({"kind": "prefix", "source": str(folder), "weights": "random", "tune": "frozen"})
    with pytest.raises(FuselineError, match="positions"):
        build({"kind": "prefix", "source": str(folder), "tune": "full"}, max_length=160)[1].begin(memory((3,)))
    with pytest.raises(FuselineError) as caught:
        build({"kind": "seq2seq", "source": str(folder), "weights": "random"})
    assert caught.value.code == "cannot_load_weights"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FuselineError, match=r"no tokenizer\.json"):
        build({"kind": "prefix", "source": str(folder), "tune": "full"})
    with pytest.raises(FuselineError) as caught:
        decoder_class("large")
    assert caught.value.code == "unknown_kind"
    assert set(DECODERS) == {"small", "seq2seq", "prefix"}
