"""Reading and writing NAME.fuse/.

Members: `manifest.json` (format version and the sha256 of every other member, checked before anything is parsed),
`recipe.yaml`, `columns.json` (fitted state of every input), `task.json`, `tokenizers/NAME.json` of the inputs,
`tokenizer.json` of the answers where they are texts, `profile.json`, `metrics.json`, `parity.json`, `README.md` (model
card), `compression.json` (of a compressed package: what was done to which parent, and under `runtime` the backend and
precision that it was measured with).

The model itself lies there for one backend at least:
- onnxruntime: `graph.onnx`, whose large constants are ONNX external data in `weights.safetensors` (the trained
  parameters, stored once) or in `weights.bin` (those of a quantised graph); `step.onnx` beside it where answers are
  written token by token, with the same weights
- openvino: `openvino.xml` and `openvino.bin`, optionally `openvino.blob`, the same compiled for one kind of processor
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fuseline.errors import FuselineError
from fuseline.package.files import sha256_of, write_json
from fuseline.recipe import Recipe, parse_recipe

FORMAT = 1
REQUIRED = ("recipe.yaml", "columns.json", "task.json")
GRAPHS = {"onnxruntime": ("graph.onnx",), "openvino": ("openvino.xml", "openvino.bin")}
"""backend -> the members without which it cannot run; the first backend that is there is a package's default"""
PRECISIONS = frozenset(("float32", "bfloat16", "bf16", "int8", "int8-dynamic", "weights-int8", "weights-int4"))
"""what compression.json may say of numbers, several joined by `+`"""
STEP = "step.onnx"
TOKENIZER = "tokenizer.json"
"""of the answers, where they are texts"""
PARSED_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class Package:
    """A verified package. Members that are files for others stay paths; the rest is parsed."""

    folder: Path
    manifest: dict[str, Any]
    recipe: Recipe
    columns: dict[str, dict[str, Any]]
    """input name -> {"modality": name, "state": fitted state}"""
    task: dict[str, Any]
    """{"kind": name, "state": fitted state}"""
    runtime: dict[str, Any] = field(default_factory=dict)
    """{"backend": name, "precision": e.g. "int8+bf16", "options": {}} that the package was measured with; {} where it
    says nothing, which means float32"""

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that the package holds a graph for."""
        members = self.manifest["members"]
        return tuple(backend for backend, needed in GRAPHS.items() if all(m in members for m in needed))

    @property
    def backend(self) -> str:
        """The one that it runs with unless told otherwise."""
        return str(self.runtime.get("backend") or self.backends[0])

    def precisions(self, backend: str) -> frozenset[str]:
        """Number formats that a backend's graph computes with or is stored in. Only those of the package's own backend
        are known; another one computes as its graph says, in float32 where it does not say."""
        told = self.runtime.get("precision", "float32") if backend == self.backend else "float32"
        return frozenset(told.split("+"))

    @property
    def writes(self) -> bool:
        """Whether its answers are texts, made step by step: it has a second graph."""
        return STEP in self.manifest["members"]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """Content hash: the same package has the same version wherever it lies."""
        return str(self.manifest["version"])

    @property
    def bytes(self) -> int:
        return sum(int(m["bytes"]) for m in self.manifest["members"].values())

    def read_json(self, member: str) -> Any:
        """A JSON member, or None where the package has none."""
        if member not in self.manifest["members"]:
            return None
        return _json(self.folder / member, member)


def read_member(package: Package, member: str) -> bytes:
    """A member's content, checked against the manifest: what is used is what was hashed, whatever is written to the
    file later. Raises FuselineError ``bad_package``."""
    data = (package.folder / member).read_bytes()
    _verify(package, member, data)
    return data


def read_buffer(package: Package, member: str) -> bytearray:
    """As :func:`read_member`, in memory that a runtime may take over without a copy."""
    with (package.folder / member).open("rb") as file:
        data = bytearray(package.manifest["members"][member]["bytes"])
        whole = file.readinto(data) == len(data) and not file.read(1)
    _verify(package, member, data if whole else b"")
    return data


def _verify(package: Package, member: str, data: bytes | bytearray) -> None:
    if hashlib.sha256(data).hexdigest() != package.manifest["members"][member]["sha256"]:
        raise _broken(f"{member} is not the file that was packaged (its sha256 differs)")


def _broken(message: str, hint: str = "copy the package again, or export it anew") -> FuselineError:
    return FuselineError("bad_package", message, hint)


def _json(path: Path, member: str) -> Any:
    try:
        if path.stat().st_size > PARSED_LIMIT:
            raise _broken(f"{member} is larger than {PARSED_LIMIT >> 20} MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(f"{member} is not JSON: {error}") from None


def _member_path(folder: Path, member: str) -> Path:
    pure = PurePosixPath(member)
    if pure.is_absolute() or ".." in pure.parts or "\\" in member or ":" in member or not pure.parts:
        raise _broken(f"the manifest names {member!r}, which is outside the package")
    path = folder.joinpath(*pure.parts)
    for step in (path, *path.parents):
        if step == folder:
            break
        if step.is_symlink():
            raise _broken(f"{member} is a link; a package holds plain files only")
    if not path.is_file():
        raise _broken(f"{member} is missing")
    return path


def read_package(folder: str | Path) -> Package:
    """Open and verify a package. Raises FuselineError ``no_such_file``, ``bad_package`` or ``package_version``."""
    folder = Path(folder)
    if (folder / "model.fuse" / "manifest.json").is_file():  # a run's folder is taken for its package
        folder = folder / "model.fuse"
    if not folder.is_dir():
        raise FuselineError("no_such_file", f"no package at {folder}", "a package is a folder NAME.fuse/")
    if (folder / "folds.json").is_file():
        raise _broken(f"{folder} is a cross-validation, which has no one model", "give one of its folds, e.g. fold-0")
    if not (folder / "manifest.json").is_file():
        raise _broken(f"{folder} has no manifest.json", "is this the .fuse folder, or a run that has one?")
    manifest = _json(folder / "manifest.json", "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("members"), dict) or "format" not in manifest:
        raise _broken("manifest.json lacks its format or its members")
    if manifest["format"] != FORMAT:
        raise FuselineError(
            "package_version",
            f"the package has format {manifest['format']}, this version of fuseline reads format {FORMAT}",
            "install the version that wrote it (see manifest.json: fuseline), or export the run again",
        )
    for member, entry in manifest["members"].items():
        path = _member_path(folder, member)
        if not isinstance(entry, dict) or path.stat().st_size != entry.get("bytes"):
            raise _broken(f"{member} has another size than the manifest says")
        if sha256_of(path) != entry.get("sha256"):
            raise _broken(f"{member} is not the file that was packaged (its sha256 differs)")
    for member in REQUIRED:
        if member not in manifest["members"]:
            raise _broken(f"the manifest lists no {member}")
    if manifest.get("version") != _version(manifest["members"]):
        raise _broken("the manifest's version does not fit its members")
    try:
        recipe = parse_recipe(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _broken(f"recipe.yaml is not YAML: {error}") from None
    columns = _json(folder / "columns.json", "columns.json")
    task = _json(folder / "task.json", "task.json")
    if not isinstance(columns, dict) or set(columns) != set(recipe.inputs) or not isinstance(task, dict):
        raise _broken("columns.json or task.json does not fit the recipe's inputs")
    for name, entry in columns.items():  # tokenizers are files of their own: large, and other tools read them
        member = _tokenizer_member(name)
        if member in manifest["members"]:
            entry["state"]["tokenizer"] = (folder / member).read_text(encoding="utf-8")
    if TOKENIZER in manifest["members"]:
        task["state"]["tokenizer"] = (folder / TOKENIZER).read_text(encoding="utf-8")
    package = Package(folder, manifest, recipe, columns, task, _runtime(folder, manifest["members"]))
    if not package.backends:
        raise _broken("the manifest lists no graph: neither graph.onnx nor openvino.xml with openvino.bin")
    if package.backend not in package.backends:
        raise _broken(f"compression.json names the backend {package.backend}, whose graph is not there")
    return package


def _runtime(folder: Path, members: Mapping[str, Any]) -> dict[str, Any]:
    """compression.json's `runtime`. Raises FuselineError ``bad_package`` where it says what nobody understands."""
    if "compression.json" not in members:
        return {}
    told = _json(folder / "compression.json", "compression.json")
    runtime = told.get("runtime", {}) if isinstance(told, dict) else None
    if not isinstance(runtime, dict) or not isinstance(runtime.get("options", {}), dict):
        raise _broken("compression.json is not laid out as one")
    newer = "upgrade fuseline: a newer version may have written it"
    backend, precision = runtime.get("backend"), runtime.get("precision", "float32")
    if backend is not None and (not isinstance(backend, str) or backend not in GRAPHS):
        raise _broken(f"compression.json names the backend {backend!r}, which there is not", newer)
    if not isinstance(precision, str) or not set(precision.split("+")) <= PRECISIONS:
        raise _broken(f"compression.json names the precision {precision!r}, which there is not", newer)
    return dict(runtime)


