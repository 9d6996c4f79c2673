"""The shape for a cluster where a recipe leaves it open: the smallest model whose expected loss is that of the best, at the speed that a layout gives.

Every rung of the ladder is ranked by the law at a usual speed, that of data and expert parallelism alone. The one that the rule takes is laid out; what
that says of its speed is believed of those like it, and they are ranked again until the one taken, the one with the lowest loss and smaller ones that are
nearly as good were laid out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.model.count import table_parameters
from hagane.plan.amounts import amount
from hagane.plan.batch import batch_rule, step_law_batch
from hagane.plan.cost import MEMORY_SHARE, step_work, training_memory
from hagane.plan.dial import LEAST_BATCH, Dial, rounded_up
from hagane.plan.law import Law, usual_bytes_per_token
from hagane.plan.layout import FITTED, UNBALANCED, Estimate, assemble, units
from hagane.plan.machines import Cluster, Precision, cluster
from hagane.plan.search import MICRO_TOKENS, STATES, Asked, best_layouts
from hagane.plan.shapes import LADDER, candidates, experts_of, finer, top_k_of
from hagane.plan.sketch import MINIMUM_STEPS, Candidate, Expected, Worth, best_vocabulary, fitting, in_proportion, point_of
from hagane.plan.workload import Workload, workload
from hagane.recipe.cluster import LayoutSettings
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget, Layout

LARGER = ((10240, 80), (12288, 96), (16384, 128))  # rungs beyond the ladder, in the proportions of its last ones: no single machine has use for them
PROMISING = 0.04  # of the loss: what is further from the lowest with one vocabulary is not looked at with another
# Of the lowest expected loss, within which the smallest model is taken: the law cannot tell such shapes apart, and what is smaller is cheaper to keep and to
# serve. Laptops take the largest within 1.5 % (`sketch.ALIKE`), by trainings of minutes, of which no cluster's plan is one.
ALIKE = 0.005
DOUBT = 0.004  # of the loss: what a shape that was not laid out may be better than believed
FINER_BRINGS = 0.02  # of the loss, for which finer experts are looked at
COMPUTES = 64  # tried, between what the smallest and the largest shape take for a number of tokens
MOST_LAID = 6  # shapes; the ranking is then taken as it is
FIRST_BATCH = 4 * 2**20  # tokens of a step, before a speed says how many
SHARING = 8  # devices that share a row at most, where there are few rows


class Laid(NamedTuple):
    """A shape with the fastest layouts for it, the batch they were found for and the training tokens that the budget buys with the first."""

    config: ModelConfig
    work: Workload
    found: list[Estimate]
    batch: int
    tokens: float

    @property
    def tokens_per_second(self) -> float:
        return self.found[0].tokens_per_second


@dataclass(frozen=True)
class Job:
    """What is to be trained, whatever its shape: the recipe and its dial, tokens of a row, and bytes of text that are read at most (`Supply.most_read`)."""

    recipe: Recipe
    dial: Dial
    context: int
    most_bytes: float = math.inf

    @property
    def own(self) -> bool:
        """Whether it is the published run that is planned: its machine, and no budget that asks for another."""
        return self.recipe.budget is None and str(self.machine) == str(cluster(self.recipe.published.machine or str(self.machine)))

    @property
    def machine(self) -> Cluster:
        return self.dial.machine

    @property
    def precision(self) -> Precision:
        return self.layout.precision or ("float32" if self.recipe.train.dtype == "float32" else "bf16")

    @cached_property
    def layout(self) -> LayoutSettings:
        """What must be kept of it: what the recipe asks for, and what is published of its own run."""
        asked = self.recipe.execution.layout
        if not self.own:
            return asked
        return self.recipe.published.layout.model_copy(update=asked.model_dump(exclude_none=True))

    @cached_property
    def asked(self) -> Asked:
        """What the recipe says of the layout and of the batch."""
        train, batch = self.recipe.train, self.own and self.recipe.published.batch_tokens is not None
        return Asked(self.layout.model_dump(exclude_none=True, exclude={"precision"}), train.accumulation, train.rows is not None or batch)

    def text_bytes(self, config: ModelConfig, tokens: float) -> float:
        """Of text, read in training on so many tokens: at the usual bytes a token, without those of tuning."""
        return tokens * usual_bytes_per_token(config.vocabulary_size) * (1 - self.recipe.tune.share)

    def tokens(self, work: Workload, config: ModelConfig, tokens_per_second: float, dial: Dial | None = None) -> float:
        """Training tokens that the dial buys, and for which there is text; where that is for too few of them, as many as a run needs (`refuse_absurd`)."""
        bought = (dial or self.dial).tokens(tokens_per_second, 3 * work.forward_flops)
        return min(bought, max(self.text_tokens(config), self.least_tokens(work)))

    def text_tokens(self, config: ModelConfig) -> float:
        """Training tokens for which there is text."""
        return self.most_bytes / self.text_bytes(config, 1.0)

    def least_tokens(self, work: Workload) -> float:
        """Training tokens of the fewest steps in which anything is learned."""
        return float(MINIMUM_STEPS * max(LEAST_BATCH, self.least_batch(work)))

    def least_batch(self, work: Workload) -> int:
        """Tokens: the recipe's, or a row for every eight devices, or for as many as can share the heads of one, so that few layouts lack work."""
        if self.asked.exact:
            return self.batch(work, 0.0)
        return max(1, self.machine.count // math.gcd(SHARING, work.num_heads)) * self.context

    def batch(self, work: Workload, tokens: float) -> int:
        """Tokens of a step in a run of so many: the recipe's, or Step Law's as a power of two of rows."""
        if self.asked.exact:
            return batch_rule(self.recipe, tokens)
        rows = max(1.0, step_law_batch(max(1.0, tokens)) / self.context)
        return int(max(self.context * 2 ** round(math.log2(rows)), self.least_batch(work)))

    def lay_out(self, config: ModelConfig, tokens: float, coarse: bool = False) -> Laid:
        """The fastest layouts of a shape, or nearly, at the batch for about so many training tokens. Raises RecipeError where none fits."""
        work = workload(config, self.context)
        batch = self.batch(work, tokens)
        found = best_layouts(work, self.machine, batch, self.precision, asked=self.asked, coarse=coarse)
        return Laid(config, work, found, batch, self.tokens(work, config, found[0].tokens_per_second))

    def settled(self, laid: Laid) -> Laid:
        """Laid out anew at the batch for the tokens it has. A fixed point of both, near enough after one correction."""
        return laid if self.batch(laid.work, laid.tokens) == laid.batch else self.lay_out(laid.config, laid.tokens)

    def refuse_absurd(self, laid: Laid, different_bytes: float, given: bool) -> None:
        """Raises RecipeError where `different_bytes` of text, or the budget, are too few to learn anything, and where it never ends. `given`: the shape."""
        allowed, needed = self.text_tokens(laid.config), self.least_tokens(laid.work)
        if allowed < needed:
            # more text may choose another shape: one whose rows no devices can share, of the largest vocabulary, whose tokens stand for most text
            needed = needed if given or self.asked.exact else max(needed, float(MINIMUM_STEPS * self.machine.count * self.context))
            each = usual_bytes_per_token(self.recipe.model.size.vocabulary_size or max(self.recipe.tokenizer.candidates, default=laid.config.vocabulary_size))
            enough = different_bytes * needed / allowed * each / usual_bytes_per_token(laid.config.vocabulary_size)
            raise RecipeError(
                f"There is too little text to learn anything on {self.machine}: {amount(different_bytes, 'B')} read "
                f"{self.recipe.corpus.max_repeats:g} times (corpus.max_repeats) are {allowed:,.0f} tokens, and {MINIMUM_STEPS} optimizer steps take "
                f"{needed:,.0f} here, for which about {rounded_up(enough / 1e6):g} MB of text are needed."
            )
        speed, flops = laid.tokens_per_second, 3 * laid.work.forward_flops
        self.dial.refuse_absurd(self.dial.tokens(speed, flops), laid.tokens, speed, flops, self.least_batch(laid.work))

    def published(self, config: ModelConfig) -> Laid:
        """A shape that is given."""
        work = workload(config, self.context)
        return self.settled(self.lay_out(config, self.tokens(work, config, usual_speed(work, self.machine, FIRST_BATCH, self.precision))))


def usual_speed(work: Workload, machine: Cluster, batch: int, precision: Precision) -> float:
    """Tokens a second with data and expert parallelism alone, whether or not it fits: what shapes are ranked by."""
    rows = max(1, batch // (work.context * machine.count))
    most = max(1, MICRO_TOKENS // work.context)
    layout = Layout.model_construct(
        data=machine.count, zero=1, tensor=1, pipeline=1, interleave=1, context=1, expert=math.gcd(machine.count, max(1, work.num_experts)),
        micro_batch=min(rows, most), checkpointing="none", precision=precision,
    )  # fmt: skip
    parts = assemble(units(work, layout, machine, math.ceil(rows / most), UNBALANCED), FITTED)
    return min(float(batch), rows * work.context * machine.count) / parts.total


Key = tuple[int, int, int, int]  # width, layers, experts, those that a token uses: names a rung of one vocabulary; a configuration takes a millisecond to hash


def _key(config: ModelConfig) -> Key:
    return config.width, config.num_layers, experts_of(config), top_k_of(config)


class Rung(NamedTuple):
    """A shape that could be trained: its work, and the usual speed."""

    key: Key
    one: Candidate
    work: Workload
    speed: float

    @property
    def flops(self) -> float:
        """Of training a token."""
        return 3 * self.work.forward_flops


def _rung(job: Job, config: ModelConfig) -> Rung:
    work = workload(config, job.context)
    one = Candidate(config, point_of(config, 0.0), step_work(config, job.context), training_memory(config, 1, job.context))
    speed = usual_speed(work, job.machine, FIRST_BATCH, job.precision)
    return Rung(_key(config), one, work, usual_speed(work, job.machine, job.batch(work, job.tokens(work, config, speed)), job.precision))


@dataclass(frozen=True)
class Choice:
    """The rungs of one vocabulary, ranked by the law."""

    job: Job
    law: Law
    rungs: Sequence[Rung]
    laid: dict[Key, Laid]
    worth: Worth | None = None
    most_flops: float = math.inf  # of a token, under a budget of tokens: a fixed number of them says nothing of how large a model may be

    def rung(self, config: ModelConfig) -> Rung:
        key = _key(config)
        return next(rung for rung in self.rungs if rung.key == key)

    def in_doubt(self, dial: Dial, taken: Rung) -> list[Rung]:
        """Smaller ones than that which is `taken`, not laid out yet, that would be taken if they were a little faster than believed; the nearest first."""
        found = self.losses(dial)
        most = min(item.loss for item in fitting(found)) * (1 + ALIKE + DOUBT)
        near = sorted((item for item in fitting(found) if item.loss <= most), key=lambda item: item.loss)
        rungs = [self.rung(item.one.config) for item in near]
        return [rung for rung in rungs if rung.work.num_parameters < taken.work.num_parameters and rung.key not in self.laid]

    def with_finer(self, dial: Dial) -> Choice:
        """The same with finer experts in the shapes that may be taken or be the best with them: what they bring is little, and there are many."""
        found, size = fitting(self.losses(dial)), self.job.recipe.model.size
        most = min((item.loss for item in found), default=0.0) * (1 + ALIKE + FINER_BRINGS)
        near = [item.one.config for item in found if item.loss <= most] or [self.take(dial)]
        ladder = tuple(dict.fromkeys((config.width, config.num_layers) for config in near))
        vocabulary = near[0].vocabulary_size
        others = finer(self.job.recipe.model.pattern, size, ladder, vocabulary_size=vocabulary, context=self.job.context)
        known = {rung.key for rung in self.rungs}
        more = [config for config in others if _key(config) not in known]
        return replace(self, rungs=[*self.rungs, *_holdable(self.job, more)]) if more else self

    def believed(self, rung: Rung) -> float:
        """Tokens a second: of its own layout, else the usual speed times what layouts gave of it for the shape that is most like it."""
        return self._believed(rung, self._known())

    def _known(self) -> list[Rung]:
        return [other for other in self.rungs if other.key in self.laid]

    def _believed(self, rung: Rung, known: Sequence[Rung]) -> float:
        if not known:
            return rung.speed
        near = min(known, key=lambda other: _distance(rung.key, other.key))
        return rung.speed * self.laid[near.key].tokens_per_second / near.speed

    def losses(self, dial: Dial) -> list[Expected]:
        """Expected bits per byte of every rung that the dial leaves time to train."""
        found, known = [], self._known()
        for rung in self.rungs:
            if dial.budget.kind == "tokens" and rung.flops > self.most_flops:
                continue
            tokens = self.job.tokens(rung.work, rung.one.config, self._believed(rung, known), dial)
            num_bytes = self.job.text_bytes(rung.one.config, tokens)
            if tokens > 0:
                found.append(rung.one.after(num_bytes, self.law, self.worth))
        return found

    def take(self, dial: Dial) -> ModelConfig:
        """The smallest that is like the best. Raises RecipeError where serving leaves no time."""
        found = self.losses(dial)
        if not found:
            raise RecipeError(
                f"serving {dial.serve_tokens:g} tokens takes all of {dial.budget} on {dial.machine}, even with the smallest model of this recipe. "
                "Give a larger --budget or fewer --serve-tokens."
            )
        return smallest_alike(found).config

    def best(self, dial: Dial) -> Rung:
        """The one with the lowest loss, however small."""
        return self.rung(min(fitting(self.losses(dial)), key=lambda item: item.loss).one.config)

    def lowest(self, dial: Dial) -> float:
        """Loss of the best rung, however small."""
        found = self.losses(dial)
        return min(item.loss for item in fitting(found)) if found else math.inf


def smallest_alike(found: Sequence[Expected]) -> Candidate:
    """Of candidates of one vocabulary whose loss is like the lowest the one with the fewest parameters, of those with as many the one with the coarsest and
    fewest experts. None that is too large for its text, unless all are."""
    found = fitting(found)
    most = min(item.loss for item in found) * (1 + ALIKE)
    return min((item.one for item in found if item.loss <= most), key=lambda one: (one.point.total + table_parameters(one.config), top_k_of(one.config)))


def _distance(one: Key, other: Key) -> float:
    """In doublings of width, of experts and of those that a token uses."""
    return abs(math.log2(one[0] / other[0])) + sum(abs(math.log2((mine + 1) / (theirs + 1))) for mine, theirs in zip(one[2:], other[2:], strict=True))


@dataclass(frozen=True)
class Chosen:
    """The shape that was chosen and why; `at` chooses for another dial by what is known now of speeds."""

    laid: Laid
    choice: Choice
    coarse: Choice  # without the finer experts that the dial has added
    sizes: Sequence[int]

    def again(self, dial: Dial) -> ModelConfig:
        """The shape for another dial on the same cluster, with the same vocabulary."""
        return _laid_out(replace(self.coarse, job=replace(self.coarse.job, dial=dial), laid={}), dial, self.sizes).laid.config

    def at(self, dial: Dial) -> tuple[ModelConfig, float, float]:
        """For another dial: shape, believed tokens a second, FLOPs of a token."""
        config = self.choice.take(dial)
        rung = self.choice.rung(config)
        return config, self.choice.believed(rung), rung.flops


def choose_shape(job: Job, law: Law, worth: Worth | None = None) -> Chosen:
    """Vocabulary, width, depth and number of experts. `worth`: of text that is read again and again. Raises RecipeError where nothing fits."""
    size, recipe = job.recipe.model.size, job.recipe
    sizes = [size.vocabulary_size] if size.vocabulary_size else sorted(recipe.tokenizer.candidates)
    configs = candidates(recipe.model.pattern, size, vocabulary_size=sizes[-1], context=job.context, ladder=(*LADDER, *LARGER))
    first = Choice(job, law, _holdable(job, configs), {}, worth)
    dial, most_flops = job.dial, _most_flops(first) if job.dial.budget.kind == "tokens" else math.inf
    first = replace(first, most_flops=most_flops)
    most = first.lowest(dial) * (1 + PROMISING)
    promising = [item.one.config for item in first.losses(dial) if item.loss <= most] or configs[:1]
    choices = {}
    for value in sizes:
        others = [_rung(job, config.model_copy(update={"vocabulary_size": value})) for config in promising]
        choices[value] = first if value == sizes[-1] else Choice(job, law, others, {}, worth, most_flops)
    options = in_proportion([choice.take(dial) for choice in choices.values()])
    best = best_vocabulary({option: choices[option.vocabulary_size].lowest(dial) for option in options})
    return _laid_out(choices[best.vocabulary_size], dial, sizes)


def _holdable(job: Job, configs: Sequence[ModelConfig]) -> list[Rung]:
    """Those whose states the cluster's memory can hold at all; the smallest where it holds none."""
    memory = MEMORY_SHARE * job.machine.count * job.machine.accelerator.memory_bytes
    rungs = [_rung(job, config) for config in configs]
    return [rung for rung in rungs if STATES * rung.work.num_parameters <= memory] or rungs[:1]


def _most_flops(choice: Choice) -> float:
    """FLOPs of a token in the largest shape that a budget of tokens has use for: that with the lowest loss for the compute that reads so many with it."""
    job, each = choice.job, sorted(rung.flops for rung in choice.rungs)
    tokens, found = job.dial.budget.amount, each[0]
    for step in range(COMPUTES + 1):
        flops = tokens * each[0] * (each[-1] / each[0]) ** (step / COMPUTES)
        best = choice.best(replace(job.dial, budget=Budget(kind="flops", amount=flops)))
        if flops / best.flops <= tokens:
            found = best.flops  # the most compute that asks for no more tokens: rungs are steps, so less may ask for more
    return found


def _laid_out(choice: Choice, dial: Dial, sizes: Sequence[int]) -> Chosen:
    """Lay out what is taken, what is best and what might be taken instead, and take again. Raises RecipeError where nothing that was tried fits."""
    coarse, choice = choice, choice.with_finer(dial)
    job, rungs, error = choice.job, list(choice.rungs), None
    while True:
        now = replace(choice, rungs=rungs)
        taken = now.rung(now.take(dial))
        rung = next((one for one in (taken, now.best(dial), *now.in_doubt(dial, taken)) if one.key not in choice.laid), None)
        if rung is None or len(choice.laid) >= MOST_LAID:
            break
        try:
            choice.laid[rung.key] = job.lay_out(rung.one.config, job.tokens(rung.work, rung.one.config, now.believed(rung)), coarse=True)
        except RecipeError as missing:
            error = error or missing
            # what is asked of the layout may be too much for this shape alone; memory is too little for larger ones, too
            rungs = [other for other in rungs if other is not rung and (job.asked.fields or other.work.num_parameters < rung.work.num_parameters)]
            if not rungs:
                raise error from None
    if taken.key not in choice.laid:
        taken = now.rung(replace(now, rungs=[other for other in rungs if other.key in choice.laid]).take(dial))
    choice.laid[taken.key] = job.settled(job.lay_out(taken.one.config, choice.laid[taken.key].tokens))
    return Chosen(choice.laid[taken.key], now, coarse, sizes)
