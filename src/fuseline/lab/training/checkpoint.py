"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fuseline.errors import FuselineError
from fuseline.package.files import replace_folder, settle


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON of a nested value; its tensors go to `tensors` and leave a reference."""
    match value:
        case Tensor():
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"$tensor": path}
        case dict():
            return {"$dict": [[k, _split(v, f"{path}/{k}", tensors)] for k, v in value.items()]}
        case tuple():
            return {"$tuple": [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
        case list():
            return [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
    raise TypeError(f"{path}: a {type(value).__name__} has no place in a checkpoint")


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$tuple" in value:
            return tuple(_join(v, tensors) for v in value["$tuple"])
        return {k: _join(v, tensors) for k, v in value["$dict"]}
    return value


class SafeCheckpointIO(CheckpointIO):
    """A checkpoint is a folder: tensors.safetensors + state.json. Nothing in it can run code when read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        tensors: dict[str, Tensor] = {}
        state = _split(checkpoint, "", tensors)
        new = target.with_name(target.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file(tensors, new / "tensors.safetensors")
        (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
        replace_folder(new, target)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        folder = settle(Path(path))
        try:
            tensors = load_file(folder / "tensors.safetensors")
            state: dict[str, Any] = _join(json.loads((folder / "state.json").read_text(encoding="utf-8")), tensors)
        except (OSError, ValueError, KeyError) as error:
            raise FuselineError("bad_checkpoint", f"cannot read {folder}: {error}", "start the run again") from None
        return state

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def trained_names(model: nn.Module) -> frozenset[str]:
    """What training changes: trainable parameters, and the buffers of parts that train. Frozen encoders are rebuilt
    from their source, and so are not stored again and again."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad} | set(_still(model, ""))
    return frozenset(name for name in model.state_dict() if name not in frozen)


def _still(part: nn.Module, prefix: str) -> Iterator[str]:
    """Buffers of the parts that have parameters of which none trains. Such a part is not searched any deeper."""
    trains = [p.requires_grad for p in part.parameters()]
    if trains and not any(trains):
        yield from (name for name, _ in part.named_buffers(prefix))
        return
    for name, child in part.named_children():
        yield from _still(child, f"{prefix}.{name}" if prefix else name)


def whole(tensor: Tensor) -> Tensor:
    """All of it, on the CPU. Called by all processes at the same time where it is split."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def trained_state(model: nn.Module, names: frozenset[str], scalars: frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """Whole and on the CPU. `scalars`: names of what has no dimension, and one where it is split."""
    state = {n: whole(t).clone() for n, t in model.state_dict().items() if n in names}
    return {n: t.reshape(()) if n in scalars else t for n, t in state.items()}


def save_weights(state: dict[str, Tensor], path: Path, *, said: str | None = None) -> None:
    """`said`: a text that travels along, as `said` of the file's metadata."""
    new = path.with_suffix(".new")
    save_file({k: v.contiguous() for k, v in state.items()}, new, metadata=None if said is None else {"said": said})
    os.replace(new, path)


def load_weights(model: nn.Module, path: Path) -> None:
    state = load_file(path)
    if set(state) != trained_names(model):
        raise FuselineError("bad_checkpoint", f"{path.name} does not fit the model", "was the recipe changed?")
    model.load_state_dict(state, strict=False)
