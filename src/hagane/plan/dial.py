"""What a budget buys on a cluster: from the one dial and a speed, tokens, seconds, joules and dollars. Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hagane.errors import RecipeError
from hagane.plan.limits import refuse_endless
from hagane.plan.machines import Cluster
from hagane.plan.sketch import MINIMUM_STEPS, MINIMUM_TRAINING_SECONDS
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget

# Share of a run's hours in which it trains, where the recipe says no other: "over 90 %" (Llama team 2024, arXiv 2407.21783, section 3.3.4). Restarts,
# checkpoints, evaluation and waiting take the rest.
GOODPUT = 0.9
LEAST_BATCH = 2048  # tokens: of the smallest budget


@dataclass(frozen=True)
class Dial:
    """A budget on a cluster, and what it has to pay for besides: hours without training, and `serve_tokens` that are read and written afterwards."""

    budget: Budget
    machine: Cluster
    goodput: float = GOODPUT
    serve_tokens: float = 0.0
    price: float | None = None  # US dollars an hour of the whole cluster costs

    @classmethod
    def of(cls, recipe: Recipe, machine: Cluster, serve_tokens: float = 0.0) -> Dial:
        """The recipe's dial. Raises RecipeError where it has none, or where the table lacks what it is counted in."""
        if recipe.budget is None and recipe.train.tokens is None:
            raise RecipeError(
                f"recipe {recipe.name} says neither how long nor how many tokens to train on {machine}. Give --budget, for example 21d or 1Ttokens."
            )
        budget = Budget.parse(recipe.budget) if recipe.budget else Budget(kind="tokens", amount=recipe.train.tokens or 0)
        if budget.kind == "energy" and machine.accelerator.watts is None:
            raise RecipeError(
                f"the maker of {machine.accelerator.name} publishes no power, so a budget of energy cannot be planned on it. Give time, money or tokens."
            )
        price = recipe.execution.price_per_hour or machine.price_per_hour
        if budget.kind == "money" and price is None:
            raise RecipeError(
                f"{machine.accelerator.name} is not rented by the hour, so a budget of money needs the price of an hour of {machine}: "
                "--set execution.price_per_hour=2.5 (US dollars). Or give time, energy or tokens."
            )
        if serve_tokens and budget.kind in ("tokens", "flops"):
            raise RecipeError("--serve-tokens divides a budget between training and serving. Give --budget as time, energy or money, for example 21d.")
        return cls(budget, machine, recipe.execution.goodput or GOODPUT, serve_tokens, price)

    @property
    def hours_count(self) -> bool:
        """Whether the budget is used up by the hour: time, energy, money."""
        return self.budget.kind not in ("tokens", "flops")

    @property
    def budget_seconds(self) -> float:
        """Of a budget of time, energy or money."""
        if self.budget.kind == "energy":
            return self.budget.amount / ((self.machine.accelerator.watts or 0.0) * self.machine.count)
        if self.budget.kind == "money":
            return self.budget.amount / (self.price or 0.0) * 3600
        return self.budget.amount

    def tokens(self, tokens_per_second: float, flops_per_token: float) -> float:
        """Training tokens that it buys at a speed while training. A token that is served costs a forward pass, a third of one that is trained on."""
        if self.budget.kind == "tokens":
            return self.budget.amount
        if self.budget.kind == "flops":
            return self.budget.amount / flops_per_token
        return self.budget_seconds * self.goodput * tokens_per_second - self.serve_tokens / 3

    def seconds(self, tokens: float, tokens_per_second: float) -> float:
        """Seconds, those without training among them, that so many training tokens take."""
        return tokens / (tokens_per_second * self.goodput)

    def enough(self, tokens: float, tokens_per_second: float, flops_per_token: float) -> Budget:
        """The budget of its kind that buys so many training tokens, beside what is served."""
        amounts = {"tokens": tokens, "flops": tokens * flops_per_token}
        spent = self.seconds(tokens + self.serve_tokens / 3, tokens_per_second)
        return Budget(kind=self.budget.kind, amount=rounded_up(amounts.get(self.budget.kind) or self.budget.amount * spent / self.budget_seconds))

    def joules(self, seconds: float) -> float | None:
        """At board power, all the time; None where the maker publishes none."""
        watts = self.machine.accelerator.watts
        return None if watts is None else seconds * watts * self.machine.count

    def dollars(self, seconds: float) -> float | None:
        """None where no price is known."""
        return None if self.price is None else seconds / 3600 * self.price

    def refuse_absurd(self, bought: float, tokens: float, tokens_per_second: float, flops_per_token: float, least_batch: int) -> None:
        """Raises RecipeError where the tokens that are `bought` teach nothing, with the smallest useful budget, and where the `tokens` of them for which
        there is text take for ever.

        `least_batch`: tokens of the smallest step that this cluster can take.
        """
        least = float(MINIMUM_STEPS * max(LEAST_BATCH, least_batch))
        if self.hours_count:
            least = max(least, MINIMUM_TRAINING_SECONDS * tokens_per_second)
        if bought < least:
            served = f" after serving {self.serve_tokens:g} tokens" if self.serve_tokens else ""
            raise RecipeError(
                f"A budget of {self.budget} is too small to learn anything on {self.machine}{served}: it takes {MINIMUM_STEPS} optimizer steps, here of "
                f"{max(LEAST_BATCH, least_batch):,} tokens or more{f', and {MINIMUM_TRAINING_SECONDS:g}s of training' * self.hours_count}. "
                f"The smallest useful one for this recipe is about {self.enough(least, tokens_per_second, flops_per_token)}."
            )
        refuse_endless(self.seconds(tokens, tokens_per_second), self.budget)


def rounded_up(value: float) -> float:
    """To two digits: budgets as people write them."""
    unit = 10 ** (math.floor(math.log10(value)) - 1)
    return float(math.ceil(value / unit) * unit)
