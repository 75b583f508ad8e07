"""From packages to a folder that builds an image and runs it on Kubernetes or KServe. Knows no torch."""

from fuseline.deploy.folder import manifests, write
from fuseline.deploy.measure import Measured, measure
from fuseline.deploy.plan import Options, Plan, make_plan

__all__ = ["Measured", "Options", "Plan", "make_plan", "manifests", "measure", "write"]
