"""scikit-learn estimators over the same training: FusionClassifier and FusionRegressor. Dimensions: n rows.

`X` is a table (pandas, polars, Arrow) or an array of numbers. A table's columns of numbers, booleans, dates and
categories are taken as their types say; columns of text, files and bytes are looked at as `fuseline init` does, or are
what `inputs` says. NaN, None and empty text are absent cells. What scikit-learn expects as a ValueError is one here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.errors import FuselineError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data
except ModuleNotFoundError:
    raise FuselineError("missing_extra", "the estimators need scikit-learn", "pip install 'fuseline[train]'") from None

FEWEST_VALIDATED = 10
"""rows of validation below which early stopping follows chance: then all rows train, for all epochs"""
PARITY_ROWS = 8
"""training rows kept to verify a saved package with"""
BATCH = 64


class InvalidInputError(FuselineError, ValueError):
    """A FuselineError as scikit-learn and its users expect it: also a ValueError."""


@contextmanager
def _value_errors() -> Iterator[None]:
    try:
        yield
    except FuselineError as error:
        raise InvalidInputError(error.code, error.message, error.hint, row=error.row, column=error.column) from error


class _Fusion(BaseEstimator):
    """What both estimators share."""

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any] | None = None,
        fusion: str | Mapping[str, Any] = "attention",
        width: int = 64,
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        val: float = 0.15,
        patience: int = 8,
        media_root: str | None = None,
        cache_mb: int = 512,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.inputs = inputs
        self.fusion = fusion
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.val = val
        self.patience = patience
        self.media_root = media_root
        self.cache_mb = cache_mb
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _frame(self, X: Any, *, fitting: bool) -> pl.DataFrame:
        """X as polars, after scikit-learn's checks of names and shape. Columns without names are x0, x1, ..."""
        if not hasattr(type(X), "columns") and not hasattr(type(X), "column_names"):
            array = validate_data(self, X, reset=fitting, dtype=np.float64, ensure_all_finite="allow-nan")
            names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(array.shape[1])])
            return pl.DataFrame({n: array[:, i] for i, n in enumerate(names)}, nan_to_null=True)
        from fuseline.data.objects import to_frame

        frame = to_frame(X)
        if not frame.height:
            raise ValueError(f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is required.")
        # pandas' own names may be numbers, which scikit-learn treats as none; every other kind of table has texts
        validate_data(self, X if hasattr(X, "iloc") else frame, reset=fitting, skip_check_array=True)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(frame.width)])
        return frame.rename(dict(zip(frame.columns, names, strict=True)))

    def _fit(self, frame: pl.DataFrame, targets: Mapping[str, list[Any]], task: Mapping[str, Any]) -> None:
        """Train on a frame and its targets. Raises FuselineError on what cannot be learned from."""
        from fuseline.data.table import Table
        from fuseline.lab.build import build_model
        from fuseline.lab.training import loop
        from fuseline.lab.training.disk.where import open_cache
        from fuseline.lab.training.prepare import prepare
        from fuseline.progress import voice
        from fuseline.recipe import parse_recipe

        recipe = parse_recipe(self._recipe(frame, task))
        whole = frame.hstack([pl.Series(name, cells) for name, cells in targets.items()])
        speak = voice("auto" if self.verbose else "quiet")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            table = Table.open(whole, absent=recipe.table.absent)
            prepared = prepare(recipe, table, folder=folder, voice=speak, cache=open_cache(recipe.training))
            model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
            loop.keep_frozen(prepared, model, speak)
            trained = loop.fit(prepared, model, folder, speak, resume=False, precision="float32")
        self.recipe_ = recipe
        self.model_ = model.cpu().eval()
        self.parser_ = prepared.parser
        self.task_ = prepared.task
        self.profile_ = prepared.profile
        self.n_iter_ = len(trained.history)
        train = prepared.rows("train")
        chosen = train[np.linspace(0, len(train) - 1, min(PARITY_ROWS, len(train))).astype(int)]
        self.parity_rows_ = self._parsed(frame[chosen.tolist()].to_dicts(), 0)

    def _recipe(self, frame: pl.DataFrame, task: Mapping[str, Any]) -> dict[str, Any]:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        fusion = dict(self.fusion) if isinstance(self.fusion, Mapping) else {"kind": self.fusion}
        return {
            "inputs": dict(self.inputs) if self.inputs is not None else drafted_inputs(frame),
            "task": dict(task),
            "fusion": {"width": self.width, **fusion},
            "table": {"media_root": self.media_root, "absent": [""]},
            "split": {
                "kind": "stratified",
                "val": self.val if frame.height * self.val >= FEWEST_VALIDATED else 0.0,
                "test": 0.0,
                "seed": seed,
            },
            "training": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "patience": self.patience,
                "seed": seed,
                "loggers": [],
                "precision": "float32",
                "cache_mb": self.cache_mb,
                "checkpoint_seconds": 1e9,  # nobody can resume it: written once, at the end
            },
        }

    def _parsed(self, rows: Sequence[Mapping[str, Any]], first: int) -> list[dict[str, Any]]:
        from fuseline.modalities import MediaRoot

        media = MediaRoot(self.media_root)
        parsed = [self.parser_.parse(row, media, first + i) for i, row in enumerate(rows)]
        for row in parsed:
            if row.error is not None:
                raise row.error
        return [row.values for row in parsed]

    def _outputs(self, X: Any) -> dict[str, np.ndarray]:
        """The head's outputs of each row, by name."""
        from fuseline.lab.export.package import expected_outputs

        check_is_fitted(self, "model_")
        parts = []
        with _value_errors():
            frame = self._frame(X, fitting=False)
            for start in range(0, frame.height, BATCH):
                rows = self._parsed(frame[start : start + BATCH].to_dicts(), start)
                parts.append(expected_outputs(self.model_, self.parser_, rows, BATCH, task=self.task_))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def save(self, path: str | Path) -> Path:
        """Write the fitted model as a package NAME.fuse/, proven without torch on a few training rows.

        The package is what `fuseline.load` opens: its answers are this estimator's.

        Raises:
            InvalidInputError: ``export_failed`` or ``parity``; then nothing was written.
        """
        from fuseline.lab.export import export_package

        check_is_fitted(self, "model_")
        path = Path(path)
        with _value_errors():
            export_package(
                self.model_,
                recipe=self.recipe_,
                parser=self.parser_,
                task=self.task_,
                rows=self.parity_rows_,
                target=path,
                name=path.stem,
                run={"inputs": _described(self.parser_.modalities, self.recipe_)},
                metrics={"task": self.task_.name, "metric": self.task_.metric, "parts": {}, "degradation": []},
                profile=self.profile_,
            )
        return path


