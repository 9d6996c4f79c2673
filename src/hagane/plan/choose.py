"""Choose vocabulary, shape, batch, learning rate and steps for a budget. Every choice carries its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from statistics import harmonic_mean

from hagane.corpus.mixture import Shard
from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.model.extend import extended
from hagane.plan.amounts import amount
from hagane.plan.batch import Batch, by_time, by_tokens, given_batch, most_rows
from hagane.plan.contexts import Part, batch_at, contexts, curriculum, extended_context, mean_tokens_per_second, mean_training_flops, split
from hagane.plan.cost import MEMORY_SHARE, joules, phases_flops, run_memory, tokens_per_second
from hagane.plan.curve import loss_curve
from hagane.plan.facts import PlanFacts, Prediction, StagePlan
from hagane.plan.index_phases import indexer_reason, with_indexers
from hagane.plan.languages import (
    difficulty,
    effective_total,
    language_plans,
    mixture_reason,
    most_read,
    rates_of,
    read_by_language,
    readings,
    shards_of,
    unused_line,
    worth_of,
)
from hagane.plan.law import GENERAL, Law
from hagane.plan.null_experts import bias_rate_reason, with_bias_rate
from hagane.plan.pace import Pace
from hagane.plan.shapes import published
from hagane.plan.sketch import (
    MINIMUM_STEPS,
    Sketch,
    Worth,
    best_shape,
    best_vocabulary,
    body_parameters,
    given_flops,
    in_proportion,
    lowest_shape,
    point_of,
    routing_reasons,
    size_reason,
)
from hagane.plan.start import starting_model
from hagane.recipe.schema import Recipe, SizeSettings, TuneStep
from hagane.recipe.types import Budget, Machine, Phase, StepRate, duration

# Step Law was fitted from 60M parameters up; below that its power law runs away: at a million it asks for 0.013, where 0.0045 to 0.009 are alike and 0.003
# loses a percent (docs/notebook.md, "Learning rate of small models").
MAX_LEARNING_RATE = 6e-3
MAX_DELTA_RATE = 3e-3  # with Gated DeltaNet: 0.006 loses 1.8 % (docs/notebook.md, "Learning rate with Gated DeltaNet")
# Tuning's rates are ratios of pretraining's, at most of this: tuned from 0.006 the quickstart forgot text, 1.28 bits per byte for 1.17, and solved no more
# problems (docs/notebook.md, "The quickstart").
MAX_TUNED_RATE = 3e-3
EMBEDDING_RATE = 0.25  # 0.18 and 0.45 did equally well (docs/notebook.md, "Settings of small models")
# Speed of training over that of the timed steps: 0.79 to 1.07 in sixteen runs (docs/notebook.md, "Promised and kept"). Without steering the
# time is promised, so the plan counts on the mean. With it tokens are, and a promise should hold though another process takes a core for a
# minute: it then costs STOLEN_SECONDS, as a step waits for its slowest thread.
STEADY_SHARE, PROMISED_SHARE = 0.96, 0.85
STOLEN_SECONDS, LEAST_SHARE = 33.0, 0.5

# (config, rows, context) -> a measured micro-step
TimeStep = Callable[[ModelConfig, int, int], StepRate]
TimeQuickly = Callable[[ModelConfig, int, int], StepRate | None]


class FewStepsError(RecipeError):
    """Of the shape that was chosen and timed, too few steps fit into the budget; a smaller one's may."""


@dataclass(frozen=True)
class Known:
    """What earlier stages measured: bytes of each shard (with its source and language; held-out ones apart), bytes per token by vocabulary and language,
    and how many tokens a checkpoint's vocabulary was given."""

    shard_bytes: dict[str, int]
    shard_source: dict[str, str]
    shard_language: dict[str, str]
    held_out_bytes: dict[str, int]
    bytes_per_token: dict[int, dict[str, float]]
    new_tokens: int = 0
    shard_repeats: dict[str, float] = field(default_factory=dict)  # of the shards that quality says to read more or less often
    whole: bool = False  # all the text there is; else a sample that was sized for this budget, and another budget would find more

    @property
    def shards(self) -> dict[str, Shard]:
        """As the mixture wants them."""
        return shards_of(self.shard_bytes, self.shard_source, self.shard_language, self.shard_repeats)


