"""How a model holds where inputs are noisy, absent, or pushed on purpose."""

from fuseline.lab.robustness.measure import robustness

__all__ = ["robustness"]
