"""scikit-learn estimators over the same training: FusionClassifier and FusionRegressor.

`X` is a pandas or polars DataFrame whose columns hold any modality (each column's kind is inferred, or given through
`inputs`), or a numeric array, whose columns become numbers. NaN and None are absent cells.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data
except ModuleNotFoundError:
    raise FuselineError(
        "missing_extra", "the estimators need scikit-learn", "pip install 'fuseline[train]'"
    ) from None

TARGET = "target of fit"


class _Fusion(BaseEstimator):
    """What both estimators share. Abstract: `_task` says which task."""

    def __init__(
        self,
        *,
        inputs: dict[str, Any] | None = None,
        fusion: str = "attention",
        width: int = 64,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        val: float = 0.15,
        patience: int = 8,
        media_root: str | None = None,
        cache_mb: int = 512,
        random_state: int = 0,
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

    def _task(self) -> dict[str, Any]:
        raise TypeError("_Fusion is abstract")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags

    def _frame(self, X: Any, *, fitting: bool) -> Any:
        """X as a polars frame, after the checks that scikit-learn asks for."""
        import polars as pl

        if hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"):
            frame = X if isinstance(X, pl.DataFrame) else pl.DataFrame(X)
            names = np.asarray(frame.columns, dtype=object)
            if fitting:
                self.n_features_in_, self.feature_names_in_ = len(names), names
            elif hasattr(self, "feature_names_in_") and list(names) != list(self.feature_names_in_):
                validate_data(self, X, reset=False, skip_check_array=True)
            if frame.height == 0:
                raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
            return frame
        array = validate_data(self, X, reset=fitting, dtype=np.float64, ensure_all_finite="allow-nan")
        if np.isinf(array).any():
            raise ValueError("Input X contains infinity or a value too large for dtype('float64').")
        return pl.DataFrame({f"x{i}": array[:, i] for i in range(array.shape[1])}, nan_to_null=True)

    def _fit(self, X: Any, y: np.ndarray) -> None:
        import polars as pl
        import yaml

        from fuseline.data.draft import draft_recipe
        from fuseline.data.infer import infer
        from fuseline.data.table import Table
        from fuseline.lab.build import build_model
        from fuseline.lab.training import loop
        from fuseline.lab.training.cache import Cache
        from fuseline.lab.training.prepare import prepare
        from fuseline.progress import voice
        from fuseline.recipe import parse_recipe

        frame = self._frame(X, fitting=True)
        check_consistent_length(frame.to_dicts() if frame.height < 1 else np.empty(frame.height), y)
        if frame.height < 2:
            raise ValueError(f"n_samples={frame.height}: a model cannot be learned from 1 sample")
        columns = {f"y{i}": y[:, i] for i in range(y.shape[1])} if y.ndim == 2 else {TARGET: y}
        whole = frame.with_columns(**{k: pl.Series(list(v.tolist())) for k, v in columns.items()})
        table = Table.open(whole)
        numeric = not (hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"))
        if self.inputs is not None:
            inputs: dict[str, Any] = self.inputs
        elif numeric:
            inputs = {"tabular": {"modality": "tabular", "columns": dict.fromkeys(frame.columns, "number")}}
        else:
            drafted = draft_recipe("", infer(table, next(iter(columns))), next(iter(columns)))
            inputs = yaml.safe_load(drafted)["inputs"]
        task = self._task()
        task |= {"targets": list(columns)} if y.ndim == 2 else {"target": TARGET}
        rows = frame.height
        val = self.val if rows * self.val >= 2 and rows >= 20 else 0.0
        recipe = parse_recipe(
            {
                "inputs": inputs,
                "task": task,
                "fusion": {"kind": self.fusion, "width": self.width},
                "split": {"kind": "random", "val": val, "test": 0.0, "seed": self.random_state},
                "training": {
                    "epochs": self.epochs,
                    "batch_size": self.batch_size,
                    "learning_rate": self.learning_rate,
                    "patience": self.patience,
                    "seed": self.random_state,
                    "loggers": [],
                    "precision": "float32",
                    "cache_mb": self.cache_mb,
                },
                "table": {"media_root": self.media_root},
            }
        )
        speak = voice("auto" if self.verbose else "quiet")
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(recipe, table, folder=Path(folder), voice=speak, cache=Cache(self.cache_mb))
            model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
            loop.keep_frozen(prepared, model, speak)
            trained = loop.fit(prepared, model, Path(folder), speak, resume=False, precision="float32")
        self.recipe_ = recipe
        self.model_ = model.eval()
        self.parser_ = prepared.parser
        self.task_ = prepared.task
        self.n_iter_ = len(trained.history)
        self.profile_ = prepared.profile

    def _outputs(self, X: Any, batch: int = 64) -> dict[str, np.ndarray]:
        from fuseline.lab.export.package import expected_outputs
        from fuseline.modalities import MediaRoot

        check_is_fitted(self, "model_")
        rows = self._frame(X, fitting=False).to_dicts()
        media = MediaRoot(self.media_root)
        values = []
        for i, row in enumerate(rows):
            parsed = self.parser_.parse(row, media, i)
            if parsed.error is not None:
                raise parsed.error
            values.append(parsed.values)
        return expected_outputs(self.model_, self.parser_, values, batch)

    def save(self, path: str | Path, rows: Any = None) -> Path:
        """Write the fitted model as a package NAME.fuse/, verified without torch.

        Args:
            path: the package's folder.
            rows: a few rows of X to verify it with; None verifies on rows without any value.
        """
        from fuseline.lab.export import export_package
        from fuseline.modalities import MediaRoot

        check_is_fitted(self, "model_")
        cells = [] if rows is None else self._frame(rows, fitting=False).to_dicts()
        parsed = [self.parser_.parse(row, MediaRoot(self.media_root)).values for row in cells]
        run = {
            "inputs": [
                {"name": n, "modality": m.name, "columns": list(m.columns), "encoder": "see recipe.yaml", "tune": ""}
                for n, m in self.parser_.modalities.items()
            ]
        }
        export_package(
            self.model_,
            recipe=self.recipe_,
            parser=self.parser_,
            task=self.task_,
            rows=parsed,
            target=Path(path),
            name=Path(path).stem,
            run=run,
            metrics={"task": self.task_.name, "metric": self.task_.metric, "parts": {}, "degradation": []},
            profile=self.profile_,
        )
        return Path(path)


class FusionClassifier(ClassifierMixin, _Fusion):
    """Classify rows of any modalities. See the module's text for what X may be.

    Args:
        inputs: the recipe's `inputs` section; None infers each column.
        fusion: kind of fusion.
        width: D of the model.
        epochs: passes over the training rows at most.
        batch_size: rows a step.
        learning_rate: of AdamW.
        val: share of rows held out for early stopping (none below 20 rows).
        patience: epochs without a better validation metric before stopping.
        media_root: folder that file cells are relative to.
        cache_mb: memory for decoded cells.
        random_state: fixes everything.
        verbose: show progress.
    """

    def _task(self) -> dict[str, Any]:
        return {"kind": "classification"}

    def fit(self, X: Any, y: Any) -> FusionClassifier:
        """Train on rows X and labels y (n,). Raises ValueError or FuselineError on what cannot be learned from."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            import warnings

            from sklearn.exceptions import DataConversionWarning

            warnings.warn("A column-vector y was passed when a 1d array was expected", DataConversionWarning, stacklevel=2)
            labels = labels.ravel()
        if labels.dtype.kind == "f":
            check_array(labels.reshape(-1, 1), ensure_min_samples=0, input_name="y")
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("Classifier can't train when only one class is present.")
        self._fit(X, np.array([f"c{c:06d}" for c in codes], dtype=object))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes), columns as `classes_`. A class that fell wholly into validation has probability 0."""
        check_is_fitted(self, "model_")
        decoded = self.task_.decode(self._outputs(X))
        names = [f"c{i:06d}" for i in range(len(self.classes_))]
        return np.array([[(d.probabilities or {}).get(n, 0.0) for n in names] for d in decoded], dtype=np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class FusionRegressor(RegressorMixin, _Fusion):
    """Predict one or several numbers from rows of any modalities. Arguments as FusionClassifier."""

    def _task(self) -> dict[str, Any]:
        return {"kind": "regression"}

    def fit(self, X: Any, y: Any) -> FusionRegressor:
        """Train on rows X and numbers y (n,) or (n, targets)."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        numbers = check_array(np.asarray(y), ensure_2d=False, dtype=np.float64, ensure_min_samples=0, input_name="y")
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            import warnings

            from sklearn.exceptions import DataConversionWarning

            warnings.warn("A column-vector y was passed when a 1d array was expected", DataConversionWarning, stacklevel=2)
            numbers = numbers.ravel()
        self._fit(X, numbers)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) or (n, targets), as y was."""
        check_is_fitted(self, "model_")
        out = self._outputs(X)["prediction"].astype(np.float64)
        return out[:, 0] if out.shape[1] == 1 else out
