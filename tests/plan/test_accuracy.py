"""How far published speeds are met is only said of devices of which some were published."""

import tomllib
from pathlib import Path

import pytest

from hagane.plan.cluster import plan_on
from hagane.plan.cluster_page import ACCURACY, COMPARED
from hagane.plan.machines import accelerators, cluster
from hagane.recipe.load import load_recipe

ROWS = Path(__file__).parents[2] / "benchmarks" / "published_throughput.toml"


def test_the_devices_that_were_compared_are_those_of_the_published_rows():
    systems = tomllib.loads(ROWS.read_text(encoding="utf-8"))["system"]
    machines = {{**system, **row}["machine"] for system in systems for row in system["rows"]}
    assert {cluster(machine).accelerator.name for machine in machines} == COMPARED < set(accelerators())


@pytest.mark.parametrize("machine", ["8xMI300X", "8xMI250X", "8xRTX-4090", "8xRTX-5090", "4xEPYC-9755", "4xM3-Ultra"])
def test_where_no_run_was_published_nothing_is_said_of_how_far_speeds_are_off(machine):
    lines = plan_on(load_recipe("nordic", ["budget=2d"])[0], machine)[0]
    name = cluster(machine).accelerator.name
    assert ACCURACY not in lines and sum(f"No published run on {name} was compared" in line for line in lines) == 1
    assert not any("12 %" in line or "16 %" in line for line in lines)


def test_where_some_were_it_is():
    assert ACCURACY in plan_on(load_recipe("nordic", ["budget=2d"])[0], "8xH100")[0]