def drafted_inputs(frame: pl.DataFrame) -> dict[str, Any]:
    """The recipe's `inputs` for a frame. What a column's type says is not guessed at: X was chosen by its user.

    Raises FuselineError ``no_inputs`` where no column can be used.
    """
    import yaml

    from fuseline.data.draft import draft_recipe
    from fuseline.data.infer import Column, Inferred, infer
    from fuseline.data.table import Table

    known = {name: kind for name, dtype in frame.schema.items() if (kind := _kind(dtype))}
    unknown = frame.select([c for c in frame.columns if c not in known])
    guessed = {c.name: c for c in infer(Table.open(unknown, absent=("",))).columns} if unknown.width else {}
    columns = [guessed.get(c) or Column(c, known[c], 0.0, "by its type") for c in frame.columns]
    inferred = Inferred(frame.height, columns, split={"kind": "stratified"})
    inputs: dict[str, Any] = yaml.safe_load(draft_recipe("", inferred, None))["inputs"]
    return inputs


def _kind(dtype: pl.DataType) -> str | None:
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.Date, pl.Datetime):
        return "date"
    if dtype in (pl.Categorical, pl.Enum):
        return "category"
    return "boolean" if dtype == pl.Boolean else None


def _described(modalities: Mapping[str, Any], recipe: Any) -> list[dict[str, Any]]:
    """The inputs, for the model card."""
    return [
        {
            "name": name,
            "modality": modality.name,
            "columns": list(modality.columns),
            "encoder": recipe.inputs[name].encoder.kind,
            "tune": recipe.inputs[name].encoder.tune,
        }
        for name, modality in modalities.items()
    ]


