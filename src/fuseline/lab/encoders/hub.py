"""Backbones from a local folder or the Hugging Face hub: safetensors only, no code from outside, no hanging.

Everything resolves to a folder first, then reads that folder alone, so that a machine without a network behaves the
same once the folder is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from fuseline.errors import FuselineError

Weights = Literal["pretrained", "random"]

# Heads that no encoder here reads, and a mask embedding used in pre-training only: checkpoints often lack them.
_OPTIONAL = ("pooler", "masked_spec_embed", "position_ids")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt")


@dataclass(frozen=True)
class Backbone:
    """A loaded model and where it came from."""

    model: nn.Module
    config: Any
    folder: Path


def cannot_load(message: str, hint: str = "") -> FuselineError:
    """The one error of this file; says how to get the weights where no better hint is known."""
    default = (
        "on a machine with a network: `hf download ID --local-dir FOLDER`, then source: FOLDER; or use kind: small"
    )
    return FuselineError("cannot_load_weights", message, hint or default)


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "~", "/", os.sep)) or source.count("/") > 1 or Path(source).is_absolute()


def locate(source: str, *, revision: str | None = None, config_only: bool = False) -> Path:
    """The folder behind `source`: itself, or the hub's snapshot of it (from the local cache where that is complete).

    Raises FuselineError ``cannot_load_weights`` on a missing folder, an unknown id, or no network, within seconds.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise cannot_load(f"{source}: no config.json in this folder", "a folder as `save_pretrained` writes it")
        return folder
    if _looks_like_path(source):
        raise cannot_load(f"no folder at {source}")
    patterns = ["*.json", "*.txt", "*.model"] + ([] if config_only else ["*.safetensors"])
    for local in (True, False):
        try:
            # `ignore_patterns`: folders inside a repository hold other formats of the same weights.
            found = Path(
                huggingface_hub.snapshot_download(
                    source,
                    revision=revision,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*"],
                    local_files_only=local,
                    etag_timeout=5,
                )
            )
        except Exception as error:  # the client raises OSError, ValueError and its transport's own kinds
            if local:
                continue
            raise cannot_load(f"{source}: not a folder, and the hub does not give it ({_first_line(error)})") from error
        if (found / "config.json").is_file() and (config_only or any(found.glob("*.safetensors")) or not local):
            return found
    raise cannot_load(f"{source}: the hub's copy has no config.json", "name a repository of the transformers library")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of the folder's JSON files, {} where it has none."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise cannot_load(f"{path} is not JSON: {error}", "download the folder again") from None
    return data if isinstance(data, dict) else {}


def preprocessor(folder: Path) -> dict[str, Any]:
    """How the folder's author prepared pictures or sounds: preprocessor_config.json, {} where it has none."""
    own = read_json(folder, "preprocessor_config.json")
    if own:
        return own
    # Newer folders of models with several inputs keep it one level down.
    whole = read_json(folder, "processor_config.json")
    for key in ("image_processor", "feature_extractor"):
        if isinstance(whole.get(key), dict):
            return dict(whole[key])
    return {}


def load_config(folder: Path) -> Any:
    """The folder's transformers config. FuselineError on one that this library version does not know."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken config.json raises almost anything
        hint = "a folder of a model type that the installed transformers knows, without code of its own"
        raise cannot_load(f"{folder}: config.json cannot be used ({_first_line(error)})", hint) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No load report and no progress bar: what matters of them is checked and raised here."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _part(model: nn.Module, part: str | None) -> nn.Module:
    """The half of a two-tower or encoder-decoder model that is wanted."""
    if part is not None and isinstance(getattr(model, part, None), nn.Module):
        return getattr(model, part)  # type: ignore[no-any-return]
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()  # type: ignore[operator, no-any-return]
    return model


def _finished(model: Any, folder: Path) -> Backbone:
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        # Nothing here reads it. Weights that never get a gradient would halt distributed training.
        model.pooler = None
    return Backbone(model.eval(), model.config, folder)


def load_backbone(
    source: str | Path, *, revision: str | None = None, weights: Weights = "pretrained", part: str | None = None
) -> Backbone:
    """A float32 model in eval mode, as `AutoModel` builds it, or its encoder half.

    Args:
        source: local folder or hub id.
        revision: branch, tag or commit on the hub.
        weights: "random" builds from the config alone with torch's global seed (tests, training from scratch).
        part: attribute of the model to keep where it has that, e.g. "vision_model" of a two-tower model.

    Raises:
        FuselineError: ``cannot_load_weights``; also where any weight of the part is not in the file, since
            transformers would silently leave such weights random.
    """
    whole, missing, folder = _load(source, AutoModel, revision, weights)
    model = _part(whole, part)
    kept = {id(p) for p in model.parameters()}
    names = {name for name, p in whole.named_parameters(remove_duplicate=False) if id(p) in kept}
    _complete(source, [k for k in missing if k in names and not any(o in k for o in _OPTIONAL)])
    return _finished(model, folder)


def load_whole(source: str | Path, auto: Any, *, revision: str | None = None, weights: Weights = "pretrained") -> Any:
    """A whole float32 model in eval mode as `auto`, one of transformers' Auto classes, builds it. Raises as
    :func:`load_backbone` does."""
    model, missing, _ = _load(source, auto, revision, weights)
    _complete(source, missing)
    return model.eval()


def _complete(source: str | Path, missing: Sequence[str]) -> None:
    lost = sorted(missing)
    if lost:
        raise cannot_load(
            f"{source}: the weights file lacks {len(lost)} of the model's weights, e.g. {lost[0]}",
            "the file belongs to another model, or is damaged: download it again",
        )


def _load(source: str | Path, auto: Any, revision: str | None, weights: Weights) -> tuple[Any, list[str], Path]:
    """The model, the weights that its file lacks, and its folder."""
    folder = locate(str(source), revision=revision, config_only=weights == "random")
    config = load_config(folder)
    options = {"attn_implementation": "eager", "trust_remote_code": False, "dtype": torch.float32}
    if weights == "random":
        try:
            with _quiet():
                return auto.from_config(config, **options), [], folder
        except ValueError as error:  # the Auto class has no such model
            raise cannot_load(f"{source}: {_first_line(error)}", "a folder of another kind of model") from error
    if not any(folder.glob("*.safetensors")):
        pickled = any((folder / name).is_file() for name in _PICKLES)
        raise cannot_load(
            f"{source}: only pickled weights, which can run code when read"
            if pickled
            else f"{source}: no safetensors weights",
            "choose a revision with safetensors, or convert once with `model.save_pretrained(FOLDER)`",
        )
    try:
        with _quiet():
            model, info = auto.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # truncated files, other shapes, other libraries' layouts
        raise cannot_load(f"{source}: the weights cannot be read ({_first_line(error)})") from error
    return model, list(info["missing_keys"]), folder