@dataclass(frozen=True)
class Allowance:
    """What may be spent: seconds of training (None for a budget of tokens or FLOPs), and the seconds of the other stages."""

    training_seconds: float | None
    other_seconds: dict[str, float]


def choose(
    recipe: Recipe,
    pinned: SizeSettings,
    machine: Machine,
    known: Known,
    sketch: Sketch,
    allowance: Allowance,
    time_step: TimeStep,
    model: ModelConfig | None = None,
    law: Law = GENERAL,
    time_quickly: TimeQuickly | None = None,
) -> PlanFacts:
    """The plan. `time_step(config, rows, context)` returns a measured micro-step of the chosen shape, and the seconds of
    compiling that training has still before it; `time_quickly` one that only tells batches apart, or None. `model` is one chosen before.

    Raises RecipeError where nothing fits, FewStepsError where that is for the time that a step was measured to take.
    """
    reasons: dict[str, str] = {}
    seconds = allowance.training_seconds if allowance.training_seconds is not None else sketch.training_seconds
    config = model or choose_model(recipe, pinned, machine, known, seconds, law, reasons)
    bytes_per_token = mean_bytes_per_token(known, config.vocabulary_size)
    most_tokens = most_bytes(recipe, known) / (1 - recipe.tune.share) / bytes_per_token
    roughly = seconds * mean_tokens_per_second(recipe, config, machine) if allowance.training_seconds is not None else _tokens_of(recipe, config, sketch)
    by_clock = allowance.training_seconds if roughly < most_tokens else None  # where text ends before the time does, a batch for the text is best
    batch = _choose_batch(recipe, config, machine, known, law, by_clock, min(roughly, most_tokens), time_quickly)
    rows, accumulation, reasons["batch"] = batch.rows, batch.accumulation, batch.reason
    memory = _checked_memory(recipe, config, rows, accumulation, machine)
    share = promised_share(seconds) if recipe.execution.steer and allowance.training_seconds is not None else STEADY_SHARE  # nothing steers by tokens
    pace = Pace.of(recipe, config, (rows, accumulation), share, time_step)
    rate, step_seconds = pace.rates[recipe.train.context], pace.mean_seconds
    tokens_per_step = rows * accumulation * recipe.train.context
    total_steps = _total_steps(recipe, config, known, allowance, pace, roughly)
    per_promised = STEADY_SHARE / share if allowance.training_seconds is not None else 1.0  # steps expected for each that is promised
    if (expected_steps := round(total_steps * per_promised)) < MINIMUM_STEPS:
        step = step_seconds / per_promised
        raise FewStepsError(
            f"the budget leaves {duration(expected_steps * step)} for training, which is {expected_steps} steps; at least {MINIMUM_STEPS} are needed "
            f"({duration(MINIMUM_STEPS * step)}). Give a larger --budget, or lower train.rows or model.size."
        )
    most_steps = None if most_tokens == math.inf else max(MINIMUM_STEPS, round(most_tokens / tokens_per_step))
    unused_seconds = max(0, total_steps - (most_steps or total_steps)) * step_seconds
    total_steps = min(total_steps, most_steps or total_steps)
    reasons["steps"] = _steps_reason(recipe, pace, total_steps, unused_seconds)
    tokens = total_steps * tokens_per_step
    expected_tokens = round(tokens * per_promised)
    if most_steps is not None:
        expected_tokens = min(expected_tokens, most_steps * tokens_per_step)
    learning_rate, reasons["learning_rate"] = choose_learning_rate(recipe, config, expected_tokens)
    rates, repeats = mixture_of(recipe, known, expected_tokens * (1 - recipe.tune.share) * bytes_per_token)
    reasons["mixture"] = mixture_reason(recipe, repeats.values())
    phases = _phases(recipe, config, total_steps, pace, learning_rate, rates, known)
    reasons |= indexer_reason(phases["pretrain"])
    if starting_model(recipe) is None:  # the biases of a checkpoint have found their places
        config = with_bias_rate(config, recipe.model.pattern, phases["pretrain"])
        reasons |= bias_rate_reason(config, recipe.model.pattern)
    stages = {name: StagePlan(seconds=value) for name, value in allowance.other_seconds.items()} | _stage_plans(phases, pace)
    text_bytes = max(1.0, expected_tokens / tokens * text_tokens(recipe, stages, phases) * bytes_per_token)
    per_token = text_bytes / expected_tokens
    shards = known.shards
    read = read_by_language(shards, rates, text_bytes)
    law = law.for_text(difficulty(recipe, shards, known.bytes_per_token[config.vocabulary_size], text_bytes))
    value, low, high = law.predict(point_of(config, effective_total(read)))
    worth = worth_of(recipe, shards) if known.whole else None
    speed = rows * recipe.train.context / rate.step_seconds / tokens_per_second(config, recipe.train.context, machine, given_batch(recipe))
    training = seconds if allowance.training_seconds is not None and not unused_seconds else total_steps * step_seconds
    total_seconds = sum(stage.seconds for stage in stages.values())
    return PlanFacts(
        budget=recipe.budget, machine=machine, model=config, vocabulary_size=config.vocabulary_size,
        num_parameters=num_parameters(config), num_active_parameters=num_active_parameters(config), context=recipe.train.context,
        tokens_per_step=tokens_per_step, tokens=tokens, expected_tokens=expected_tokens, most_steps=most_steps, unused_seconds=unused_seconds,
        flops=phases_flops(config, chain(*phases.values())),
        stages=stages, phases=phases, step_seconds=pace.measured, extended=_extended(recipe, config),
        mixture=rates, repeats=repeats, items_per_cell=sketch.items_per_cell,
        predicted=Prediction(
            bits_per_byte=value, low=low, high=high, seconds=total_seconds, joules=joules(total_seconds, machine),
            peak_memory_bytes=max(rate.peak_memory_bytes for rate in pace.rates.values()) or memory,
        ),
        law=law.source, reasons=reasons, languages=language_plans(recipe, law, config, shards, text_bytes, per_token if known.whole else None),
        curve=loss_curve(recipe, pinned, machine, law, training, config, per_token, STEADY_SHARE * speed, worth),
    )  # fmt: skip


