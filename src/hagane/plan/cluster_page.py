"""A plan on a cluster as people read it, and the same as facts for scripts."""

from __future__ import annotations

from typing import Any, NamedTuple

from hagane.corpus.language import UNDETERMINED
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.amounts import amount, dollars, energy, percent
from hagane.plan.choose import choose_learning_rate, embedding_ratio_rule, warmup_share
from hagane.plan.cluster_shape import ALIKE, Chosen, Job, Laid
from hagane.plan.contexts import curriculum
from hagane.plan.curve import curve_line
from hagane.plan.facts import CurvePoint, LanguagePlan, schedule_facts
from hagane.plan.languages import language_lines, mixture_reason, often_line, unused_line
from hagane.plan.law import Law
from hagane.plan.layout import Estimate
from hagane.plan.machines import Accelerator
from hagane.plan.serve import Served, served_lines
from hagane.plan.shapes import experts_of, parts_line, shape_facts, top_k_of
from hagane.plan.sketch import OVERRIDES, routing_reasons, size_reason
from hagane.plan.text import Supply
from hagane.plan.traffic import COLLECTIVES, step_bytes
from hagane.recipe.types import Budget, duration

# Figures of benchmarks/plan_throughput.py --full (docs/notebook.md, "Speeds of clusters").
ACCURACY = (
    "Speeds follow from datasheets and four fitted constants. Half of 179 published ones are within 12 % of that for the layout they were run with; for the "
    "layout chosen here it is 15 % more in the median than was published, half are within 16 %, and 64 are more than 30 % away (benchmarks/plan_throughput.py)."
)
# Devices of which published runs are among these, by their names in machines.toml (benchmarks/published_throughput.toml).
COMPARED = frozenset({"A100", "A100-40GB", "B200", "B300", "GB200", "GB300", "H100", "H200", "H800", "TPU-v3", "TPU-v4", "TPU-v5p", "TPU-v6e"})


def accuracy(device: Accelerator) -> str:
    """How far published speeds are met; of a device without any, that nothing was compared."""
    if device.name in COMPARED:
        return ACCURACY
    return (
        f"Speeds follow from datasheets and four fitted constants. No published run on {device.name} was compared with them, so how far these are off is not "
        "known (benchmarks/plan_throughput.py compares other devices)."
    )


