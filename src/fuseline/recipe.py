"""The recipe: everything that decides what a run does, as frozen models.

The frame lives here. The options of a part (an image's size, a fusion's layers) belong to the part: they
are kept as `options` and validated by the part's own `Config` through :func:`read_options`, so that adding
a part never touches this file. Unknown keys are errors that name their path.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from fuseline.errors import FuselineError, closest

Stratify = Literal["classes", "numbers", "none"]
"""how a split spreads rows by their target: by class, by quantile, or not"""
ABSENT = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>")


def _moment_text(given: Any) -> Any:
    """YAML makes a date of what looks like one: we want its text."""
    return given.isoformat() if isinstance(given, datetime.date) else given


Moment = Annotated[str, BeforeValidator(_moment_text)]


class Frozen(BaseModel):
    """Base of every config: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Component(BaseModel):
    """A part chosen by `kind`; every other key is the part's own and is checked by its Config."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    kind: str = "auto"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncoderSpec(Component):
    tune: Literal["auto", "frozen", "lora", "full"] = Field(
        "auto", description="frozen: keep the weights; lora: low-rank adapters; full: all; auto: frozen if pretrained"
    )
    learning_rate: float | None = Field(None, gt=0, description="own learning rate; default: training.learning_rate")


class Input(BaseModel):
    """One modality of the model: a column (or, for `tabular`, a group of columns) and its encoder."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    modality: str = Field(
        description="text, image, audio, tabular, timeseries, graph, video, document; images, texts: several a row"
    )
    column: str | None = Field(None, description="the table's column; default: the input's own name")
    columns: dict[str, str] | None = Field(
        None, description="tabular: column -> number, category, boolean or date; document: column -> image or words"
    )
    on_bad_cell: Literal["error", "absent"] = Field(
        "error", description="what an unreadable cell is: an error (default), or as if absent"
    )
    required: bool = Field(True, description="whether a table without this column is an error at prediction")
    augment: str | dict[str, Any] = Field(
        "auto",
        description="random changes while training: default, strong or none, or {preset, and its modality's options}; "
        "auto: what the encoder does by itself (small ones do, pretrained ones do nothing)",
    )
    encoder: EncoderSpec = EncoderSpec()

    @property
    def options(self) -> dict[str, Any]:
        """The modality's own options (size, max_length, sample_rate, ...)."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _columns_are_for_tables(self) -> Input:
        if self.modality == "tabular" and not self.columns:
            raise ValueError("a tabular input lists its `columns`, e.g. {age: number, sex: category}")
        if self.modality == "document" and not self.columns:
            raise ValueError("a document lists its `columns`, e.g. {scan: image, ocr: words}")
        if self.modality not in ("tabular", "document") and self.columns:
            raise ValueError("`columns` is for tabular inputs and documents; use `column`")
        return self


class WindowSpec(Frozen):
    """A long table (a row a moment) read as windows: a row for every moment that has `history` steps behind it."""

    time: str | tuple[str, ...] | None = Field(
        None, description="column of the moment, or year, month, day[, hour[, minute]] columns; default: rows are steps"
    )
    entity: str | None = Field(None, description="column that tells several series apart; default: one series")
    step: str | None = Field(None, description="distance of two steps, e.g. 5m, 1h, 1d; default: the usual one")
    start: Moment | None = Field(None, description="moment of the first row, where no column says it, e.g. 2012-03-01")
    history: int = Field(ge=1, le=100_000, description="steps behind a row's moment, its own included")
    horizon: int = Field(ge=1, le=100_000, description="steps ahead of it")
    stride: int = Field(1, ge=1, description="a row for every so many steps")
    series: dict[str, Literal["*"] | tuple[str, ...]] = Field(
        default_factory=dict,
        description="several columns as one series: name -> its columns, or * for all; a column of words becomes one "
        "channel a word",
    )
    words: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="words of a column, each a channel, in order; none: it holds numbers. Default: those of the "
        "training table, which the package keeps",
    )


class TableSpec(Frozen):
    path: str | None = Field(None, description="CSV, Parquet, JSONL or Arrow file; relative to the recipe")
    absent: tuple[str, ...] = Field(ABSENT, description="cell texts that mean `no value`")
    media_root: str | None = Field(None, description="folder that file cells may not leave; default: the table's")
    on_error: Literal["stop", "quarantine"] = Field("stop", description="what a broken cell does to the run")
    windows: WindowSpec | None = Field(None, description="read a long table of moments as windows, for forecasts")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="quarantine gives up above this share of bad rows")


class SplitSpec(Frozen):
    kind: Literal["random", "stratified", "group", "time", "given"] = "stratified"
    group: str | None = Field(None, description="column whose values are never split over parts (kind: group)")
    time: str | None = Field(None, description="column that orders the rows (kind: time); of windows: `time`")
    val_from: Moment | None = Field(None, description="kind: time: moment from which rows validate, instead of a share")
    test_from: Moment | None = Field(None, description="kind: time: moment from which rows test, instead of a share")
    column: str | None = Field(None, description="column holding train, val or test (kind: given)")
    val: float = Field(0.15, ge=0, lt=1)
    test: float = Field(0.15, ge=0, lt=1)
    val_path: str | None = Field(None, description="a file of validation rows (kind: given)")
    test_path: str | None = Field(None, description="a file of test rows (kind: given)")
    folds: int = Field(0, ge=0, description="k-fold cross-validation instead of one test part; 0: off")
    seed: int = 0

    @model_validator(mode="after")
    def _named_columns(self) -> SplitSpec:
        if self.kind == "group" and not self.group:
            raise ValueError("split.kind is group, so split.group must name a column")
        if self.kind == "time" and not self.time:
            raise ValueError("split.kind is time, so split.time must name a column")
        if self.kind == "given" and not (self.column or self.test_path):
            raise ValueError("split.kind is given, so split.column or split.test_path must be set")
        if (self.val_from or self.test_from) and self.kind != "time":
            raise ValueError("split.val_from and split.test_from belong to split.kind: time")
        if self.val + self.test >= 1:
            raise ValueError("split.val + split.test leave no rows to train on")
        return self


class Radii(Frozen):
    """How far an attack of strength 1 may move one row's input."""

    pixels: float = Field(0.016, gt=0, le=1, description="each pixel, in shares of the range; 4/255 as it comes")
    waveform: float = Field(0.05, gt=0, description="each sample, in shares of the sound's own loudness")
    numbers: float = Field(0.1, gt=0, description="each number, in the column's deviations")
    series: float = Field(0.1, gt=0, description="each step, in the channel's deviations")
    embeddings: float = Field(
        0.1, gt=0, description="words and categories: length of the change of a row's vectors, in shares of their own"
    )