def _steps_reason(recipe: Recipe, pace: Pace, total_steps: int, unused: float) -> str:
    """Why there are so many steps; `unused` are the seconds of training that are left for want of text."""
    told = [f"{value * 1e3:.0f} ms{f' at a context of {context:,}' * (len(pace.measured) > 1)}" for context, value in pace.measured.items()]
    found = f"{total_steps:,} steps: a step was measured to take {', '.join(told)} here"
    if unused:
        return f"{found}; what text there is decides{unused_line(unused, recipe.corpus.max_repeats)}"
    counted = "counted on" if pace.promised == STEADY_SHARE else "promised; what time is left over becomes more steps"
    return f"{found}, and {pace.promised:.0%} of that speed is {counted}"


def _total_steps(recipe: Recipe, config: ModelConfig, known: Known, allowance: Allowance, pace: Pace, tokens: float) -> int:
    """Optimizer steps of all training stages: what fits into the time, or what the tokens or FLOPs come to. `tokens` are about those of FLOPs."""
    if allowance.training_seconds is not None:
        return round(max(0.0, allowance.training_seconds - pace.compile_seconds) / pace.mean_seconds)
    steps = round(tokens / sum(part.share * pace.tokens(part.context) for part in pace.stretches))
    flops = given_flops(recipe)
    if flops is None:
        return steps
    steps = max(steps, MINIMUM_STEPS)  # enough that every phase has some
    any_mixture = dict.fromkeys(known.shard_bytes, 1 / len(known.shard_bytes))  # neither it nor the learning rate changes what a token costs
    phases = _phases(recipe, config, steps, pace, MAX_LEARNING_RATE, any_mixture, known)
    return round(steps * flops / phases_flops(config, chain(*phases.values())))