class Page(NamedTuple):
    """A plan: what is trained where, the shape with its layouts, how it was chosen (None where the recipe gives it), and what to expect.

    `alone` is the shape that would be trained if nothing were to be served; `languages` are those of the text, where it is known;
    `notes` are sentences about what should make a reader hesitate.
    """

    job: Job
    law: Law
    supply: Supply
    laid: Laid
    chosen: Chosen | None
    curve: tuple[CurvePoint, ...]
    served: Served | None
    alone: ModelConfig
    languages: dict[str, LanguagePlan]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of training, hours without it among them."""
        return self.job.dial.seconds(self.laid.tokens, self.laid.tokens_per_second)

    @property
    def unused_seconds(self) -> float:
        """Of the budget, for want of text."""
        if not self.job.dial.hours_count:
            return 0.0
        left = self.job.dial.budget_seconds - self.seconds - (0.0 if self.served is None else self.served.serving_seconds)
        return left if left > 1e-6 * self.job.dial.budget_seconds else 0.0

    @property
    def training_budget(self) -> Budget:
        """The budget of time, energy or money without what serving takes of it."""
        budget = self.job.dial.budget
        return Budget(kind=budget.kind, amount=budget.amount * self.seconds / self.job.dial.budget_seconds)

    @property
    def read_bytes(self) -> float:
        """Of text, read in training."""
        return self.job.text_bytes(self.laid.config, self.laid.tokens)

    @property
    def repeats(self) -> float:
        """How often text is read that is read most often."""
        return self.supply.repeats(self.read_bytes)

    @property
    def mixture(self) -> str:
        """Why languages are read as they are."""
        return mixture_reason(self.job.recipe, [self.repeats])

    @property
    def flops(self) -> float:
        return self.laid.tokens * 3 * self.laid.work.forward_flops

    @property
    def expected(self) -> CurvePoint:
        return self.curve[len(self.curve) // 2]

    @property
    def steps(self) -> float:
        """Optimizer steps of all stages."""
        return self.laid.tokens / self.laid.found[0].tokens

    @property
    def learning_rate(self) -> tuple[float, str]:
        """The peak, and why."""
        return choose_learning_rate(self.job.recipe, self.laid.config, self.laid.tokens)

    @property
    def schedule(self) -> dict[str, Any]:
        """How pretraining goes, by the rules of a run."""
        recipe, rate = self.job.recipe, self.learning_rate[0]
        steps = self.steps * (1 - recipe.midtrain.share - recipe.tune.share - recipe.extend.share)
        warmup, ratio = max(1, round(steps * warmup_share(recipe))), embedding_ratio_rule(recipe, self.laid.config, rate)
        return schedule_facts(recipe.train, rate, ratio, warmup, round(steps * recipe.train.decay_share))

    def utilisation(self, found: Estimate) -> float:
        """Model FLOP utilisation: three forward passes with causal attention over the dense bf16 peak."""
        machine = self.job.machine
        return found.tokens_per_second * 3 * self.laid.work.forward_flops / (machine.accelerator.rate("bf16") * machine.count)

    def traffic_bytes(self, found: Estimate) -> dict[str, float]:
        """That one device sends in an optimizer step, by kind of traffic."""
        return step_bytes(self.laid.work, found.layout, self.job.machine, found.num_micro)


def page_lines(page: Page) -> list[str]:
    """The page for the terminal."""
    recipe, machine, laid, dial = page.job.recipe, page.job.machine, page.laid, page.job.dial
    config, best, device = laid.config, laid.found[0], machine.accelerator
    joules, spent, speed = dial.joules(page.seconds), dial.dollars(page.seconds), laid.tokens_per_second
    experts = f", {experts_of(config)} experts, top {top_k_of(config)}" * (experts_of(config) > 0)
    lines = [
        f"{recipe.name} on {machine}" + (f" with {recipe.budget}" if recipe.budget else ""),
        f"  model      width {config.width}, {config.num_layers} layers{experts}, {num_parameters(config):,} parameters, "
        f"{num_active_parameters(config):,} active, vocabulary {config.vocabulary_size:,}",
        f"             {parts_line(config)}",
        f"  training   {amount(laid.tokens)} tokens in rows of {page.job.context:,}, {page.steps:,.0f} steps of {amount(best.tokens)} tokens, "
        f"{page.flops:.3g} FLOPs",
        f"             {_schedule_line(page)}",
        *[f"             note: {note}" for note in page.notes],
        *[
            f"             {share:.0%} of pretraining on rows of {context:,} is counted like this, and may need another layout"
            for context, share in curriculum(recipe)
            if context != page.job.context
        ],
        f"  time       {duration(page.seconds)}, of which {dial.goodput:.0%} trains at {amount(speed)} tokens/s ({amount(speed / machine.count)} a device, "
        f"{page.utilisation(best):.0%} of the bf16 peak)",
        *(served_lines(page.served, dial.serve_tokens, page.alone, page.training_budget, "smallest") if page.served is not None else []),
        f"  text       {_text_line(page)}",
        "  energy     " + (f"{energy(joules)} (board power of {device.watts:g} W; hosts and cooling come on top)" if joules else "not known"),
        "  cost       " + (f"{dollars(spent)} ({_price(page)})" if spent else "not known"),
        f"  loss       {page.expected.bits_per_byte:.2f} bits per byte ({page.expected.low:.2f}-{page.expected.high:.2f})"
        + f", mean of {len(page.languages)} languages" * (len(page.languages) > 1)
        + "; of text by people, not of generated problems" * (len(page.supply.made) > 0),
        f"  mixture    {page.mixture}",
        *language_lines(_determined(page)),
        f"  layouts    of {amount(device.memory_bytes, 'B')} a device:",
    ]
    for number, item in enumerate(laid.found, 1):
        lines.append(
            f"    {number}. {item.layout}: {amount(item.memory.total, 'B')}, {brief(item.seconds)} a step, {page.utilisation(item):.0%}; "
            f"bottleneck: {item.parts.bottleneck}"
        )
    lines += [f"       {_traffic_line(page)}", accuracy(device)]
    return [*lines, "  budgets    " + curve_line(page.curve), "How the numbers follow:", *(f"  {name:<16} {text}" for name, text in reasons(page).items())]


def _traffic_line(page: Page) -> str:
    """What the links carry under the chosen layout."""
    sent = [f"{amount(num_bytes, 'B')} {COLLECTIVES[name]}" for name, num_bytes in page.traffic_bytes(page.laid.found[0]).items() if num_bytes]
    return f"a device sends in a step of the first: {', '.join(sent) or 'nothing'}"


def _schedule_line(page: Page) -> str:
    told = page.schedule
    optimizer = f"Muon ({told['muon_ratio']:g} times that rate) and AdamW" if told["optimizer"] == "muon" else "AdamW"
    decay = f", down over the last {told['decay_steps']:,} of pretraining" * (told["decay_steps"] > 0)
    return (
        f"learning rate {told['learning_rate']:.2g} after {told['warmup_steps']:,} steps of warm-up{decay}; {optimizer}, "
        f"weight decay {told['weight_decay']:g}, clipped at {told['clip']:g}"
    )


def _text_line(page: Page) -> str:
    """What is read of what there is; what to do where it is read too often."""
    read = f"{amount(page.read_bytes, 'B')} are read"
    if not page.languages:
        return f"{read} of the text that you give with --corpus, taken to be there; what is read more than four times teaches less each time"
    own, most = page.supply.read(page.read_bytes), page.job.recipe.corpus.max_repeats
    often = unused_line(page.unused_seconds, most) or often_line(page.repeats, most)
    made = f", {amount(page.read_bytes - own, 'B')} of them generated problems, the rest" * (own < 0.99 * page.read_bytes)
    return f"{read}{made} from {amount(page.supply.unique, 'B')} of text{often}"


def _determined(page: Page) -> dict[str, LanguagePlan]:
    """The languages that have a name."""
    return {language: item for language, item in page.languages.items() if language != UNDETERMINED}


def _price(page: Page) -> str:
    """Where the price of an hour comes from."""
    if page.job.recipe.execution.price_per_hour is not None:
        return f"{page.job.recipe.execution.price_per_hour:,.2f} USD an hour, as execution.price_per_hour says"
    return f"assumed {page.job.machine.accelerator.price_per_hour:g} USD per device and hour"


def brief(seconds: float) -> str:
    """A step: `4.68 s`, `12 ms`."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def reasons(page: Page) -> dict[str, str]:
    """How each number follows from the dial: a formula with its values, and the setting that overrides it where there is one."""
    dial, laid, machine, recipe = page.job.dial, page.laid, page.job.machine, page.job.recipe
    train = recipe.train
    device, budget, speed = machine.accelerator, dial.budget, f"{laid.tokens_per_second:,.0f} tokens/s"
    trained = f"x {dial.goodput:g} x {speed}" + f" - {dial.serve_tokens:g} served / 3" * (dial.serve_tokens > 0)
    seconds = f"{laid.tokens:.3g} tokens / ({dial.goodput:g} x {speed})"
    given = {
        "tokens": f"{laid.tokens:.3g}, as given",
        "flops": f"{budget.amount:.3g} FLOPs / (3 forward passes x {laid.work.forward_flops:.3g} FLOPs a token)",
        "time": f"{budget.amount:,.0f} s {trained}",
        "energy": f"{budget.amount:.3g} J / ({machine.count} x {device.watts or 0:g} W) {trained}",
        "money": f"{budget.amount:,.2f} USD / {dial.price or 0:,.2f} USD/h {trained}",
    }
    return {
        **_shape_reasons(page),
        "tokens": f"{given[budget.kind]}{unused_line(page.unused_seconds, recipe.corpus.max_repeats)}; train.tokens without a budget overrides it",
        "tokens_per_step": _batch_reason(page),
        "learning_rate": f"{page.learning_rate[1]}; {OVERRIDES['learning_rate']} overrides it",
        "schedule": f"of the steps of pretraining {percent(warmup_share(recipe))} warm up and the last {percent(train.decay_share)} decay; train.warmup_share, "
        "train.decay_share, train.optimizer, train.weight_decay, train.clip override it",
        "flops": f"{laid.tokens:.3g} tokens x 3 forward passes x {laid.work.forward_flops:.3g} FLOPs a token",
        "goodput": f"{dial.goodput:.0%} of the hours train; restarts, checkpoints, evaluation and waiting take the rest (Llama 3: over 90 %); "
        "execution.goodput overrides it",
        "seconds": seconds,
        "joules": "not known" if device.watts is None else f"{seconds} x {machine.count} x {device.watts:g} W; modelled, not counted",
        "usd": f"{'not known' if dial.price is None else f'{seconds} / 3,600 x {dial.price:,.2f} USD/h, {_price(page)}'}; "
        "execution.price_per_hour overrides it",
        "layout": f"the fastest of all divisions of {machine.count:,} devices that fit{f' with {page.job.asked}' * bool(page.job.asked.fields)}, by a roofline "
        "with four fitted constants; execution.layout overrides it, whole or in part",
        "bits_per_byte": page.law.source,
    }