class AdversarialSpec(Frozen):
    kind: Literal["fgm", "pgd"] = Field("pgd", description="fgm: one step of the whole radius; pgd: several, projected")
    steps: int = Field(3, ge=1, le=100, description="pgd: steps, of 2.5 radii in all; each costs a pass more")
    strength: float = Field(1.0, gt=0, description="of all radii")
    weight: float = Field(0.5, gt=0, le=1, description="of the attacked rows' loss; the rest is that of the rows as is")
    inputs: tuple[str, ...] | None = Field(
        None, min_length=1, description="inputs that are attacked; default: all that can be"
    )
    radii: Radii = Radii()


class UnlabelledSpec(Frozen):
    """Rows without a target teach, too."""

    rows: str = Field(
        "auto",
        min_length=1,
        description="auto: the table's rows without a target; else a file with more such rows, beside the table",
    )
    ratio: int = Field(2, ge=1, le=64, description="of them a step, for each row with a target")
    weight: float = Field(1.0, gt=0, description="of their loss, beside that of the rows with a target")
    ramp: float = Field(0.3, ge=0, le=1, description="share of all steps in which that weight rises")
    threshold: Literal["auto"] | float = Field(
        0.95,
        description="classes: how sure the teacher must be of a row, from 0 to 1; auto: as sure as it is on average, "
        "less for classes that it says rarely",
    )
    align: bool = Field(False, description="classes: bring the teacher's answers to the shares of the labelled rows")
    drop: float = Field(0.3, ge=0, lt=1, description="chance of each present input to be hidden from the student")
    augment: bool = Field(True, description="strong changes of the student's inputs, as `inputs.NAME.augment: strong`")

    @field_validator("threshold")
    @classmethod
    def _a_chance(cls, given: float | str) -> float | str:
        if not isinstance(given, str) and not 0 < given < 1:
            raise ValueError("between 0 and 1, or auto")
        return given


class TrainingSpec(Frozen):
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps with rising learning rate")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    patience: int = Field(8, ge=1, description="intervals without a better validation metric before stopping")
    metric: str = Field("auto", description="validation metric to watch; auto: the task's own")
    interval_steps: int = Field(500, ge=1, description="steps between validation and checkpoint, at most one epoch")
    checkpoint_seconds: float = Field(
        2.0,
        ge=0,
        description="where intervals are shorter than this, or than 30 times what writing takes, several share a "
        "checkpoint; 0: one an interval",
    )
    bucket: bool | Literal["auto"] = Field(
        False,
        description="batches of rows of like length, so that padding is not computed; auto: where it saves a tenth",
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are summed before a step")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: measured once a machine and model; reduced only where it gains 1.3 times or more"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=8,
        description="rows mixed with rows that have the same inputs, by shares from Beta(mixup, mixup); 0: off",
    )
    adversarial: AdversarialSpec | None = Field(None, description="train on attacked rows, too; see below")
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is then what is validated and kept; 0: off; "
        "default: off, or 0.99 with training.unlabelled",
    )
    unlabelled: UnlabelledSpec | None = Field(None, description="learn from rows without a target, too; see below")
    cache_mb: int = Field(
        512, ge=0, description="memory for decoded cells and frozen encoders' outputs; 0: off, on disk too"
    )
    cache_folder: str | None = Field(
        None,
        description="where frozen encoders' outputs are kept for later runs, or off; default: $FUSELINE_CACHE, else "
        "fuseline/tokens in the user's cache folder",
    )
    cache_disk_mb: int = Field(4096, ge=0, description="disk for all that is kept in cache_folder; 0: off")
    seed: int = 0
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)


