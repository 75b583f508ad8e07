"""From a trained model to a verified package."""

from fuseline.lab.export.package import export_package

__all__ = ["export_package"]
