"""How a time budget is divided before anything is known about the corpus, and how much text that asks for.

The sketch depends only on the recipe and on the machine's profile, so the sample a short run reads is decided before it
reads anything, and the same run folder always decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters, table_parameters
from hagane.plan.batch import given_batch
from hagane.plan.contexts import contexts, mean_tokens_per_second, mean_training_flops
from hagane.plan.cost import MEMORY_SHARE, StepWork, run_memory, step_work, usual_speed
from hagane.plan.law import FINER_FROM, GENERAL, Law, Point, usual_bytes_per_token
from hagane.plan.limits import refuse_endless
from hagane.plan.shapes import candidates, expert_counts, experts_of, finer, granularity_of, top_k_of, top_ks
from hagane.plan.start import starting_model
from hagane.recipe.schema import PatternSettings, Recipe, SizeSettings
from hagane.recipe.types import Budget, Frozen, Machine

# Seconds that a run spends outside training on two cores, measured on the quickstart (docs/notebook.md, "where the minutes go").
START_SECONDS = 6.0  # interpreter, torch, profile
PLAN_SECONDS = 14.0  # compiling and timing the chosen step
SHAPE_SECONDS = 12.0  # likewise of each further context
RELEASE_SECONDS = 6.0  # the folder, its reload in transformers, the comparison, the report
GGUF_SECONDS = 4.0  # two files and their comparison in llama.cpp (docs/notebook.md, "GGUF")
EVALUATE_SECONDS = 7.0  # of a model of two million parameters, before its speed is known
SCORING_SPEED = 2.2  # tokens scored over tokens trained on in the same time: 1.5 dense, 2.8 with experts
GENERATING_SPEED = 0.4  # tokens generated, likewise: 0.38 and 0.6
ANSWER_TOKENS = 80  # of a problem, mean of both modes: 30 where they are solved, 75 to 130 where thinking runs on
SENTENCE_TOKENS = 25
LOAD_SECONDS = 1.0
CONVERSE_TOKENS_PER_SECOND = 8.0e5  # tuning conversations made and encoded: 1.0e6 with both cores free
PREPARED_SHARE = 0.92  # of what is left after the fixed parts: the rest goes into corpus, tokenizer and encode
# GGUF is counted here whether the recipe wants it or not: a setting of the release must not change how much text is read
FIXED_SECONDS = START_SECONDS + PLAN_SECONDS + RELEASE_SECONDS + GGUF_SECONDS + EVALUATE_SECONDS
MINIMUM_TRAINING_SECONDS = 25.0  # below this a model of any shape has not left the noise of its initialisation
MINIMUM_STEPS = 100
SURE_STEPS = 125  # to expect of a shape before its step was timed
# Losses of shapes, and of one shape with more or fewer experts, that differ by less are alike to a law: two seeds differ by as much, and experts bring more
# than it tells (docs/notebook.md, "The law again", "How many experts"). The larger model gains more from tuning.
ALIKE, EXPERTS_ALIKE = 0.015, 0.005
# Parameters for every byte of different text, at most, all experts and no embedding: where text is read four times, four times as many bring 1.4 and 1.5 %
# beyond one a byte, 0.6 % beyond five (docs/notebook.md, "Text that is read again and again").
PARAMETERS_PER_BYTE = 4.0
VOCABULARIES_ALIKE = 0.003  # the law, which knows no effect of their own, tells up to 1 % too much of one twice as large
SPARE_TEXT = 1.65  # text read over text needed: cleaning drops some, and steps may be half again as fast as expected before one was timed
# Settings that override what the plan chose, by the name of its reason.
OVERRIDES = {
    "model": "model.size.width, model.size.num_layers", "experts": "model.pattern.num_experts",
    "top_k": "model.pattern.top_k, and with it model.pattern.expert_ratio, the width of each, which then is not narrowed",
    "vocabulary": "model.size.vocabulary_size",
    "batch": "train.rows, train.accumulation", "learning_rate": "train.learning_rate", "mixture": "mix.weights, or the shares of corpus.sources",
    "corpus.sample_bytes": "corpus.sample_bytes", "tokens": "train.tokens without a budget", "usd": "execution.price_per_hour",
}  # fmt: skip


class Sketch(Frozen):
    """Expected seconds and bytes of a run, before its corpus is read."""

    training_seconds: float
    tokens: int
    sample_bytes: int | None
    tokenizer_bytes: int
    items_per_cell: int


def budget_seconds(budget: Budget, machine: Machine, price_per_hour: float | None) -> float | None:
    """A budget of time, energy or money as seconds on this machine; None for FLOPs and tokens. Raises RecipeError without a price."""
    if budget.kind == "time":
        return budget.amount
    if budget.kind == "energy":
        return budget.amount / machine.power_watts
    if budget.kind == "money":
        if price_per_hour is None:
            raise RecipeError(f"a budget of {budget} needs the price of this machine: --set execution.price_per_hour=2.5 (US dollars).")
        return budget.amount / price_per_hour * 3600
    return None


def flops_of(budget: Budget | None) -> float | None:
    """What a budget of FLOPs is of; None for others."""
    return budget.amount if budget is not None and budget.kind == "flops" else None


def given_flops(recipe: Recipe) -> float | None:
    """`flops_of` the recipe's budget."""
    return flops_of(Budget.parse(recipe.budget) if recipe.budget else None)


