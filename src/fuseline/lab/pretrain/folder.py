"""What pretraining leaves behind: weights.safetensors, and pretrained.json that says to what they belong.

pretrained.json holds `format`, the weights' sha256, `inputs` (of each: modality, columns, encoder, the options of both,
how the encoder was tuned, and the fitted state that its weights belong to: a vocabulary, quantiles), `fusion`,
`learned` (how the pretraining went), and `digest`, the sha256 of all this. Weights are named by the inputs' own names,
so that a recipe with other inputs beside them can take them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.package.files import sha256_of, write_json

FORMAT = 1
FILE, WEIGHTS = "pretrained.json", "weights.safetensors"
_KEYS = {"format", "fuseline_version", "weights", "inputs", "fusion", "learned", "digest"}


def digest_of(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class PretrainedFolder:
    """A verified folder; the weights are read, and verified again, by :meth:`weights`."""

    folder: Path
    data: dict[str, Any]

    @property
    def digest(self) -> str:
        return str(self.data["digest"])

    @property
    def inputs(self) -> dict[str, Any]:
        return dict(self.data["inputs"])

    @property
    def fusion(self) -> dict[str, Any]:
        return dict(self.data["fusion"])

    def weights(self) -> dict[str, Tensor]:
        """Raises FuselineError ``bad_init`` where the file is not the one that was written."""
        try:
            content = (self.folder / WEIGHTS).read_bytes()
        except OSError as error:
            raise _broken(self.folder, f"{WEIGHTS} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.data["weights"]["sha256"]:
            raise _broken(self.folder, f"{WEIGHTS} is not the file that was written (its sha256 differs)")
        try:
            return load(content)
        except SafetensorError as error:
            raise _broken(self.folder, f"{WEIGHTS}: {error}") from None


def _broken(folder: Path, message: str) -> FuselineError:
    return FuselineError("bad_init", f"{folder}: {message}", "copy the folder again, or pretrain anew")


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """pretrained.json beside the weights; it comes last, so that a folder that has it is whole."""
    path = folder / WEIGHTS
    data = {"format": FORMAT, "weights": {"sha256": sha256_of(path), "bytes": path.stat().st_size}, **facts}
    write_json(folder / FILE, {**data, "digest": digest_of(data)})


def read_folder(folder: str | Path) -> PretrainedFolder:
    """Open and verify. Raises FuselineError ``no_such_file``, ``bad_init``, ``init_version``."""
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        begun = (folder / "pretraining.json").is_file()
        hint = f"it is not finished: fuseline pretrain --resume {folder}" if begun else "make one: fuseline pretrain"
        raise FuselineError("no_such_file", f"{folder} holds no pretrained weights ({FILE})", hint)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(folder, f"{FILE} is not JSON: {error}") from None
    if not isinstance(data, dict) or "format" not in data:
        raise _broken(folder, f"{FILE} says no format")
    if data["format"] != FORMAT:
        raise FuselineError(
            "init_version",
            f"{folder} has format {data['format']}, this version of fuseline reads format {FORMAT}",
            "pretrain again with this version",
        )
    told = data.get("digest")
    if set(data) != _KEYS or told != digest_of({k: v for k, v in data.items() if k != "digest"}):
        raise _broken(folder, f"{FILE} was changed after it was written")
    return PretrainedFolder(folder, data)
