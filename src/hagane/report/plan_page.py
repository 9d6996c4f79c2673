"""One self-contained page of what a budget would buy, before anything is spent: the facts that `hagane plan` prints, for those who decide."""

from __future__ import annotations

from typing import Any

from hagane.errors import RecipeError
from hagane.recipe.types import Budget
from hagane.report import text
from hagane.report.expected import curves, language_table
from hagane.report.record import number, rows, table
from hagane.report.tables import Section, Table, Tile
from hagane.report.templates import template

NAMES = {"flops": "computation", "joules": "energy", "usd": "cost", "seconds": "training time", "training_seconds": "training time", "memory_bytes": "memory"}


def plan_page(facts: dict[str, Any]) -> str:
    """The page as text; `facts` as `hagane plan` ends with, of this machine, of a cluster, or of a bare count of parameters."""
    sections = (_budgets(facts), _languages(facts), _training(facts), _layouts(facts), _reasons(facts))
    return template("plan.html.jinja").render(
        name=facts["recipe"],
        state="nothing spent yet",
        good=False,
        sentence=_sentence(facts),
        notes=[*_quality(facts), *map(str, facts.get("notes") or ())],
        tiles=_tiles(facts),
        sections=[section for section in sections if section is not None],
    )


def _sentence(facts: dict[str, Any]) -> str:
    count, active = facts["num_parameters"], facts["num_active_parameters"]
    model = f"a model of {text.in_words(count)} parameters" + (f", {text.in_words(active)} of them at work on each token" if active < count else "")
    if "tokens" not in facts:
        return f"The recipe publishes {model}. No budget was given."
    time = text.seconds(facts.get("seconds", facts.get("training_seconds")))
    cost = _dollars(facts)
    takes = [time, text.energy(facts["joules"]) if facts.get("joules") else "", f"about {text.dollars(cost)}" if cost is not None else ""]
    told = [part for part in takes if part]
    return (
        f"{_budget(facts)} on {facts['machine']} would train {model}, on {text.in_words(facts['tokens'])} tokens of text. "
        f"That takes {', '.join(told[:-1])}{' and ' if len(told) > 1 else ''}{told[-1]}."
    )


def _quality(facts: dict[str, Any]) -> list[str]:
    """The expected loss, and what such a number means."""
    if "bits_per_byte" not in facts:
        return []
    bits, low, high = (text.fixed(facts[name], 2) for name in ("bits_per_byte", "low", "high"))
    return [f"Expected of text it has never seen: {bits} bits per byte, in 80 of 100 cases between {low} and {high}{_people(facts)}. {text.ANCHOR}"]


def _budget(facts: dict[str, Any]) -> str:
    """What was given, as people say it."""
    try:
        return text.spent(Budget.parse(str(facts.get("budget") or "")))
    except RecipeError:
        return text.spent(Budget(kind="tokens", amount=facts["tokens"]))


def _dollars(facts: dict[str, Any]) -> float | None:
    """What the run costs: as the plan says, or by its hours; None where the hour has no price."""
    told, price = number(facts.get("usd")), number(facts.get("price_per_hour"))
    seconds = number(facts.get("seconds", facts.get("training_seconds")))
    return told if told is not None else None if price is None or seconds is None else seconds / 3600 * price


def _people(facts: dict[str, Any]) -> str:
    """What is expected of text by people, where the mean has generated problems in it."""
    people = number(facts.get("people_bits_per_byte"))
    return "" if people is None else f"; {text.fixed(people, 2)} of text by people alone"