@dataclass(frozen=True)
class Worth:
    """What reading a text is worth: `effective(num_bytes)` bytes of new text for those read in training, repeats counted, of which `unique` are different.
    At most `most` are read. Where a text is taken to suffice there is None of this."""

    effective: Callable[[float], float]
    unique: float
    most: float = math.inf

    def __call__(self, num_bytes: float) -> float:
        return self.effective(min(self.most, num_bytes))


class Candidate(NamedTuple):
    """A shape that could be trained, and what its expected loss after any time follows from. `point` is without its bytes, `memory` that of a row, `batch`
    the tokens of a step where the recipe gives them."""

    config: ModelConfig
    point: Point
    work: StepWork
    memory: int
    batch: int | None = None

    def expected(self, seconds: float, machine: Machine, law: Law, worth: Worth | None = None, flops: float | None = None) -> Expected:
        """After training for `seconds`, or for `flops` however long that takes."""
        tokens = flops / self.work.flops if flops is not None else seconds * usual_speed(self.work, machine, self.batch)
        found = self.after(tokens * usual_bytes_per_token(self.config.vocabulary_size), law, worth)
        few_steps = flops is None and self.batch is not None and tokens < SURE_STEPS * self.batch
        return found._replace(too_large=True) if few_steps else found

    def after(self, num_bytes: float, law: Law, worth: Worth | None = None) -> Expected:
        """After so many bytes of text, repeats counted."""
        if worth is None:
            return Expected(law.constants.loss(self.point._replace(bytes=num_bytes)), self)
        too_large = self.point.total > PARAMETERS_PER_BYTE * min(worth.unique, num_bytes)
        return Expected(law.constants.loss(self.point._replace(bytes=worth(num_bytes))), self, too_large)


class Expected(NamedTuple):
    """Expected bits per byte of a candidate, and whether it is too large: so slow that fewer than SURE_STEPS of the recipe's batch fit into the time, or
    of too many parameters for the bytes of different text that it reads, as what more of them bring by the law they do not where text is read again and
    again."""

    loss: float
    one: Candidate
    too_large: bool = False


def affordable(recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int) -> Sequence[Candidate]:
    """The rungs of the ladder that fit into memory, the smallest where none does; the checkpoint's shape where the run starts from one."""
    start, context = starting_model(recipe), recipe.train.context
    if start is not None:
        return [_candidate(start, context, machine.device, given_batch(recipe))]
    every = _counted(recipe.model.pattern, pinned, vocabulary_size, context, machine.device, given_batch(recipe))
    return [one for one in every if one.memory <= MEMORY_SHARE * machine.memory_bytes] or every[:1]


def best_shape(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, seconds: float, law: Law, worth: Worth | None = None,
    flops: float | None = None,
) -> ModelConfig:  # fmt: skip
    """The shape that is taken of those that can be afforded and finer experts, trained for `seconds` or for `flops` (`best_alike`)."""
    found = _expected(recipe, pinned, machine, vocabulary_size, seconds, law, worth, flops)
    best = best_alike(found)
    own = [item for item in found if (item.one.config.width, item.one.config.num_layers) == (best.config.width, best.config.num_layers)]
    return best_alike([*own, *(one.expected(seconds, machine, law, worth, flops) for one in with_finer_experts(recipe, pinned, machine, best))]).config


