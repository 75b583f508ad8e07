"""The files of a monitoring folder, as texts; and writing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fuseline.errors import FuselineError
from fuseline.monitor.rules import rates, words
from fuseline.monitor.rules.dashboard import dashboard
from fuseline.monitor.rules.options import HOUR, MINUTE, UNSET, Options
from fuseline.monitor.rules.proofs import unit_tests
from fuseline.monitor.rules.table import ALERTS, JOB
from fuseline.package.files import write_text


class _Dumper(yaml.SafeDumper):
    """Block style for texts of several lines, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(data: Any, head: str) -> str:
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    return comment + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True)


def prometheus(options: Options) -> dict[str, Any]:
    every = options.span(options.scrape_seconds)
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules/recording.yml", "rules/alerts.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [options.alertmanager]}]}]},
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": list(options.targets)}]}],
    }


def recording(options: Options) -> dict[str, Any]:
    return {"groups": [{"name": "fuseline-recording", "rules": rates.recording_rules(options)}]}


def alerting(options: Options) -> dict[str, Any]:
    rules = []
    for alert in ALERTS:
        rule: dict[str, Any] = {"alert": alert.name, "expr": alert.condition.promql(options)}
        if alert.hold:
            rule["for"] = options.span(alert.hold)
        rule["labels"] = {"severity": alert.severity, "area": alert.area}
        texts = {"summary": alert.summary, "description": alert.description, "runbook": alert.todo}
        rules.append(rule | {"annotations": texts})
    return {"groups": [{"name": "fuseline-alerts", "rules": rules}]}


def alertmanager(options: Options) -> dict[str, Any]:
    """Critical alerts go out at once and come again each hour, warnings are gathered and come again twice a day."""
    hook = {"url": options.webhook or UNSET, "send_resolved": True}
    return {
        "route": {
            "receiver": "warning",
            "group_by": ["alertname", "model", "instance"],
            "group_wait": options.span(MINUTE),
            "group_interval": options.span(5 * MINUTE),
            "repeat_interval": options.span(12 * HOUR),
            "routes": [
                {
                    "receiver": "critical",
                    "matchers": ['severity="critical"'],
                    "group_wait": options.span(10),
                    "repeat_interval": options.span(HOUR),
                }
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="critical"', 'area=~"errors|latency"'],
                "target_matchers": ['severity="warning"'],
                "equal": ["model", "area"],
            },
            {
                "source_matchers": ['alertname="FuselineInstanceDown"'],
                "target_matchers": ['alertname!="FuselineInstanceDown"', 'instance!=""'],
                "equal": ["instance"],
            },
        ],
        "receivers": [{"name": name, "webhook_configs": [hook]} for name in ("critical", "warning")],
    }


def texts(options: Options) -> dict[str, str]:
    """Path in the folder -> text. Raises FuselineError ``bad_options`` for an objective between two buckets."""
    if options.objective not in rates.BUCKETS:
        known = ", ".join(f"{b * 1000:g}" for b in rates.BUCKETS)
        raise FuselineError(
            "bad_options",
            f"--objective-ms {options.objective_ms:g}: no bucket of fuseline_request_seconds ends there",
            f"choose one of {known}",
        )
    made = "Written by `fuseline monitor init`.\n"
    manager = to_yaml(
        alertmanager(options),
        made + ("" if options.webhook else "SET ME: both `url` below; until then alerts reach nobody."),
    )
    return {
        "prometheus.yml": to_yaml(prometheus(options), made + "Add your servers under targets."),
        "rules/recording.yml": to_yaml(recording(options), made + "Error and latency ratios of every window."),
        "rules/alerts.yml": to_yaml(alerting(options), made + "docs/monitoring.md of Fuseline explains each."),
        "tests/alerts_test.yml": to_yaml(unit_tests(options), made + "Run: promtool test rules tests/alerts_test.yml"),
        "alertmanager.yml": manager.replace(f"url: {UNSET}\n", f"url: {UNSET} # <- SET ME\n"),
        "grafana/fuseline.json": json.dumps(dashboard(options), indent=2) + "\n",
        "README.md": words.readme(options),
    }


def write(folder: Path, options: Options, *, force: bool = False) -> list[Path]:
    """Write the folder; returns what was written. A file that is there and reads otherwise is kept unless `force`.

    Raises FuselineError ``file_exists`` (nothing is written then), ``bad_options``, ``cannot_write``.
    """
    made = {folder / name: text for name, text in texts(options).items()}
    try:
        changed = [p for p, text in made.items() if p.exists() and p.read_bytes() != text.encode()]
        if changed and not force:
            names = ", ".join(str(p.relative_to(folder)) for p in changed)
            raise FuselineError(
                "file_exists", f"{folder} holds other versions of {names}", "write elsewhere with -o, or use --force"
            )
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
    except OSError as error:
        raise FuselineError("cannot_write", f"{folder}: {error.strerror or error}", "choose a folder with -o") from None
    return list(made)