def _batch_reason(page: Page) -> str:
    train, rows = page.job.recipe.train, page.laid.batch // page.job.context
    if train.rows is not None:
        return f"{rows:,} rows of {page.job.context:,}, as train.rows{' x train.accumulation' * (train.accumulation is not None)} says"
    if page.job.asked.exact:
        return f"{rows:,} rows of {page.job.context:,}, as its makers had it (published.batch_tokens); train.rows overrides it"
    micro = f", in {train.accumulation} micro-batches as train.accumulation says" if train.accumulation else ""
    return (
        f"0.58 D^0.571 (Step Law, Li et al. 2025) as a power of two of rows of {page.job.context:,}, a row for every eight devices at least{micro}; "
        "train.rows overrides it"
    )


def _shape_reasons(page: Page) -> dict[str, str]:
    """Why the model is as it is: given, or chosen."""
    config = page.laid.config
    if page.chosen is None:
        return {"model": "the size that the recipe gives; model.size and model.pattern override it"}
    found = size_reason(page.supply.worth, ALIKE)
    largest = " (the largest: a larger one may be better still)" * (len(page.chosen.sizes) > 1 and config.vocabulary_size == max(page.chosen.sizes))
    return {
        "model": f"width {config.width}, {config.num_layers} layers: {found} for this budget at the speed of its layout; model.size.width, "
        "model.size.num_layers override it",
        "vocabulary": f"{config.vocabulary_size:,}{largest}: lowest expected loss of {', '.join(f'{size:,}' for size in page.chosen.sizes)}, or the largest "
        "of those alike; tokenizer.candidates, model.size.vocabulary_size override it",
        **{name: f"{why}; {OVERRIDES[name]} overrides it" for name, why in routing_reasons(page.job.recipe.model.pattern, config, ALIKE).items()},
    }