def with_finer_experts(recipe: Recipe, pinned: SizeSettings, machine: Machine, best: Candidate) -> Sequence[Candidate]:
    """The shape of `best` with finer experts, where a law knows of such models that these bring anything and they fit into memory."""
    config = best.config
    if best.point.active < FINER_FROM or starting_model(recipe) is not None:
        return []
    ladder = ((config.width, config.num_layers),)
    others = finer(recipe.model.pattern, pinned, ladder, vocabulary_size=config.vocabulary_size, context=recipe.train.context)
    every = [_candidate(other, recipe.train.context, machine.device, best.batch) for other in others]
    return [one for one in every if one.memory <= MEMORY_SHARE * machine.memory_bytes]


def fitting(found: Sequence[Expected]) -> Sequence[Expected]:
    """Those that are not too large for their text or time, the smallest where all are."""
    return [item for item in found if not item.too_large] or [min(found, key=_size)]


def best_alike(found: Sequence[Expected]) -> Candidate:
    """Of candidates whose loss is like the lowest the largest shape, with experts no finer than they must be and as many as bring as much. None that is too
    large for its text or time, unless all are."""
    found = fitting(found)
    most = min(item.loss for item in found) * (1 + ALIKE)
    shape = _largest(found, most).one.config
    own = [item for item in found if (item.one.config.width, item.one.config.num_layers) == (shape.width, shape.num_layers)]
    enough = min(most, min(item.loss for item in own) * (1 + EXPERTS_ALIKE))
    coarsest = min(top_k_of(item.one.config) for item in own if item.loss <= enough)
    return _largest([item for item in own if top_k_of(item.one.config) == coarsest], enough).one


def size_reason(worth: Worth | None, smallest: float | None = None) -> str:
    """Why a shape is taken: the largest that is alike, or the smallest, where that is taken, within this share of the lowest loss."""
    taken = f"largest of the ladder within {ALIKE:.1%}" if smallest is None else f"smallest model of the ladder, by all parameters, within {smallest:.1%}"
    bound = "" if worth is None else f", of those with at most {PARAMETERS_PER_BYTE:g} parameters for a byte of different text"
    return f"the {taken} of the lowest expected loss{bound}"


def lowest_shape(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, seconds: float, law: Law, worth: Worth | None = None,
    flops: float | None = None,
) -> ModelConfig:  # fmt: skip
    """The one with the lowest expected loss of those not too large for their text or time, however small: what vocabularies are compared by. What is like
    it may be further from it in one than another."""
    found = _expected(recipe, pinned, machine, vocabulary_size, seconds, law, worth, flops)
    return min(fitting(found), key=lambda item: item.loss).one.config


def _expected(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, seconds: float, law: Law, worth: Worth | None, flops: float | None
) -> Sequence[Expected]:
    """Every shape that can be afforded."""
    return [one.expected(seconds, machine, law, worth, flops) for one in affordable(recipe, pinned, machine, vocabulary_size)]


def _largest(found: Sequence[Expected], most: float) -> Expected:
    """The largest model of those with this expected loss or less."""
    return max((item for item in found if item.loss <= most), key=_size)


def _size(item: Expected) -> float:
    return _effective(item.one.point)


def _candidate(config: ModelConfig, context: int, device: str, batch: int | None) -> Candidate:
    return Candidate(config, point_of(config, 0.0), step_work(config, context), run_memory(config, 1, context, device), batch)


@lru_cache(maxsize=64)
def _counted(pattern: PatternSettings, pinned: SizeSettings, vocabulary_size: int, context: int, device: str, batch: int | None) -> tuple[Candidate, ...]:
    """All candidates. A plan asks for them a dozen times: counting a hundred models every time took most of its second."""
    return tuple(_candidate(config, context, device, batch) for config in candidates(pattern, pinned, vocabulary_size=vocabulary_size, context=context))


def routing_reasons(pattern: PatternSettings, config: ModelConfig, smallest: float | None = None) -> dict[str, str]:
    """Why there are so many experts, and why a token uses so many: what was chosen of them. `smallest` as in `size_reason`."""
    count, top_k, found = experts_of(config), top_k_of(config), {}
    if count and pattern.num_experts is None:
        counts = ", ".join(map(str, expert_counts(pattern.model_copy(update={"top_k": top_k}))))
        why = f"{count}: likewise of {counts}, within {EXPERTS_ALIKE:.1%}"
        if smallest is not None:
            why = f"{count} of {counts}: those of the smallest model within {smallest:.1%} of the lowest expected loss"
        found["experts"] = f"{why}; a token uses {top_k} of them"
    if count and len(options := top_ks(pattern)) > 1:
        why, since = f"the fewest with an expected loss within {EXPERTS_ALIKE:.1%} of the lowest", f", from {FINER_FROM / 1e6:.0f}M active parameters on"
        if smallest is not None:
            why, since = "those of the same model", ""
        found["top_k"] = (
            f"{top_k} of {', '.join(map(str, options))} experts, together as wide: {why}; finer ones bring what is published{since} (Krajewski et al. 2024)"
        )
    return found


