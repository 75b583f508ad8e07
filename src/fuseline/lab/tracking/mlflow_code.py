"""The code that MLflow stores beside a package and runs to load it. Imports no torch.

No folder of files may be named in a request: cells of pictures and sounds are bytes or base64.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd


class FusedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Rows of a data frame in, answers out: `value`, `used`, `absent`, and what the task adds."""

    def load_context(self, context: Any) -> None:
        from fuseline.runtime import load

        self.predictor = load(context.artifacts["package"])

    # MLflow takes annotations here for a signature of its own.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        rows = pd.DataFrame(model_input).to_dict("records")
        return pd.DataFrame([answer.to_dict() for answer in self.predictor.predict(rows)])


mlflow.models.set_model(FusedModel())