class PretrainSpec(Frozen):
    """What `fuseline pretrain` learns from rows without labels, and for how long; see docs/pretraining.md."""

    contrast: float = Field(
        1.0, ge=0, description="weight of the contrast between every two inputs of a row (InfoNCE, as CLIP); 0: off"
    )
    masked: float = Field(
        1.0, ge=0, description="weight of the prediction of hidden tokens from all that is left (data2vec); 0: off"
    )
    share: float = Field(0.5, gt=0, lt=1, description="share of each input's tokens that is hidden")
    dim: int = Field(64, ge=2, le=4096, description="numbers of the vectors that are contrasted")
    temperature: float = Field(0.1, gt=0, le=10, description="what similarities are divided by at first; it is learned")
    teacher: float = Field(
        0.99, ge=0, lt=1, description="of an encoder that trains: how much of its moving average stays in a step"
    )
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(
        64, ge=2, description="rows of a step; the other rows of it are the contrast's wrong answers"
    )
    learning_rate: float | None = Field(None, gt=0, description="default: training.learning_rate")
    patience: int = Field(10, ge=1, description="intervals without a better validation loss before stopping")

    @model_validator(mode="after")
    def _something(self) -> PretrainSpec:
        if not self.contrast and not self.masked:
            raise ValueError("contrast and masked are both 0: nothing would be learned")
        return self


class ConformalSpec(Frozen):
    """Sets of classes and intervals of numbers that hold the truth with a stated chance; see docs/how-sure.md."""

    coverage: float = Field(0.9, gt=0, lt=1, description="the chance that the set or interval holds the truth")
    method: Literal["lac", "aps", "raps"] = Field(
        "lac",
        description="of classes. lac: the smallest sets on average; aps: larger where a row is hard, so that coverage "
        "is more even over rows; raps: aps with fewer unlikely classes",
    )
    by: tuple[str, ...] = Field(
        (), description="columns (inputs or not) for whose values, too, it shall hold; numbers are cut at quartiles"
    )


class AbstainSpec(Frozen):
    """Classification: no answer where it would not be sure enough; see docs/how-sure.md."""

    error: float = Field(gt=0, lt=1, description="share of wrong ones among the answers that may be given")
    confidence: float = Field(0.95, gt=0, lt=1, description="of that share being kept, over draws of held-out rows")