def in_proportion(options: Sequence[ModelConfig]) -> Sequence[ModelConfig]:
    """Those whose embedding is no larger than their body, or the first: the vocabulary's parameters grow slower than the body's (Tao et al. 2024); at small
    size they never pay beyond it."""
    return [config for config in options if config.vocabulary_size * config.width <= body_parameters(config)] or options[:1]


def best_vocabulary(expected: Mapping[ModelConfig, float]) -> ModelConfig:
    """Of the best shapes of several vocabularies, each with the lowest loss that its vocabulary can reach, the one with the largest of those alike."""
    most = min(expected.values()) * (1 + VOCABULARIES_ALIKE)
    return max((option for option, value in expected.items() if value <= most), key=lambda option: option.vocabulary_size)


def point_of(config: ModelConfig, num_bytes: float) -> Point:
    """Where a model after `num_bytes` (effective) of text stands in the loss law: parameters without embedding and head."""
    outside = table_parameters(config)
    bodies = (num_active_parameters(config) - outside, num_parameters(config) - outside)
    return Point(*bodies, num_bytes, config.vocabulary_size, granularity_of(config))


def body_parameters(config: ModelConfig) -> float:
    """N of rules that know one number of parameters: without embedding and head, routed experts as the geometric mean of active and total
    (the effective size of a sparse model lies between them; Clark et al. 2022, eq. 6, at the low expert counts of a small run)."""
    return _effective(point_of(config, 0.0))


def _effective(point: Point) -> float:
    return math.sqrt(point.active * point.total)


def sketch(recipe: Recipe, pinned: SizeSettings, machine: Machine, law: Law = GENERAL) -> Sketch:
    """Divide the budget. Raises RecipeError, with the smallest useful budget, where nothing could be learned."""
    budget = Budget.parse(recipe.budget) if recipe.budget else None
    seconds = budget_seconds(budget, machine, recipe.execution.price_per_hour) if budget else None
    vocabulary_size = _middle_vocabulary(recipe, pinned)
    if seconds is not None:
        num_contexts = len(contexts(recipe))
        training = training_seconds(seconds, num_contexts)
        if training < MINIMUM_TRAINING_SECONDS:
            smallest = smallest_seconds(num_contexts)
            factor = smallest / seconds
            assert budget is not None
            least = Budget(kind=budget.kind, amount=math.ceil(budget.amount * factor * 100) / 100 if budget.kind != "time" else math.ceil(smallest / 5) * 5)
            raise RecipeError(f"A budget of {budget} is too small to learn anything here. The smallest useful one for this recipe on this machine is {least}.")
        config = best_shape(recipe, pinned, machine, vocabulary_size, training, law)
        tokens = round(training * mean_tokens_per_second(recipe, config, machine))
    else:
        tokens, training = _by_amount(recipe, pinned, machine, vocabulary_size, law, budget)
    refuse_endless(training, budget)
    text_share = 1 - recipe.tune.share
    sample = _two_digits(max(1_500_000, tokens * text_share * usual_bytes_per_token(vocabulary_size) * SPARE_TEXT))
    return Sketch(
        training_seconds=training, tokens=tokens, sample_bytes=recipe.corpus.sample_bytes or sample,
        tokenizer_bytes=recipe.tokenizer.sample_bytes or _two_digits(min(50_000_000, max(1_000_000, training * 20_000))),
        items_per_cell=recipe.evaluate.items_per_cell or max(2, min(28, round(training / 45))),
    )  # fmt: skip