def _tokens_of(recipe: Recipe, config: ModelConfig, sketch: Sketch) -> float:
    """Tokens of a budget that is not one of time, before its steps are known: of FLOPs as many as this shape reads for them."""
    flops = given_flops(recipe)
    return sketch.tokens if flops is None else flops / mean_training_flops(recipe, config)


def _stage_plans(phases: Mapping[str, tuple[Phase, ...]], pace: Pace) -> dict[str, StagePlan]:
    """Seconds, steps and tokens of the training stages; compiling counts for the first."""
    plans = {}
    for name, parts in phases.items():
        seconds = sum(phase.num_steps * pace.seconds(phase.context) for phase in parts) + (pace.compile_seconds if name == "pretrain" else 0.0)
        tokens = sum(phase.num_steps * phase.tokens_per_step for phase in parts)
        plans[name] = StagePlan(seconds=seconds, steps=sum(phase.num_steps for phase in parts), tokens=tokens)
    return plans


def _extended(recipe: Recipe, config: ModelConfig) -> ModelConfig | None:
    return extended(config, recipe.extend.factor, recipe.extend.method) if recipe.extend.share > 0 else None


def _checked_memory(recipe: Recipe, config: ModelConfig, rows: int, accumulation: int, machine: Machine) -> int:
    """Peak bytes of training at the context that takes most. Raises RecipeError where the machine has less."""
    batches = {context: batch_at(context, recipe.train.context, rows, accumulation) for context in contexts(recipe, config.context)}
    memory, context = max((run_memory(config, own_rows, context, machine.device), context) for context, (own_rows, _) in batches.items())
    if context != recipe.train.context and memory > machine.memory_bytes * MEMORY_SHARE:
        raise RecipeError(
            f"training rows of {context:,} tokens needs about {memory / 2**30:.1f} GiB and the machine has {machine.memory_bytes / 2**30:.1f} GiB. "
            "Lower extend.factor or train.context."
        )
    if memory > machine.memory_bytes * MEMORY_SHARE:
        raise RecipeError(
            f"training this model needs about {memory / 2**30:.1f} GiB and the machine has {machine.memory_bytes / 2**30:.1f} GiB. "
            f"Lower train.rows (now {rows}), model.size.width (now {config.width}), or give no size so that the plan chooses one that fits."
        )
    return memory


def text_tokens(recipe: Recipe, stages: Mapping[str, StagePlan], phases: Mapping[str, tuple[Phase, ...]]) -> int:
    """Tokens of text that are trained on: pretraining, midtraining, and what tuning replays."""
    replayed = {f"tune/{step.name}": step.replay_share for step in recipe.tune.steps}
    return round(sum(stages[name].tokens * replayed.get(name, 1.0) for name in phases))


def promised_share(training_seconds: float) -> float:
    """Of the timed speed, what a steered run promises: less the shorter it is, for a disturbance of a minute then takes more of it."""
    return max(LEAST_SHARE, PROMISED_SHARE * (1 - STOLEN_SECONDS / training_seconds))