def _tokenizer_member(name: str) -> str:
    """Where an input's tokenizer lies. A name that is no plain file's (a path's signs, a whole sentence) is hashed."""
    plain = not set(name) & set("/\\:") and len(name.encode()) <= 120
    return f"tokenizers/{name if plain else hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _version(members: dict[str, Any]) -> str:
    text = json.dumps({k: v.get("sha256") for k, v in sorted(members.items())}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_package(
    folder: Path,
    *,
    name: str,
    recipe_yaml: str,
    columns: dict[str, dict[str, Any]],
    task: dict[str, Any],
    extra: dict[str, Any],
    card: str,
    fuseline_version: str,
) -> Package:
    """Complete a folder that already holds a graph and its weights, and seal it with its manifest.

    `extra`: member name -> JSON data (profile.json, metrics.json, parity.json, compression.json). The folder is trusted
    until sealed; the caller writes into a temporary sibling and renames, so that a half-written package is never seen.
    """
    (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
    plain: dict[str, Any] = {}
    for key, entry in columns.items():
        state = dict(entry["state"])
        tokenizer = state.pop("tokenizer", None)
        if tokenizer is not None:
            (folder / "tokenizers").mkdir(exist_ok=True)
            (folder / _tokenizer_member(key)).write_text(tokenizer, encoding="utf-8")
        plain[key] = {**entry, "state": state}
    write_json(folder / "columns.json", plain)
    if (tokenizer := (state := dict(task["state"])).pop("tokenizer", None)) is not None:
        (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    write_json(folder / "task.json", {**task, "state": state})
    for member, data in extra.items():
        write_json(folder / member, data)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "manifest.json").unlink(missing_ok=True)
    for path in folder.rglob("*"):  # some writers make files that only their owner reads; a server is another user
        path.chmod(0o755 if path.is_dir() else 0o644)
    members = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "name": name,
        "version": _version(members),
        "fuseline": fuseline_version,
        "members": members,
    }
    write_json(folder / "manifest.json", manifest)
    return read_package(folder)
