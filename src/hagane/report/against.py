"""Plan against outcome: every number that a plan promised beside what came, with its error; for the table of the report and for plan.json."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.plan.cost import phases_flops
from hagane.plan.facts import PlanFacts
from hagane.recipe.types import Budget
from hagane.report import text
from hagane.report.quality import mean_bits
from hagane.report.record import Record, Stage, dig, number, table

BITS = "Bits per byte"
Known = Literal["counted", "part counted", "modelled"]  # joules: by a counter of the machine, or as seconds x watts of its profile


@dataclass(frozen=True)
class Compared:
    """One number as planned and as it came, None where it is not known; `key` names it in plan.json, `show` writes it for people.

    Not `judged` is what came of another row: it has no error of its own.
    """

    key: str
    name: str
    planned: float | None
    came: float | None
    show: Callable[[Any], str]
    judged: bool = True

    @property
    def relative(self) -> float | None:
        """What came over what was planned, less one."""
        return self.came / self.planned - 1 if self.came is not None and self.planned and self.judged else None

    @property
    def error(self) -> str:
        return "" if self.relative is None else f"{100 * self.relative:+.1f} %"


def compared(record: Record) -> list[Compared]:
    """All numbers that the plan of a run promised. Tokens and FLOPs are those it expected; the promised tokens are what a late run reads, too."""
    plan = record.facts("plan")
    predicted, trained = table(plan.get("predicted")), _sum(record, "tokens", "tokens")
    seconds, price = number(predicted.get("seconds")), number(dig(record.recipe, "execution", "price_per_hour"))
    promised, expected = number(plan.get("tokens")), number(plan.get("expected_tokens", plan.get("tokens")))
    more = expected / promised if expected and promised else 1.0  # a run that finds time left over trains on more
    flops = number(plan.get("flops"))
    joules, how = energy_of(record)
    peak = max((reached(stage, "peak_memory_bytes", "memory_bytes") or 0.0 for stage in record.training), default=0.0) or None
    mean = mean_bits(record)
    found = [
        Compared("seconds", "Time", seconds, record.seconds, text.seconds),
        Compared("tokens", "Training tokens", expected, trained, text.scaled),
        Compared("promised_tokens", "Promised tokens", promised, trained, text.scaled),
        Compared("flops", "Training FLOPs", flops and flops * more, trained_flops(record), lambda value: text.flops(value).removesuffix(" FLOPs")),
        Compared("tokens_per_second", "Training tokens a second", _planned_speed(plan, expected), _speed(record, trained), text.scaled),
        Compared("bits_per_byte", BITS, number(predicted.get("bits_per_byte")), mean[0] if mean else None, lambda value: text.fixed(value, 2)),
        # modelled joules are seconds x watts as the planned ones are: their error would be that of the time
        Compared("joules", f"Energy ({how})", number(predicted.get("joules")), joules, text.energy, judged=how != "modelled"),
        Compared("memory_bytes", "Peak memory", number(predicted.get("peak_memory_bytes")), peak, text.size),
    ]
    budget = budget_of(record)
    if budget is not None and budget.kind == "time":
        found.insert(0, Compared("budget_seconds", "Budget", budget.amount, record.seconds, text.seconds))
    if price is not None:
        planned, came = ((None if hours is None else hours / 3600 * price) for hours in (seconds, record.seconds))
        found.append(Compared("usd", "Cost", planned, came, text.dollars))
        if budget is not None and budget.kind == "money":
            found.insert(0, Compared("budget_usd", "Budget", budget.amount, came, text.dollars))
    return found


def _sum(record: Record, fact: str, metric: str) -> float | None:
    return sum(reached(stage, fact, metric) or 0.0 for stage in record.training) or None


def _planned_speed(plan: dict[str, Any], expected: float | None) -> float | None:
    """Tokens a second over the training stages, compiling among it."""
    seconds = sum(number(dig(stage, "seconds")) or 0.0 for stage in table(plan.get("stages")).values() if number(dig(stage, "tokens")))
    return expected / seconds if expected and seconds > 0 else None


def _speed(record: Record, trained: float | None) -> float | None:
    seconds = sum(stage.seconds or 0.0 for stage in record.training)
    return trained / seconds if trained and seconds > 0 else None


def trained_flops(record: Record) -> float | None:
    """FLOPs of what was trained, as the plan counts its own phases; None for a plan of another version."""
    try:
        plan = PlanFacts.model_validate(record.facts("plan"))
    except ValidationError:
        return None
    return sum(phases_flops(plan.model, plan.phases.get(stage.name, ()), reached(stage, "tokens", "tokens") or 0.0) for stage in record.training) or None


def how_known(counted: Collection[object]) -> Known:
    """What may be said of a sum of joules, from whether a counter counted each of its parts."""
    return "counted" if counted and all(counted) else "part counted" if any(counted) else "modelled"


def energy_of(record: Record) -> tuple[float | None, Known]:
    """Joules of the run so far: of its clock, which counts everything, or where that had no counter all the time the sum of its stages."""
    if record.joules is not None:
        return record.joules, "counted"
    spent = [(stage, joules) for stage in record.stages if (joules := stage_joules(record, stage))]
    return sum(joules for _, joules in spent) or None, how_known([stage.facts.get("counted") for stage, _ in spent])


def stage_joules(record: Record, stage: Stage) -> float | None:
    """Joules of a stage: its own, which `counted` in its facts tells about, else seconds x watts of the machine's profile."""
    told = number(stage.facts.get("joules"))
    watts = number(machine_of(record).get("power_watts"))
    return told or (stage.seconds * watts if stage.seconds is not None and watts is not None else None)


def reached(stage: Stage, fact: str, metric: str) -> float | None:
    """A fact of a training stage, or before there are facts the last value of a metric."""
    told = number(stage.facts.get(fact))
    return latest(stage, metric) if told is None else told


def latest(stage: Stage, name: str) -> float | None:
    """The last value of a metric of a training stage."""
    return next((number(line.get(name)) for line in reversed(stage.metrics) if number(line.get(name)) is not None), None)


def machine_of(record: Record) -> dict[str, Any]:
    """The profile of the machine that the plan was made for."""
    return table(record.facts("plan").get("machine")) or table(record.environment.get("machine"))


def budget_of(record: Record) -> Budget | None:
    """The budget of the plan, or of the recipe before there is one; None where neither has any."""
    try:
        return Budget.parse(str(record.facts("plan").get("budget") or record.recipe.get("budget") or ""))
    except RecipeError:
        return None
