"""Why a model answered as it did. numpy only: it runs where a model is served."""

from fuseline.explain.curves import Curve, deletion, insertion
from fuseline.explain.explainer import Options, explain_rows, plan_row
from fuseline.explain.schema import Explanation, Explanations

__all__ = ["Curve", "Explanation", "Explanations", "Options", "deletion", "explain_rows", "insertion", "plan_row"]
