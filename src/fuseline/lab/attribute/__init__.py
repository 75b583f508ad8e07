"""Attributions that need the model's gradients: torch, and a package with float weights."""

from fuseline.lab.attribute.rows import attribute_rows

__all__ = ["attribute_rows"]