def _free_names(stem: str, count: int, frame: pl.DataFrame) -> list[str]:
    """Names for targets that no column of X has."""
    while any(name.startswith(stem) for name in frame.columns):
        stem = f"_{stem}"
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]


def _given(y: Any) -> Any:
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None")
    return y


def _check_rows(frame: pl.DataFrame, y: np.ndarray) -> None:
    check_consistent_length(np.empty(frame.height), y)
    if frame.height < 2:
        raise ValueError("n_samples=1: a model cannot be learned from 1 sample")


class FusionClassifier(ClassifierMixin, _Fusion):
    """Classify rows of any modalities. The module's text says what X may be.

    Args:
        inputs: the recipe's `inputs` section; None decides by each column.
        fusion: kind of fusion, or the recipe's whole `fusion` section, e.g. ``{"kind": "attention", "layers": 1}``.
        width: of every token, a multiple of the fusion's heads.
        epochs: most passes over the training rows.
        batch_size: rows a step.
        learning_rate: of AdamW at its highest.
        val: share of rows held out to stop early and to keep the best epoch; of few rows none is held out.
        patience: epochs without a better validation metric before stopping.
        media_root: folder that cells naming files are relative to; None: no file is opened, cells hold bytes or base64.
        cache_mb: memory for decoded cells while fitting.
        random_state: a number, a RandomState or None, as everywhere in scikit-learn.
        verbose: show progress.

    Attributes:
        classes_: the labels, sorted.
        n_iter_: epochs run.
    """

    def fit(self, X: Any, y: Any) -> FusionClassifier:
        """Train on rows X and their labels y (n,): texts, whole numbers or booleans.

        Raises:
            ValueError: anything that cannot be learned from; as InvalidInputError it names row and column.
        """
        with _value_errors():
            frame = self._frame(X, fitting=True)
            labels = column_or_1d(_given(y), warn=True)
            if labels.dtype.kind != "O":
                check_array(labels, ensure_2d=False, dtype=None, ensure_min_samples=0, input_name="y")
            _check_rows(frame, labels)
            cells = labels.tolist()
            for row, cell in enumerate(cells):
                if not isinstance(cell, (bool, int, float, str)) or cell != cell or not str(cell).strip():
                    raise ValueError(f"row {row}: {cell!r} is no label: labels are texts, numbers or booleans")
            check_classification_targets(labels)
            self.classes_ = np.unique(labels)
            if len(self.classes_) < 2:
                raise ValueError(f"Classifier can't train when only one class is present: {self.classes_[0]!r}")
            (name,) = _free_names("target", 1, frame)
            self._fit(
                frame,
                {name: cells},
                {
                    "kind": "classification",
                    "target": name,
                    "mode": "binary" if len(self.classes_) == 2 else "multiclass",
                    "classes": self.classes_.tolist(),  # all of them, in this order: the columns of predict_proba
                },
            )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The chance of each class (n, classes), columns as `classes_`."""
        outputs = self._outputs(X)
        return np.array([list((answer.probabilities or {}).values()) for answer in self.task_.decode(outputs)])

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row (n,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])


class FusionRegressor(RegressorMixin, _Fusion):
    """Predict one or several numbers from rows of any modalities. Arguments as FusionClassifier.

    Attributes:
        n_iter_: epochs run.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> FusionRegressor:
        """Train on rows X and their numbers y (n,) or (n, targets).

        Raises:
            ValueError: anything that cannot be learned from; as InvalidInputError it names row and column.
        """
        with _value_errors():
            frame = self._frame(X, fitting=True)
            numbers = check_array(_given(y), ensure_2d=False, dtype=np.float64, ensure_min_samples=0, input_name="y")
            _check_rows(frame, numbers)
            columns = numbers.reshape(len(numbers), -1)
            names = _free_names("target", columns.shape[1], frame)
            task = {"target": names[0]} if len(names) == 1 else {"targets": names}
            targets = {name: columns[:, k].tolist() for k, name in enumerate(names)}
            self._fit(frame, targets, {"kind": "regression", **task})
        self.flat_ = numbers.ndim == 1
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) or (n, targets), as y was."""
        out = self._outputs(X)["prediction"].astype(np.float64)
        return out[:, 0] if self.flat_ else out
