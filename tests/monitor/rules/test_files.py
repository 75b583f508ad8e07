"""What `fuseline monitor init` writes: Prometheus's own programs accept it, and its unit tests can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from fuseline.cli import monitor
from fuseline.errors import FuselineError
from fuseline.monitor.rules import ALERTS, Options, read, texts, write
from fuseline.monitor.rules.options import UNSET, duration
from fuseline.monitor.rules.proofs import proofs
from fuseline.monitor.rules.rates import CALLERS, FAULTS


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(monitor.sub_app, [str(w) for w in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "monitoring"
    assert call("init", "-o", out, "--target", "a.example:8080", "--target", "[::1]:9090").exit_code == 0
    return out


def test_prometheus_accepts_the_configuration(folder: Path, checked: Callable[..., str]) -> None:
    said = checked(folder, "promtool", "check", "config", "prometheus.yml")
    assert "2 rule files found" in said
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["a.example:8080", "[::1]:9090"]


def test_alertmanager_accepts_its_own(folder: Path, checked: Callable[..., str]) -> None:
    assert "2 receivers" in checked(folder, "amtool", "check-config", "alertmanager.yml")


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [("severity=critical", "critical"), ("severity=warning", "warning"), ("severity=odd", "warning")],
)
def test_severity_chooses_who_hears(labels: str, receiver: str, folder: Path, checked: Callable[..., str]) -> None:
    said = checked(folder, "amtool", "config", "routes", "test", "--config.file=alertmanager.yml", labels)
    assert said.split() == [receiver]


@pytest.mark.parametrize("options", [Options(), Options(slo=99.9, objective_ms=250, time_scale=0.5)])
def test_every_alert_fires_and_stays_silent_in_promtool(
    options: Options, tmp_path: Path, checked: Callable[..., str]
) -> None:
    write(tmp_path, options)
    tested = yaml.safe_load((tmp_path / "tests/alerts_test.yml").read_text())["tests"]
    assert [t["name"] for t in tested] == [a.name for a in ALERTS] == [*proofs(options)]
    for test in tested:
        assert len(test["alert_rule_test"][-1]["exp_alerts"]) == 1
    assert "SUCCESS" in checked(tmp_path, "promtool", "test", "rules", "tests/alerts_test.yml")


def test_every_unit_test_can_fail(tmp_path: Path, checked: Callable[..., str]) -> None:
    """Rules with half the thresholds and no `for`: each alert's test notices."""
    write(tmp_path, Options())
    rules = yaml.safe_load((tmp_path / "rules/alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = re.sub(r"> ([\d.]+)", r"> 0.5 * \1", rule["expr"]).replace("== 0", "<= 1")
        rule.pop("for", None)
    (tmp_path / "rules/alerts.yml").write_text(yaml.safe_dump(rules))
    with pytest.raises(AssertionError) as failure:
        checked(tmp_path, "promtool", "test", "rules", "tests/alerts_test.yml")
    for alert in ALERTS:
        assert f"name: {alert.name}," in str(failure.value), alert.name


def test_a_silent_series_is_close_to_a_firing_one() -> None:
    """Silence would prove nothing if the series were of another metric."""
    for name, proof in proofs(Options()).items():
        fires = {s.split("{")[0] for s in proof.fires}
        assert proof.silent, name
        for why, silent in proof.silent.items():
            assert {s.split("{")[0] for s in silent} == fires, (name, why)


def test_an_unset_webhook_is_plain_to_see_and_a_set_one_is_used(folder: Path, tmp_path: Path) -> None:
    unset = (folder / "alertmanager.yml").read_text()
    assert unset.count(f"{UNSET} # <- SET ME") == 2
    assert "SET ME" in unset.splitlines()[1]
    assert "Set this first" in (folder / "README.md").read_text()
    said = call("init", "-o", tmp_path, "--webhook", "https://hooks.example/T0?x=1")
    assert said.exit_code == 0
    assert "reach nobody" not in said.output
    config = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())
    assert [r["webhook_configs"][0]["url"] for r in config["receivers"]] == ["https://hooks.example/T0?x=1"] * 2
    assert all("SET ME" not in p.read_text() for p in tmp_path.rglob("*") if p.is_file())


def test_what_somebody_changed_is_kept(tmp_path: Path) -> None:
    write(tmp_path, Options())
    write(tmp_path, Options())  # the same again is no harm
    (tmp_path / "rules/alerts.yml").write_text("mine")
    said = call("init", "-o", tmp_path)
    assert said.exit_code == 2
    assert (tmp_path / "rules/alerts.yml").read_text() == "mine"
    with pytest.raises(FuselineError, match=r"rules/alerts\.yml"):
        write(tmp_path, Options())
    assert call("init", "-o", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "rules/alerts.yml").read_text() != "mine"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FuselineError) as told:
        write(tmp_path / "file" / "monitoring", Options())
    assert told.value.code == "cannot_write"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("targets", ("http://a:1",)),
        ("targets", ("a",)),
        ("targets", ("a:0",)),
        ("targets", ("a:70000",)),
        ("targets", ("a:1\nevil: yes",)),
        ("targets", ("{{ x }}:1",)),
        ("targets", ()),
        ("alertmanager", "a:1/path"),
        ("webhook", "file:///etc/passwd"),
        ("webhook", "https://"),
        ("webhook", "https://a b"),
        ("webhook", "https://a/\nx"),
        ("slo", 100),
        ("slo", 90),
        ("slo", float("nan")),
        ("objective_ms", 0),
        ("objective_ms", float("inf")),
    ],
)
def test_hostile_options_are_errors_that_name_the_option(option: str, value: Any) -> None:
    with pytest.raises(FuselineError) as told:
        texts(read({option: value}))
    assert told.value.code == "bad_options"
    assert f"--{option.replace('_', '-')}" in str(told.value)


def test_an_objective_between_two_buckets_is_refused_with_the_choices() -> None:
    with pytest.raises(FuselineError, match="250, 500, 1000") as told:
        texts(Options(objective_ms=700))
    assert told.value.code == "bad_options"


def test_every_status_of_the_server_is_the_callers_or_its_own() -> None:
    from fuseline.serve.status import STATUS

    assert set(STATUS) == {*CALLERS, *FAULTS}


def test_the_highest_burn_is_possible_at_the_lowest_objective() -> None:
    """A threshold above 100 % would be an alert that cannot fire."""
    assert 14.4 * Options(slo=95).budget < 1


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "90s"), (3600, "1h"), (259_200, "3d"), (0.25, "250ms"), (3, "3s"), (0.0001, "1ms")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
