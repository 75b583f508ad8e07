"""The fenced blocks of README.md and docs/*.md, and what can be said of them without running them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from fuseline.cli import app
from fuseline.errors import FuselineError
from fuseline.lab.augment import augment_class
from fuseline.lab.build import ModelOptions
from fuseline.lab.encoders import encoder_class
from fuseline.lab.fusion import fusion_class
from fuseline.lab.stacked.options import StackedConfig
from fuseline.modalities import modality_class
from fuseline.recipe import Recipe, parse_recipe, read_options
from fuseline.tasks import task_class

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
LANGUAGES = {"python", "sh", "yaml", "json", "text", "promql"}
PROGRAMS = {"fuseline", "pip", "make", "python", "torchrun", "curl", "docker", "kubectl", "printf", "promtool"}
PROGRAMS |= {"tensorboard", "mlflow", "wandb"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^`]*)$")
COMMENT = re.compile(r"^ *<!-- not run: *(?P<reason>.*?) *-->$")
INLINE = re.compile(r"(?<!`)`(fuseline [a-z][^`]*)`(?!`)")
BASE = {"inputs": {"note": {"modality": "text"}}, "task": {"kind": "classification", "target": "sick"}}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    """why the tests do not run it; None: they do"""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """A page's blocks in their order. Raises ValueError on one that never ends."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if (opening := FENCE.match(lines[at])) is None:
            at += 1
            continue
        indent = opening["indent"]
        end = next((i for i in range(at + 1, len(lines)) if lines[i].rstrip() == f"{indent}```"), None)
        if end is None:
            raise ValueError(f"{page.relative_to(ROOT)}:{at + 1}: this block has no end")
        text = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end]) + "\n"
        said = COMMENT.match(lines[at - 1]) if at else None
        found.append(Block(page, at + 1, opening["language"].strip(), text, said["reason"] if said else None))
        at = end + 1
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def in_language(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def commands_of(text: str) -> Iterator[list[str]]:
    """A shell block's commands as words, without comments; a command may go on in the next line."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if words := shlex.split(line, comments=True):
            yield words
        for inner in re.findall(r"\$\(([^()]*)\)", line):
            yield shlex.split(inner)


@cache
def program() -> Any:
    """The command line, made once: that takes a third of a second."""
    return typer.main.get_command(app)


def check_command(words: list[str]) -> None:
    """Raises AssertionError where a command names what there is not."""
    while re.match(r"[A-Z_]+=", words[0]):  # a variable for this command alone
        words = words[1:]
    name, rest = words[0], words[1:]
    if name == "base64":
        return
    assert name in PROGRAMS, f"no known program: {name}"
    if name == "torchrun" and "-m" in rest:
        module = rest[rest.index("-m") + 1 :]
        name, rest = module[0], module[1:]
    if name == "fuseline":
        check_verb(rest)
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), f"make has no such target: {rest}"
    elif name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for named in re.findall(r"(?:fuseline|\.)\[([a-z,]+)\]", " ".join(rest)):
            assert set(named.split(",")) <= set(extras), f"no such extra: {named}"
    elif name == "python" and rest and rest[0].endswith(".py"):
        script = ROOT / rest[0]
        assert script.is_file(), f"no such file: {rest[0]}"
        text = script.read_text(encoding="utf-8")
        missing = [word for word in rest[1:] if word.startswith("--") and word.partition("=")[0] not in text]
        assert not missing, f"{rest[0]} knows no {missing}"


def check_verb(words: list[str]) -> None:
    """Words after `fuseline`, read by the real command line: verbs, options, and the kinds of their values."""
    command, name, rest = program(), "fuseline", list(words)
    while (verbs := getattr(command, "commands", None)) and rest and not rest[0].startswith("-"):
        assert rest[0] in verbs, f"{name} has no verb {rest[0]!r}"
        command, name, rest = verbs[rest[0]], f"{name} {rest[0]}", rest[1:]
    rest = [word for word in rest if word not in ("--help", "--version")]
    if getattr(command, "commands", None):
        assert not rest, f"{name} takes no {rest}"
        return
    try:
        command.make_context(name, rest)
    except Exception as error:  # the parser's own errors, of a class that typer keeps to itself
        raise AssertionError(f"{name}: {getattr(error, 'message', error)}") from None


def inline_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Commands in running text: the verb with its subcommand, and its options. Arguments may be words of any kind."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for found in INLINE.findall(text):
        command = " ".join(found.split())
        yield command, re.findall(r"(?<=\s)--[a-z][a-z-]*", command)


def check_inline(command: str, options: list[str]) -> None:
    node, words = program(), command.split()[1:]
    while (verbs := getattr(node, "commands", None)) and words and not words[0].startswith("-"):
        assert words[0] in verbs, f"no verb {words[0]!r} in `{command}`"
        node, words = verbs[words[0]], words[1:]
    if node.context_settings.get("ignore_unknown_options"):
        return  # `fuseline search`: the model's columns are its options
    known = {opt for param in node.params for opt in (*param.opts, *param.secondary_opts)} | {"--help"}
    assert set(options) <= known, f"`{command}`: no such option {sorted(set(options) - known)}"


def check_recipe(data: Any) -> None:
    """A recipe, or sections of one: every key of every part, as training would read it. Raises FuselineError."""
    if isinstance(data, dict) and "apiVersion" in data:
        return  # a manifest for Kubernetes; the tests in tests/deploy hold those against schemas
    if not isinstance(data, dict) or not set(data) <= set(Recipe.model_fields):
        raise FuselineError("bad_recipe", "neither a recipe nor sections of one", "call the block `text`")
    recipe = parse_recipe({**BASE, **data})
    for name, spec in recipe.inputs.items():
        where = f"inputs.{name}"
        read_options(modality_class(spec.modality).Config, spec.options, where)
        if spec.encoder.kind != "auto":
            options = {key: value for key, value in spec.encoder.options.items() if key not in ("rank", "alpha")}
            read_options(encoder_class(spec.modality, spec.encoder.kind).Config, options, f"{where}.encoder")
        augment = augment_class(spec.modality)
        if isinstance(spec.augment, dict) and augment is not None:
            options = {key: value for key, value in spec.augment.items() if key != "preset"}
            read_options(augment.Config, options, f"{where}.augment")
    if "task" in data:
        read_options(task_class(recipe.task.kind).Config, recipe.task.options, "task")
    kind, options = recipe.fusion.kind, recipe.fusion.options
    if kind in ("auto", "stacked"):  # the other keys are those of the fusion that is trained end to end
        stacked = {key: options.pop(key) for key in StackedConfig.model_fields if key in options}
        kind = read_options(StackedConfig, stacked, "fusion").base
    around = {key: options.pop(key) for key in ModelOptions.model_fields if key in options}
    read_options(ModelOptions, around, "fusion")
    read_options(fusion_class(kind).Config, options, "fusion")


def check_names(text: str) -> None:
    """Python that is not run: it compiles, and what it takes from fuseline is there and takes these arguments."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fuseline":
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"
        elif isinstance(node, ast.Attribute) and (thing := _resolved(node)) is not None:
            assert thing[1], f"there is no {thing[0]}"
        elif isinstance(node, ast.Call) and (thing := _resolved(node.func)) is not None and callable(thing[1]):
            if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
                continue
            try:
                inspect.signature(thing[1]).bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
            except TypeError as error:
                raise AssertionError(f"{thing[0]}: {error}") from None


def _resolved(node: ast.AST) -> tuple[str, Any] | None:
    """(dotted name, what it is or None) of a chain that begins with `fuseline`; None for any other."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id != "fuseline" or not names:
        return None
    thing: Any = importlib.import_module("fuseline")
    for name in reversed(names):
        if inspect.ismodule(thing) and not hasattr(thing, name):
            try:
                importlib.import_module(f"{thing.__name__}.{name}")
            except ImportError:
                return ".".join(["fuseline", *reversed(names)]), None
        thing = getattr(thing, name, None)
    return ".".join(["fuseline", *reversed(names)]), thing