def choose_model(recipe: Recipe, pinned: SizeSettings, machine: Machine, known: Known, seconds: float, law: Law, reasons: dict[str, str]) -> ModelConfig:
    """The model for `seconds` of training, and why in `reasons`: the checkpoint's, the published one, or shape and vocabulary of the lowest expected loss.

    Raises RecipeError where a pinned vocabulary was not trained.
    """
    context, start = recipe.train.context, starting_model(recipe)
    if start is not None:
        reasons["model"] = reasons["vocabulary"] = f"as {recipe.start.from_} has it: the run starts from its weights"
        if known.new_tokens:
            rows = max(known.bytes_per_token)
            reasons["vocabulary"] = f"{start.vocabulary_size:,} rows as {recipe.start.from_} has them, and {known.new_tokens:,} new tokens: {rows:,} rows"
            start = start.model_copy(update={"vocabulary_size": rows})
        reasons["law"] = "the predicted loss is that of a model trained from nothing on this text; starting from trained weights should do better"
        return start
    exact = published(recipe.model, context) if recipe.budget is None else None
    if exact is not None and exact.vocabulary_size in known.bytes_per_token:
        reasons["model"] = "the size that the recipe gives; no budget asks for another"
        return exact

    flops = given_flops(recipe)

    def loss(config: ModelConfig) -> float:
        if flops is not None:
            return expected_loss(recipe, config, known, law)(flops / mean_training_flops(recipe, config))
        return expected_loss(recipe, config, known, law)(seconds * tokens_per_second(config, context, machine, given_batch(recipe)))

    sizes = [pinned.vocabulary_size] if pinned.vocabulary_size else sorted(known.bytes_per_token)
    missing = [size for size in sizes if size not in known.bytes_per_token]
    if missing:
        raise RecipeError(
            f"model.size.vocabulary_size = {missing[0]} is not one of the trained vocabularies ({', '.join(map(str, sorted(known.bytes_per_token)))}). "
            "Add it to tokenizer.candidates, or give a larger corpus if it could not be reached."
        )
    worth = text_worth(recipe, known)
    options = [best_shape(recipe, pinned, machine, size, seconds, law, worth, flops) for size in sizes]
    lowest = {option: lowest_shape(recipe, pinned, machine, option.vocabulary_size, seconds, law, worth, flops) for option in in_proportion(options)}
    expected = {option: loss(config) for option, config in lowest.items()}
    best = best_vocabulary(expected)
    reasons["vocabulary"] = (
        f"{best.vocabulary_size:,}: lowest expected bits per byte of {', '.join(f'{size:,}' for size in sizes)} at this budget, or the largest of those alike"
    )
    spent = f"in {duration(seconds)} of training" if flops is None else f"for {amount(flops, 'FLOP')}"
    reasons["model"] = (
        f"width {best.width}, {best.num_layers} layers: {size_reason(worth)}, {spent} by the law ({law.source})"
    )
    reasons |= routing_reasons(recipe.model.pattern, best)
    return best


def text_worth(recipe: Recipe, known: Known) -> Worth | None:
    """What bytes read while training are worth; a share of them is tuning's, which is as new as the rest is. None where more text is left than was read."""
    if not known.whole:
        return None
    worth, share = worth_of(recipe, known.shards), 1 - recipe.tune.share
    return Worth(lambda num_bytes: worth(num_bytes * share) / share, worth.unique)


def most_bytes(recipe: Recipe, known: Known) -> float:
    """Bytes of text that a run reads at most: beyond `corpus.max_repeats` readings of all there is a model becomes worse (docs/notebook.md, "Text that is
    read again and again"). Infinite where there is more than is read, or a budget says how much is to be computed."""
    timed = recipe.budget is not None and Budget.parse(recipe.budget).kind in ("time", "energy", "money")
    return most_read(recipe, known.shards) if known.whole and timed else math.inf


def mean_bytes_per_token(known: Known, vocabulary_size: int) -> float:
    """Bytes of text a token stands for, every language the same number of bytes."""
    return harmonic_mean([*known.bytes_per_token[vocabulary_size].values()])


def _choose_batch(
    recipe: Recipe, config: ModelConfig, machine: Machine, known: Known, law: Law, seconds: float | None, tokens: float, time_quickly: TimeQuickly | None
) -> Batch:
    """By time where that is what is given and the recipe leaves the batch open, else by tokens."""
    if recipe.train.rows is not None or recipe.train.accumulation is not None or seconds is None or time_quickly is None:
        return by_tokens(recipe, machine, tokens)
    context, most = recipe.train.context, most_rows(recipe, machine)
    while most > 1 and run_memory(config, most, context, machine.device) > machine.memory_bytes * MEMORY_SHARE:
        most //= 2
    found = by_time(recipe, machine, seconds, most, expected_loss(recipe, config, known, law), lambda rows: time_quickly(config, rows, context))
    return found or by_tokens(recipe, machine, tokens)