def _tiles(facts: dict[str, Any]) -> list[Tile]:
    tiles = [Tile("Parameters", text.scaled(facts["num_parameters"]), f"{text.scaled(facts['num_active_parameters'])} at work on a token")]
    if "tokens" not in facts:
        return tiles
    training, cost, price = number(facts.get("training_seconds")), _dollars(facts), number(facts.get("price_per_hour"))
    spread = f"80 % from {text.fixed(facts['low'], 2)} to {text.fixed(facts['high'], 2)}{_people(facts)}"
    tiles += [
        Tile("Training tokens", text.scaled(facts["tokens"])),
        Tile("Bits per byte", text.fixed(facts["bits_per_byte"], 2), spread),
    ]
    if "seconds" in facts and training is not None:
        tiles.append(Tile("Time", text.seconds(facts["seconds"]), f"{text.seconds(training)} of it training on text"))
    else:
        tiles.append(Tile("Training time", text.seconds(facts.get("seconds", training))))
    known = facts.get("energy_source", "modelled, not counted") if facts.get("joules") else "no power is published"
    tiles.append(Tile("Energy", text.energy(facts.get("joules")), known))
    if cost is not None:
        tiles.append(Tile("Cost", text.dollars(cost), "" if price is None else f"at {price:,.2f} USD an hour"))
    if facts.get("serving_seconds"):
        tiles.append(Tile("Serving", text.seconds(facts["serving_seconds"]), f"{text.in_words(facts.get('serve_tokens'))} tokens"))
    layouts = rows(facts.get("layouts"))
    memory = layouts[0].get("memory_bytes") if layouts else facts.get("memory_bytes")
    return [*tiles, Tile("Memory", text.size(memory), "a device" if layouts else "at its peak")]


def _budgets(facts: dict[str, Any]) -> Section:
    pictures = tuple(curves(facts.get("curve"), number(facts.get("price_per_hour"))))
    intro = "More training makes a better model, every doubling of it a little less so."
    if not pictures:
        intro = "No budget was given, so there is no curve: give --budget."
    return Section("budgets", "What other budgets would buy", intro, pictures)


def _languages(facts: dict[str, Any]) -> Section | None:
    languages = table(facts.get("languages"))
    if not languages:
        return None
    intro = "Where the text of a language is read again and again, more of it helps most. Scripts differ in bytes per letter: bits per byte do not compare."
    return Section("languages", "What each language would get", intro, tables=(language_table(languages, {}),))


def _training(facts: dict[str, Any]) -> Section | None:
    """How it would be trained, and where the time goes; of what the plan says."""
    rate, repeats, hours = (number(facts.get(name)) for name in ("learning_rate", "repeats", "goodput"))
    steps, tokens, step = (number(facts.get(name)) for name in ("steps", "tokens", "tokens_per_step"))
    told = {
        "optimizer steps": text.whole(tokens / step if steps is None and tokens and step else steps), "tokens a step": text.whole(step),
        "learning rate": text.UNKNOWN if rate is None else f"{rate:.3g}", "computation": text.flops(facts.get("flops")),
        "text there is": text.size(facts.get("text_bytes")), "text that is read": text.size(facts.get("read_bytes")),
        "times it is read at most": text.UNKNOWN if repeats is None else f"{repeats:.1f}", "hours in which it trains": text.percent(hours, 0),
    }  # fmt: skip
    lines = tuple((name, value) for name, value in told.items() if value != text.UNKNOWN)
    stages = tuple((str(name), text.seconds(value)) for name, value in table(facts.get("stages")).items() if number(value) is not None)
    tables = [Table("In numbers", ("", "planned"), lines, frozenset({1}))] if lines else []
    tables += [Table("Where the time goes", ("stage", "planned"), stages, frozenset({1}))] if stages else []
    return Section("training", "How it would be trained", tables=tuple(tables)) if tables else None


def _layouts(facts: dict[str, Any]) -> Section | None:
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
    if not lines:
        return None
    shown = Table("The fastest layouts that fit", columns, tuple(lines), frozenset(range(1, 4)))
    return Section("layouts", "How the machine would share the work", "For those who run it: the first is the plan's own.", tables=(shown,))


def _reasons(facts: dict[str, Any]) -> Section | None:
    reasons = tuple((NAMES.get(str(name), str(name)), str(reason)) for name, reason in table(facts.get("reasons")).items())
    return Section("reasons", "Why these numbers", reasons=reasons) if reasons else None
