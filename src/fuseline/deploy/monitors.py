"""Where the Prometheus operator runs: one of these tells it what to scrape."""

from __future__ import annotations

from typing import Any

from fuseline.deploy.plan import Plan
from fuseline.deploy.yamlfile import to_yaml

_OPERATOR = "Your Prometheus may select monitors by a label (often `release: ...`): add it here then."


def _endpoint(plan: Plan) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "5s"}
    if plan.keys:  # a server with keys asks everyone for one, except the probes
        endpoint["authorization"] = {"type": "Bearer", "credentials": {"name": f"{plan.name}-scrape", "key": "key"}}
    return endpoint


def _comments(plan: Plan) -> tuple[str, ...]:
    asked = f"The Secret {plan.name}-scrape holds the key that Prometheus sends: README.md says how to make it."
    return (_OPERATOR, asked) if plan.keys else (_OPERATOR,)


def service_monitor(plan: Plan) -> str:
    data = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": plan.head(),
        "spec": {"selector": {"matchLabels": plan.selector}, "endpoints": [_endpoint(plan)]},
    }
    return to_yaml(data, "Every pod behind the Service is scraped, while it is ready or not.", *_comments(plan))


def pod_monitor(plan: Plan) -> str:
    data = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": plan.head(),
        "spec": {"selector": {"matchLabels": plan.selector}, "podMetricsEndpoints": [_endpoint(plan)]},
    }
    return to_yaml(
        data, "Instead of servicemonitor.yaml, where there is no Service (KServe makes its own).", *_comments(plan)
    )