class EvaluationSpec(Frozen):
    calibration: Literal["none", "auto", "temperature", "beta", "isotonic"] = Field(
        "none",
        description="classification: how stated chances are made to mean what they say, fitted on validation rows; "
        "auto: the one with the least cross-validated log loss, none among them",
    )
    calibration_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the validation rows (whole groups) that calibration, conformal and abstain have to "
        "themselves, so that early stopping never saw them; 0: both use all validation rows",
    )
    conformal: ConformalSpec | None = Field(None, description="sets and intervals with a stated chance; see below")
    abstain: AbstainSpec | None = Field(None, description="no answer where it would not be sure enough; see below")
    odd: bool = Field(False, description="answers say how unlike the training rows each input is")
    slices: tuple[str, ...] = Field(
        (), description="columns by whose values the metrics are also measured; numbers are cut at quartiles"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples of the 95 % intervals; 0: none")
    degradation: bool = Field(True, description="the metrics for every subset of modalities")
    parts: tuple[Literal["val", "test"], ...] = Field(("val", "test"), description="which rows are evaluated")
    robustness: bool = Field(False, description="also measure under noise, absence and attack: robustness.json")
    radii: Radii = Field(Radii(), description="of the attacks of strength 1 there; see training.adversarial.radii")
    export: bool = Field(True, description="write and verify model.fuse")
    ensemble: bool = Field(
        False, description="with split.folds: one package of all folds' models, instead of one package a fold"
    )
    report: bool = Field(True, description="write report.html")
    tolerance: float = Field(1e-3, gt=0, description="largest allowed difference between training and package")


class Numbers(Frozen):
    """Numbers that a search may try."""

    low: float = Field(description="the least")
    high: float = Field(description="the greatest")
    log: bool = Field(False, description="evenly in powers, for numbers that span several tens")
    whole: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _ordered(self) -> Numbers:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low is below high, and above 0 where log is true")
        return self


class TuneSpec(Frozen):
    space: dict[str, Numbers | tuple[Any, ...]] = Field(
        default_factory=dict,
        description="path into the recipe -> {low, high, log, whole} or a list of choices; default: learning rate, "
        "weight decay, batch size, dropouts, width and kind of fusion",
    )


class Recipe(Frozen):
    version: Literal[1] = 1
    table: TableSpec = TableSpec()
    inputs: dict[str, Input] = Field(min_length=1)
    task: Component
    split: SplitSpec = SplitSpec()
    fusion: Component = Component(kind="attention")
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    tune: TuneSpec | None = None
    pretrain: PretrainSpec = PretrainSpec()
    init: str | None = Field(
        None,
        description="a folder of `fuseline pretrain` to begin from, relative to the recipe; see docs/pretraining.md",
    )
    notice: str | None = Field(
        None, max_length=2000, description="said first in the model card: what the model is not for, for example"
    )

    @field_validator("fusion", mode="before")
    @classmethod
    def _one_word(cls, given: Any) -> Any:
        """`fusion: auto` is short for `fusion: {kind: auto}`."""
        return {"kind": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        for name in self.inputs:
            if not name or "." in name or name == "present" or not name.isprintable():
                raise ValueError(f"inputs.{name}: a name may not be empty, hold a dot, or be `present`")
        return self

    def columns_of(self, name: str) -> tuple[str, ...]:
        """The table columns that input `name` reads."""
        spec = self.inputs[name]
        return tuple(spec.columns) if spec.columns else (spec.column or name,)


C = TypeVar("C", bound=BaseModel)


_WORDS = {
    "model_type": "give a section of keys",
    "tuple_type": "give a list",
    "list_type": "give a list",
    "dict_type": "give a section of keys",
}
"""pydantic's words for what a YAML file calls otherwise"""


def _explain(error: ValidationError, model: type[BaseModel], where: str, data: Any) -> FuselineError:
    said: dict[str, list[str]] = {}
    for item in error.errors()[:10]:
        path = ".".join(str(p) for p in (where, *_steps(item["loc"], data, item["type"])) if p != "")
        if item["type"] == "extra_forbidden":
            near = closest(str(item["loc"][-1]), _fields_at(model, item["loc"][:-1]))
            text = "unknown key" + (f"; did you mean {near!r}?" if near else "")
        else:
            text = _WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        said.setdefault(path, []).append(text)
    lines = [f"{path}: {', or: '.join(dict.fromkeys(texts))}" for path, texts in said.items()]
    return FuselineError(
        "bad_recipe", "the recipe does not hold: " + "; ".join(lines), "see docs/recipe.md for every key"
    )


def _steps(loc: tuple[int | str, ...], data: Any, kind: str) -> Iterator[int | str]:
    """The keys of an error's place that the recipe has, without the names that pydantic gives to a union's branches."""
    for step in loc:
        inside = isinstance(data, dict) and step in data
        if inside or (isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data)):
            data = data[step]
            yield step
    if kind == "missing":
        yield loc[-1]


def _fields_at(model: Any, loc: tuple[Any, ...]) -> list[str]:
    for step in loc:
        field = getattr(model, "model_fields", {}).get(step)
        model = field.annotation if field is not None else None
        # Of `Section | None`, the section.
        model = next((m for m in get_args(model) if hasattr(m, "model_fields")), model)
    return list(getattr(model, "model_fields", {}))


def read_options(config: type[C], options: dict[str, Any], where: str) -> C:
    """Validate a part's own options; errors name the path, e.g. ``fusion.layers``."""
    try:
        return config.model_validate(options)
    except ValidationError as error:
        raise _explain(error, config, where, options) from None


def parse_recipe(data: Any) -> Recipe:
    if not isinstance(data, dict):
        raise FuselineError("bad_recipe", "a recipe is a mapping of keys", "start from `fuseline init`")
    return read_options(Recipe, data, "")


def load_recipe(path: str | Path) -> Recipe:
    """Read a YAML recipe. Raises FuselineError ``bad_recipe`` or ``no_such_file``."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise FuselineError("no_such_file", f"no recipe at {path}", "write one with `fuseline init TABLE`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FuselineError("bad_recipe", f"{path} is not YAML: {error}", "") from None
    recipe = parse_recipe(data)
    if recipe.init is None:
        return recipe
    return recipe.model_copy(update={"init": str(path.resolve().parent / Path(recipe.init).expanduser())})


def dump_recipe(recipe: Recipe) -> str:
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
