"""Prometheus rules, an Alertmanager route and a Grafana dashboard, all made of one table of alerts."""

from fuseline.monitor.rules.files import texts, write
from fuseline.monitor.rules.options import Options, read
from fuseline.monitor.rules.table import ALERTS, Alert

__all__ = ["ALERTS", "Alert", "Options", "read", "texts", "write"]
