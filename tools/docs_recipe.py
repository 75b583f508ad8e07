"""Writes docs/recipe.md: every key of a recipe, from the models' own field descriptions. `make docs` runs it.

The same texts are what errors and editors show, so the page cannot say another thing than the code. Needs the train
extra, since encoders and fusions own their options.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fuseline import recipe
from fuseline.lab.augment import AUGMENTED, augment_class
from fuseline.lab.build import ModelOptions
from fuseline.lab.decoders import DECODERS, decoder_class
from fuseline.lab.encoders import ENCODERS, SETS, encoder_class
from fuseline.lab.fusion import FUSIONS, fusion_class
from fuseline.lab.stacked.options import LinearConfig, StackedConfig, TreesConfig
from fuseline.modalities import MODALITIES, modality_class
from fuseline.tasks import TASKS, task_class
from fuseline.tasks.decoding import Decoding

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipe.md"

HEAD = """# The recipe, key by key

Written by `make docs` from the code's own descriptions: change them there. A recipe is a YAML file; `fuseline init
TABLE --target COLUMN` drafts one with comments. An unknown key is an error that names its path and the closest key.

```yaml
table: {path: visits.csv}
inputs:
  xray: {modality: image, column: xray_file}
  note: {modality: text, encoder: {kind: small}}
  vitals: {modality: tabular, columns: {age: number, sex: category}}
task: {kind: classification, target: diagnosis}
split: {kind: group, group: patient}
fusion: {kind: attention, layers: 2}
training: {epochs: 30}
```
"""

STACKED = (
    "Boosted trees, a linear probe or class means over the encoders' embeddings and the raw cells (docs/stacking.md, "
    "docs/few-shot.md); auto: those or the model trained end to end, whichever does better on validation rows. "
    "`fusion: auto` is short for `fusion: {kind: auto}`."
)

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "none", Any: "anything"}
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def kind_of(annotation: Any) -> str:
    """A type as a reader of YAML would say it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is typing.Annotated:
        return kind_of(args[0])
    if origin is Literal:
        return " or ".join(f"`{a}`" if isinstance(a, str) else str(a) for a in args)
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(a) for a in args)
    if origin in (tuple, list):
        inner = [a for a in args if a is not Ellipsis]
        return "list of " + (kind_of(inner[0]) if len(set(inner)) == 1 else ", ".join(kind_of(a) for a in inner))
    if origin is dict:
        return f"mapping of {kind_of(args[0])} to {kind_of(args[1])}"
    return "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else str(annotation)


def bounds_of(info: FieldInfo) -> str:
    found = [f"{sign} {getattr(m, key)}" for m in info.metadata for key, sign in BOUNDS.items() if hasattr(m, key)]
    return f" ({', '.join(found)})" if found else ""


def default_of(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple | list):
        return ", ".join(f'`"{v}"`' if isinstance(v, str) else f"`{v}`" for v in value) or "none"
    if value is None or value == {}:
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"`{value}`"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def rows(model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[str]:
    fields = {k: f for k, f in model.model_fields.items() if k not in skip}
    if not fields:
        yield "No keys of its own."
        return
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name, info in fields.items():
        value = cell(kind_of(info.annotation) + bounds_of(info))
        yield f"| `{name}` | {value} | {cell(default_of(info))} | {cell(info.description or '')} |"


def first_line(thing: type) -> str:
    """The first line of its module's docstring, without the legend of letters that follows it there."""
    text = " ".join((sys.modules[thing.__module__].__doc__ or "").split())
    return text.partition(" Dimensions:")[0]


def first_paragraph(thing: type) -> str:
    return " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())


def section(title: str, model: type[BaseModel], intro: str = "", level: int = 2) -> list[str]:
    return ["", f"{'#' * level} {title}", "", *([intro, ""] if intro else []), *rows(model)]


def augmentations() -> Iterator[str]:
    """A table for each kind of augmentation, under all modalities that share it."""
    shared: dict[type, list[str]] = {}
    for name in AUGMENTED:
        cls = augment_class(name)
        assert cls is not None
        shared.setdefault(cls.Config, []).append(name)
    for config, names in shared.items():
        cls = augment_class(names[0])
        assert cls is not None
        strong = ", ".join(f"`{k}: {v}`" for k, v in cls.strong.items())
        said = f"The defaults are those of the preset `default`; `strong` has {strong}."
        yield from section(f"inputs.NAME.augment, modality: {', '.join(names)}", config, said, 3)


def page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD.rstrip()]
    lines += section("The whole", recipe.Recipe)
    lines += section("table", recipe.TableSpec)
    lines += section(
        "inputs.NAME", recipe.Input, "One entry a modality; the keys of its modality (below) stand here too."
    )
    for name in MODALITIES:
        lines += section(f"inputs.NAME, modality: {name}", modality_class(name).Config, level=3)
    lines += augmentations()
    lines += section("inputs.NAME.encoder", recipe.EncoderSpec, "The keys of its kind (below) stand here too.")
    for modality, kinds in ENCODERS.items():
        if modality in SETS:
            lines += ["", f"### inputs.NAME.encoder, {modality}", "", f"The kinds and keys of `{SETS[modality]}`."]
            continue
        for kind in kinds:
            cls = encoder_class(modality, kind)
            lines += section(f"inputs.NAME.encoder, {modality}, kind: {kind}", cls.Config, first_paragraph(cls), 3)
    lines += section("task", recipe.Component, "The keys of its kind (below) stand here too.")
    for name in TASKS:
        lines += section(f"task, kind: {name}", task_class(name).Config, level=3)
    lines += section("task.decoding", Decoding, "Of the task generation. A caller may ask for others.", 3)
    for name in DECODERS:
        cls_d = decoder_class(name)
        lines += section(f"task.decoder, kind: {name}", cls_d.Config, first_paragraph(cls_d), 3)
    lines += section("split", recipe.SplitSpec)
    lines += section(
        "fusion", ModelOptions, "`kind` chooses one of the fusions below, `attention` where nothing is said."
    )
    for name in FUSIONS:
        cls_f = fusion_class(name)
        lines += section(f"fusion, kind: {name}", cls_f.Config, first_line(cls_f), 3)
    lines += section("fusion, kind: stacked or auto", StackedConfig, STACKED, 3)
    lines += section("fusion.linear", LinearConfig, level=3)
    lines += section("fusion.trees", TreesConfig, level=3)
    lines += section("training", recipe.TrainingSpec)
    lines += section("training.adversarial", recipe.AdversarialSpec, "See docs/robustness.md.", 3)
    lines += section("training.adversarial.radii, evaluation.radii", recipe.Radii, first_paragraph(recipe.Radii), 3)
    lines += section("training.unlabelled", recipe.UnlabelledSpec, "See docs/semi-supervised.md.", 3)
    lines += section("evaluation", recipe.EvaluationSpec)
    lines += section("evaluation.conformal", recipe.ConformalSpec, first_paragraph(recipe.ConformalSpec), 3)
    lines += section("evaluation.abstain", recipe.AbstainSpec, first_paragraph(recipe.AbstainSpec), 3)
    lines += section("pretrain", recipe.PretrainSpec, first_paragraph(recipe.PretrainSpec))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