def expected_loss(recipe: Recipe, config: ModelConfig, known: Known, law: Law) -> Callable[[float], float]:
    """Of a shape, bits per byte by the law after so many tokens of the recipe's mixture."""
    shards = known.shards
    each = mean_bytes_per_token(known, config.vocabulary_size)
    most = most_bytes(recipe, known)
    return lambda tokens: law.constants.loss(point_of(config, effective_total(readings(recipe, shards, min(most, tokens * each)))))


def highest_rate(config: ModelConfig) -> float:
    return MAX_DELTA_RATE if any(layer.mixer.kind == "delta" for layer in config.layers) else MAX_LEARNING_RATE


def step_law_rate(config: ModelConfig, tokens: float) -> float:
    """Peak learning rate by Step Law (Li et al. 2025), which knows no largest."""
    return float(1.79 * body_parameters(config) ** -0.713 * tokens**0.307)


def learning_rate_rule(config: ModelConfig, tokens: float) -> float:
    """Peak learning rate: Step Law's, at most what small models of this kind bear, three digits."""
    return float(f"{min(highest_rate(config), step_law_rate(config, tokens)):.3g}")


def embedding_ratio_rule(recipe: Recipe, config: ModelConfig, learning_rate: float) -> float:
    """The embedding table's learning rate over that of the rest: its rows move by EMBEDDING_RATE of their initial size a step, whatever the model's width.

    AdamW's steps are of one size, so a table of standard deviation 1 at the rate of matrices of 0.02 would hardly move. A table that is tied to the head, or
    comes from a checkpoint, learns at the common rate.
    """
    if recipe.train.embedding_ratio is not None:
        return recipe.train.embedding_ratio
    if config.embedding_std is None or recipe.start.from_ is not None:
        return 1.0
    return float(f"{EMBEDDING_RATE * config.embedding_std / config.embedding_scale / learning_rate:.3g}")


def choose_learning_rate(recipe: Recipe, config: ModelConfig, tokens: float) -> tuple[float, str]:
    """Peak learning rate of pretraining, and why."""
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate, f"{recipe.train.learning_rate:g}, as the recipe says"
    value = learning_rate_rule(config, tokens)
    rule = f"Step Law (Li et al. 2025), 1.79 N^-0.713 D^0.307, at most {highest_rate(config):g}"
    if recipe.start.from_ is not None:
        value = float(f"{value * recipe.start.learning_rate_ratio:.3g}")
        rule = f"warmed up again to {recipe.start.learning_rate_ratio:g} times that of a model trained from nothing, which is {rule}"
    return value, f"{value:.2g}: {rule}"


def warmup_share(recipe: Recipe) -> float:
    """Of the steps of pretraining, those in which the learning rate rises."""
    return recipe.train.warmup_share if recipe.start.from_ is None else recipe.start.rewarm_share


