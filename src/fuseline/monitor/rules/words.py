"""What people read: the alerts as a page, and the README of the folder."""

from __future__ import annotations

from textwrap import fill

from fuseline.monitor.rules.options import Options, duration
from fuseline.monitor.rules.table import ALERTS, Alert, render


def _plain(text: str, alert: Alert) -> str:
    names = ("model", "input", "column", "feature", "instance")
    return render(text, {name: f"`{name}`" for name in names}, "N %" if "humanizePercentage" in text else "N")


def alerts_page(options: Options) -> str:
    """Every alert: what it says, when, and what to do. Markdown."""
    parts = []
    for alert in ALERTS:
        wait = f", for {duration(alert.hold)}" if alert.hold else ""
        parts.append(
            f"### {alert.name}\n\n"
            f"{alert.severity} · {_plain(alert.summary, alert)}.\n\n"
            f"{_plain(alert.description, alert)}\n\n"
            f"{fill(f'**What to do.** {alert.todo}', 118, break_long_words=False, break_on_hyphens=False)}\n\n"
            f"Fires when{wait}:\n\n```promql\n{alert.condition.promql(options)}\n```\n"
        )
    return "\n".join(parts)


_UNSET = """**Set this first:** alerts reach nobody until `url` in `alertmanager.yml` is yours, or you write the folder
again with `--webhook URL --force`. Alertmanager also speaks e-mail, Slack, PagerDuty and others; see its manual.

"""


def readme(options: Options) -> str:
    unset = "" if options.webhook else _UNSET
    return f"""# Watching Fuseline

Written by `fuseline monitor init`. Objective: {options.slo:g} % of the requests answered, and within
{options.objective_ms:g} ms. Servers: {", ".join(options.targets)}.

{unset}| file | for |
|---|---|
| `prometheus.yml` | what to scrape, which rules to run, which Alertmanager to tell |
| `rules/recording.yml`, `rules/alerts.yml` | error and latency ratios by window; the alerts |
| `tests/alerts_test.yml` | unit tests: each alert fires, and stays silent close by |
| `alertmanager.yml` | who hears of what, and what silences what |
| `grafana/fuseline.json` | the dashboard |

## Start

In this folder, with Prometheus 2.42 and Alertmanager 0.25 or newer (Debian's name is `prometheus-alertmanager`):

```sh
promtool check config prometheus.yml
promtool test rules tests/alerts_test.yml
amtool check-config alertmanager.yml
alertmanager --config.file=alertmanager.yml --storage.path=data/alertmanager --web.listen-address=127.0.0.1:9093 \\
  --cluster.listen-address= &
prometheus --config.file=prometheus.yml --storage.tsdb.path=data/prometheus --web.listen-address=127.0.0.1:9090
```

Then http://127.0.0.1:9090/alerts. In Grafana: Dashboards, New, Import, `grafana/fuseline.json`, choose the Prometheus.
In Kubernetes, mount the rules into the Prometheus you have; the job's name must be `fuseline` for FuselineInstanceDown.

## The alerts

| alert | severity | says |
|---|---|---|
{_rows()}
Each carries its own `runbook` text. Thresholds are in `rules/alerts.yml`, yours to change; then run promtool's tests.
"""


def _rows() -> str:
    return "".join(f"| {a.name} | {a.severity} | {_plain(a.summary, a)} |\n" for a in ALERTS)
