"""One self-contained page of what a budget would buy, before anything is spent: the facts that `hagane plan` prints, for a decision-maker."""

from __future__ import annotations

from typing import Any

from hagane.report import text
from hagane.report.expected import curves, language_table
from hagane.report.record import number, rows, table
from hagane.report.tables import Table, Tile
from hagane.report.templates import template


def plan_page(facts: dict[str, Any]) -> str:
    """The page as text; `facts` as `hagane plan` ends with, of this machine, of a cluster, or of a bare count of parameters."""
    languages = table(facts.get("languages"))
    tables = [_layouts(facts), language_table(languages, {}) if languages else None]
    return template("plan.html.jinja").render(
        name=facts["recipe"],
        sentence=_sentence(facts),
        tiles=_tiles(facts),
        pictures=curves(facts.get("curve"), number(facts.get("price_per_hour"))),
        tables=[one for one in tables if one is not None],
        reasons=list(table(facts.get("reasons")).items()),
    )


def _seconds(facts: dict[str, Any]) -> Any:
    return facts.get("seconds", facts.get("training_seconds"))


def _sentence(facts: dict[str, Any]) -> str:
    model = f"a model of {text.scaled(facts['num_parameters'])} parameters, {text.scaled(facts['num_active_parameters'])} of them active"
    if "tokens" not in facts:
        return f"The recipe publishes {model}. No budget was given."
    budget = facts.get("budget") or f"{text.scaled(facts['tokens'])} tokens"
    return (
        f"{budget} on {facts['machine']} would train {model}, on {text.scaled(facts['tokens'])} tokens in {text.seconds(_seconds(facts))}. Of unseen text "
        f"it would need about {text.fixed(facts['bits_per_byte'], 2)} bits a byte."
    )


def _tiles(facts: dict[str, Any]) -> list[Tile]:
    tiles = [Tile("parameters", text.scaled(facts["num_parameters"]), f"{text.scaled(facts['num_active_parameters'])} active")]
    if "tokens" not in facts:
        return tiles
    seconds, price = number(_seconds(facts)), number(facts.get("price_per_hour"))
    tiles += [
        Tile("training tokens", text.scaled(facts["tokens"])),
        Tile("bits per byte", text.fixed(facts["bits_per_byte"], 2), f"80 % from {text.fixed(facts['low'], 2)} to {text.fixed(facts['high'], 2)}"),
        Tile("training time", text.seconds(seconds)),
        Tile("energy", text.energy(facts.get("joules")), "modelled, not counted"),
    ]
    if seconds is not None and price is not None:
        tiles.append(Tile("cost of training", f"{text.scaled(seconds / 3600 * price)} USD", f"at {price:,.2f} USD an hour"))
    layouts = rows(facts.get("layouts"))
    memory = layouts[0].get("memory_bytes") if layouts else facts.get("memory_bytes")
    return [*tiles, Tile("memory", text.size(memory), "a device" if layouts else "at its peak")]


def _layouts(facts: dict[str, Any]) -> Table | None:
    """The fastest layouts, where the plan is one of a cluster."""
    lines = []
    for item in rows(facts.get("layouts")):
        lines.append(
            (
                str(item.get("description")), text.size(item.get("memory_bytes")), text.seconds(item.get("step_seconds")),
                text.percent(item.get("utilisation"), 0), str(item.get("bottleneck")),
            )
        )  # fmt: skip
    columns = ("layout", "memory a device", "a step", "of the bf16 peak", "bottleneck")
    return Table("The fastest layouts that fit", columns, tuple(lines), frozenset(range(1, 4))) if lines else None
