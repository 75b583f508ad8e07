"""Runs a package: rows in, answers out."""

from fuseline.runtime.predictor import Answer, Predictor, load

__all__ = ["Answer", "Predictor", "load"]