def page_facts(page: Page) -> dict[str, Any]:
    """The same for scripts: plan.json."""
    recipe, machine, laid, dial, config = page.job.recipe, page.job.machine, page.laid, page.job.dial, page.laid.config
    joules, spent, expected = dial.joules(page.seconds), dial.dollars(page.seconds), page.expected
    facts = {
        "recipe": recipe.name, "budget": recipe.budget, "machine": str(machine), **shape_facts(config), "tokens": round(laid.tokens),
        "tokens_per_step": round(laid.found[0].tokens), "steps": round(page.steps), **page.schedule,
        "text_bytes": round(page.supply.unique) if page.languages else None, "read_bytes": round(page.read_bytes),
        "repeats": page.repeats if page.languages else None, "unused_seconds": round(page.unused_seconds), "mixture": page.mixture,
        "languages": {language: item.model_dump(mode="json") for language, item in _determined(page).items()},
        "flops": page.flops, "goodput": dial.goodput, "seconds": round(page.seconds),
        "joules": joules and round(joules), "usd": spent and round(spent, 2),
        "layouts": [
            {
                "layout": item.layout.model_dump(), "description": str(item.layout), "step_seconds": item.seconds, "tokens_per_second": item.tokens_per_second,
                "utilisation": page.utilisation(item), "memory_bytes": round(item.memory.total), "memory": item.memory._asdict(),
                "parts": item.parts._asdict(), "bottleneck": item.parts.bottleneck,
                "traffic_bytes": {name: round(num_bytes) for name, num_bytes in page.traffic_bytes(item).items()},
            }
            for item in laid.found
        ],
        "bits_per_byte": round(expected.bits_per_byte, 3), "low": round(expected.low, 3), "high": round(expected.high, 3), "law": page.law.source,
        "curve": [point.model_dump(mode="json") for point in page.curve], "price_per_hour": dial.price, "notes": list(page.notes), "reasons": reasons(page),
    }  # fmt: skip
    if page.served is not None:
        facts |= {"serve_tokens": dial.serve_tokens, "serving_seconds": round(page.served.serving_seconds, 1), "width_without_serving": page.alone.width}
    return facts