def _by_amount(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, law: Law, budget: Budget | None, option: str = "--budget"
) -> tuple[int, float]:
    """Tokens and seconds of training of a budget of tokens or FLOPs, or of train.tokens: with the shape that is best for so many FLOPs, or for the seconds
    that it takes with so many tokens, of which a larger model would always make more.

    Raises RecipeError, which names the `option`, where there is no amount, or too little.
    """
    if budget is None and not recipe.train.tokens:
        raise RecipeError(f"recipe {recipe.name} says neither a budget nor train.tokens. Give --budget, for example --budget 10min.")

    def tokens_of(config: ModelConfig) -> float:
        if budget is None:
            return float(recipe.train.tokens or 0)
        return budget.amount / (mean_training_flops(recipe, config) if budget.kind == "flops" else 1.0)

    def seconds_of(config: ModelConfig) -> float:
        return tokens_of(config) / mean_tokens_per_second(recipe, config, machine)

    seconds, asked = 600.0, list[ModelConfig]()
    flops = flops_of(budget)
    while (config := best_shape(recipe, pinned, machine, vocabulary_size, seconds, law, flops=flops)) not in asked:
        asked.append(config)
        seconds = seconds_of(config)
    config = max(asked[asked.index(config) :], key=body_parameters)  # more than one where each asks for the other
    tokens, minimum = round(tokens_of(config)), MINIMUM_STEPS * 2048
    if tokens < minimum:
        least = f"{minimum}tokens" if flops is None else f"{_least_flops(recipe, pinned, machine, vocabulary_size, law, minimum):g}FLOP"
        raise RecipeError(f"{tokens:,} training tokens are too few to learn anything. The smallest useful number is {minimum:,} ({option} {least}).")
    return tokens, seconds_of(config)


def _least_flops(recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, law: Law, tokens: int) -> float:
    """FLOPs, to two digits, with which the shape that is chosen for them reads so many tokens."""
    flops = tokens * min(one.work.flops for one in affordable(recipe, pinned, machine, vocabulary_size))
    while flops < tokens * mean_training_flops(recipe, best_shape(recipe, pinned, machine, vocabulary_size, 0.0, law, flops=flops)):
        flops *= 1.25
    return float(f"{flops * 1.05:.2g}")


def training_seconds(seconds: float, num_contexts: int = 1) -> float:
    """What a budget leaves for training after start, preparation, planning and the last stages."""
    return (seconds - FIXED_SECONDS - SHAPE_SECONDS * (num_contexts - 1)) * PREPARED_SHARE


def whole_seconds(training: float, num_contexts: int = 1) -> float:
    """The budget that leaves this much for training: `training_seconds` the other way round."""
    return training / PREPARED_SHARE + FIXED_SECONDS + SHAPE_SECONDS * (num_contexts - 1)


def target_seconds(recipe: Recipe, pinned: SizeSettings, machine: Machine, target: Budget) -> float:
    """The target of a ladder or a search as the seconds of a run here. One of FLOPs or tokens is taken as the training of the shape that is best for it.

    By the general law, though the text may have its own: a ladder changes that, and the same command must go on with what it began.
    Raises RecipeError without a price, or where so few tokens teach nothing.
    """
    seconds = budget_seconds(target, machine, recipe.execution.price_per_hour)
    if seconds is not None:
        return seconds
    return whole_seconds(_by_amount(recipe, pinned, machine, _middle_vocabulary(recipe, pinned), GENERAL, target, "--target")[1])


def _middle_vocabulary(recipe: Recipe, pinned: SizeSettings) -> int:
    return pinned.vocabulary_size or recipe.tokenizer.candidates[len(recipe.tokenizer.candidates) // 2]


def smallest_seconds(num_contexts: int = 1) -> float:
    return whole_seconds(MINIMUM_TRAINING_SECONDS, num_contexts)


def evaluate_seconds(recipe: Recipe, plan: Sketch, scored_tokens: float, tokens_per_second: float) -> float:
    """Expected seconds of the evaluate stage, from the held-out tokens it scores and the speed of training (docs/notebook.md, "promised and kept")."""
    languages, families = len(recipe.tune.languages) or 9, len(recipe.tune.families) or 8
    scored = scored_tokens + recipe.evaluate.parallel_sentences * languages * SENTENCE_TOKENS
    hidden = recipe.evaluate.retrieval
    scored += sum(hidden.lengths) * 2 * hidden.depths * hidden.items * (len(hidden.languages) or languages)
    # nothing is asked of a model that was not tuned
    asked = plan.items_per_cell * languages * families * 2 if recipe.tune.share > 0 else 0
    return LOAD_SECONDS + (scored / SCORING_SPEED + asked * ANSWER_TOKENS / GENERATING_SPEED) / tokens_per_second


def release_seconds(recipe: Recipe) -> float:
    """Expected seconds of release and report."""
    return RELEASE_SECONDS + (0.0 if recipe.release.gguf is False else GGUF_SECONDS)


def _two_digits(value: float) -> int:
    """Rounded to two significant digits: a slightly different profile must not ask for a different sample."""
    magnitude = 10 ** max(0, int(math.log10(value)) - 1)
    return int(round(value / magnitude) * magnitude)
