"""The six facts of what a run made (model, parameters, hardware, training time, country, year), in the form in which any published model is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hagane.errors import RunError
from hagane.folder import open_environment, read_json
from hagane.model.config import ExpertsConfig, ModelConfig
from hagane.plan.claim import Claim, Hardware
from hagane.recipe.types import Machine
from hagane.report.against import how_known, trained_flops
from hagane.report.record import dig, number, read_record


def claim_of_run(folder: Path, country: str | None = None) -> Claim:
    """The claim that a run's own facts make: its training stages only, on the measured rate of its machine. `country` wins over the recipe's.

    Raises RunError where nothing was trained yet.
    """
    environment = open_environment(folder)
    record = read_record(folder)
    plan = record.facts("plan")
    trained = [stage.facts for stage in record.training if number(stage.facts.get("tokens"))]
    if not plan or not trained or record.stage("pretrain").state != "done":
        raise RunError(f"{folder}: stage pretrain is not done yet, so there is no model to describe. `hagane resume {folder}` goes on.")
    config = ModelConfig.model_validate(plan["model"])
    seconds, tokens = _sum(trained, "seconds"), _sum(trained, "tokens")
    routed = [layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]
    machine = environment.machine
    hardware = Hardware(
        accelerator=machine.hardware, count=1, peak_flops=machine.matmul_flops, memory_bytes=machine.memory_bytes, watts=machine.power_watts,
    )  # fmt: skip
    return Claim(
        name=str(record.recipe.get("name") or record.name), source=(f"facts of the run folder {record.name}, hagane {environment.hagane}",),
        parameters=plan["num_parameters"], hardware=(hardware,), days=seconds / 86400,
        country=country or dig(record.recipe, "release", "country") or None, year=_year(folder), note=_note(machine, trained),
        architecture="moe" if routed else "dense", active_parameters=plan["num_active_parameters"] if routed else None,
        experts=routed[0].num_experts if routed else None, top_k=routed[0].top_k if routed else None, context=plan["context"], tokens=tokens,
        flops=trained_flops(record), utilisation=_utilisation(trained), energy_mwh=_sum(trained, "joules") / 3.6e9 or None,
    )  # fmt: skip


def _sum(stages: list[dict[str, Any]], name: str) -> float:
    return sum(number(stage.get(name)) or 0.0 for stage in stages)


def _utilisation(stages: list[dict[str, Any]]) -> float | None:
    """Mean over the training stages by their seconds; None where none measured it."""
    known = [(number(stage.get("mean_utilisation")), number(stage.get("seconds")) or 0.0) for stage in stages]
    weight = sum(seconds for share, seconds in known if share)
    return sum(share * seconds for share, seconds in known if share) / weight if weight else None


def _note(machine: Machine, trained: list[dict[str, Any]]) -> str:
    """Whether the energy was counted or modelled, as every stage tells of its own, and what the peak rate is."""
    modelled = f"{machine.power_watts:g} W ({machine.power_source})"
    energy = {
        "counted": "energy counted by the machine",
        "part counted": f"energy part counted by the machine, the rest modelled: {modelled}",
        "modelled": f"energy modelled, not counted: {modelled}",
    }[how_known([stage.get("counted") for stage in trained])]
    return f"{energy}; the peak is the matrix rate measured on this machine; training stages only"


def _year(folder: Path) -> int | None:
    """When the last finished training stage ended."""
    for name in ("tune", "extend", "midtrain", "pretrain"):
        if (folder / name / "facts.json").exists():
            finished = str(read_json(folder / name / "facts.json").get("finished", ""))
            if finished[:4].isdigit():
                return int(finished[:4])
    return None
