"""A made clinic whose best possible accuracy is known. Every patient, illness and file in it is invented."""

from fuseline.demo.generator import generate
from fuseline.demo.truth import Best, DemoTruth, load_truth

__all__ = ["Best", "DemoTruth", "generate", "load_truth"]