def mixture_of(recipe: Recipe, known: Known, total_bytes: float) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the rows and repeats per shard: fixed shares first, the rest by UniMax (or the recipe's weights) over languages, within one by size."""
    shards = known.shards
    shares = rates_of(recipe, shards, total_bytes)
    return shares, {name: share * total_bytes / known.shard_bytes[name] for name, share in shares.items()}


def _phases(
    recipe: Recipe, config: ModelConfig, total_steps: int, pace: Pace, learning_rate: float, mixture: dict[str, float], known: Known
) -> dict[str, tuple[Phase, ...]]:
    train, longest = recipe.train, extended_context(recipe, config.context)
    shared = train.of_phases() | {"embedding_ratio": embedding_ratio_rule(recipe, config, learning_rate)}

    def phase(
        name: str, collection: str, steps: int, rate: float, warmup: float, decay: float, final: float, rates: dict[str, float], context: int = train.context
    ) -> Phase:
        rows, accumulation = pace.batches[context]
        return Phase(
            name=name, collection=collection, context=context, rows=rows, accumulation=accumulation, num_steps=steps, mixture=rates,
            learning_rate=rate, warmup_steps=max(1, round(steps * warmup)), final_share=final, **{**shared, "decay_share": decay},
        )  # fmt: skip

    shares = map(pace.share, ("tune", "midtrain", "extend"))
    # one at least: a model whose positions were interpolated and that never read so must not be released as one of its new context
    tune_steps, mid_steps, long_steps = (max(1, round(total_steps * share)) if share else 0 for share in shares)
    pre_steps = total_steps - tune_steps - mid_steps - long_steps
    last = not tune_steps and not mid_steps and not long_steps
    whole = phase("pretrain", "text", pre_steps, learning_rate, warmup_share(recipe), train.decay_share, 0.0 if last else train.handover_share, mixture)
    parts = [Part(context, *pace.batches[context], share) for context, share in curriculum(recipe)]
    pretrain = split(whole, parts)
    if starting_model(recipe) is None:  # the indexers of a checkpoint have learned
        pretrain = with_indexers(pretrain, config, recipe.train)
    phases: dict[str, tuple[Phase, ...]] = {"pretrain": pretrain}
    if mid_steps:
        rates = _midtrain_mixture(recipe, mixture, known)
        final = 0.0 if not tune_steps and not long_steps else train.handover_share
        phases["midtrain"] = (phase("midtrain", "text", mid_steps, learning_rate * recipe.midtrain.learning_rate_ratio, 0.02, train.decay_share, final, rates),)
    if long_steps and longest is not None:
        ratio, final = recipe.extend.learning_rate_ratio, 0.0 if not tune_steps else train.handover_share
        phases["extend"] = (phase("extend", "text", long_steps, learning_rate * ratio, recipe.extend.warmup_share, train.decay_share, final, mixture, longest),)
    if tune_steps:
        total_share = sum(step.share for step in recipe.tune.steps)
        peak = learning_rate if recipe.train.learning_rate is not None else min(learning_rate, MAX_TUNED_RATE)
        shared["embedding_ratio"] = embedding_ratio_rule(recipe, config, peak)
        for step in recipe.tune.steps:
            steps = max(1, round(tune_steps * step.share / total_share))
            rate = peak * step.learning_rate_ratio
            phases[f"tune/{step.name}"] = (phase(step.name, "tune", steps, rate, step.warmup_share, step.decay_share, 0.0, tune_mixture(step, mixture)),)
    return phases


def _midtrain_mixture(recipe: Recipe, mixture: dict[str, float], known: Known) -> dict[str, float]:
    wanted = recipe.midtrain.mixture
    if not wanted:
        return mixture
    unknown = [name for name in wanted if name not in set(known.shard_source.values())]
    if unknown:
        raise RecipeError(
            f"midtrain.mixture names {unknown[0]}, which is not a source that has documents ({', '.join(sorted(set(known.shard_source.values())))})."
        )
    total = sum(wanted.values())
    rates: dict[str, float] = {}
    for source, share in wanted.items():
        inside = {shard: rate for shard, rate in mixture.items() if known.shard_source[shard] == source}
        if not sum(inside.values()):
            raise RecipeError(f"midtrain.mixture names {source}, and start.replay_share = 0 leaves nothing of it to read. Raise one, or leave the other out.")
        rates.update({shard: share / total * rate / sum(inside.values()) for shard, rate in inside.items()})
    return rates


def tune_mixture(step: TuneStep, text: dict[str, float]) -> dict[str, float]:
    """Shards of the tune collection, one per mode named `STEP.MODE`, and the replayed shards of `text`."""
    modes = {"thinking": step.thinking_share, "plain": 1 - step.thinking_share}
    own = {f"{step.name}.{mode}": share * (1 - step.replay_share) for mode, share in modes.items() if share > 0}
    return own | {f"text/{shard}": share * step.replay_share for shard, share in text.items() if step.replay_share and share}
