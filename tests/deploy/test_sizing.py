"""The numbers follow what was measured and what is set, and say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deploy.packages import MEASURED

from fuseline.deploy import Plan
from fuseline.deploy.sizing import size
from fuseline.serve.settings import Settings


def test_memory_is_the_sum_that_its_comment_says() -> None:
    # front 80 + bodies 4 x 32; worker 80 + 2 x 100 + 60: 548 MiB, x 1.25 = 685, up to 768
    sizing = size(MEASURED, Settings())
    assert sizing.memory_mib == 768
    assert "= 548 MiB" in sizing.why["memory_mib"]
    assert size(MEASURED, Settings(workers=2)).memory_mib == 1152  # 888 x 1.25 = 1110


def test_a_slow_start_is_waited_for() -> None:
    assert size(MEASURED, Settings()).startup_failures == 30
    assert size(replace(MEASURED, load_seconds=12.34), Settings()).startup_failures == 124


def test_the_queue_target_is_half_of_the_objective_at_the_measured_rate() -> None:
    assert size(MEASURED, Settings()).waiting_target == 40  # 80 rows/s x 0.5 s
    assert size(MEASURED, Settings(objective_ms=100)).waiting_target == 4
    assert size(MEASURED, Settings(queue_rows=50)).waiting_target == 25, "never above half of the queue"
    assert size(replace(MEASURED, batch_seconds=1e3), Settings()).waiting_target == 1


def test_what_will_not_do_is_said(planned: Callable[..., Plan]) -> None:
    assert planned().notes == ()
    assert any("below what was worked out, 768Mi" in n for n in planned(memory="512Mi").notes)
    assert planned(memory="512Mi").memory_mib == 512
    assert any("wait for each other" in n for n in planned(settings=Settings(workers=4)).notes)
    assert any("so 1 will compute" in n for n in planned(cpu="1500m").notes)
    assert any("outage" in n for n in planned(replicas=1).notes)
    assert any("--batch lower" in n for n in planned(measured=replace(MEASURED, batch_seconds=0.9)).notes)
    assert any("quiet machine" in n for n in planned(measured=replace(MEASURED, busy=1.5)).notes)
