"""The batch of a budget of time: what a step costs whatever it reads, weighed by the loss law."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.plan.batch import MAX_ROWS_TOKENS, PENALTY, by_time, by_tokens, most_rows, step_law_batch
from hagane.plan.law import GENERAL, Point
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine, StepRate

MACHINE = Machine(name="two cores", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=50.0, power_source="a test")


def recipe(*sets: str):
    return load_recipe("nordic", ["corpus.sources=[]", *sets])[0]


def loss(tokens: float) -> float:
    return GENERAL.constants.loss(Point(1.2e6, 4e6, 2.6 * tokens, 4096))


def timed(fixed: float, each: float):
    def time_rows(rows: int) -> StepRate:
        seconds = fixed + rows * each
        return StepRate(tokens_per_second=rows * 256 / seconds, step_seconds=seconds, compile_seconds=0.0)

    return time_rows


@given(seconds=st.floats(20, 1e5), fixed=st.floats(0, 0.2), each=st.floats(1e-3, 0.1))
def test_no_other_power_of_two_has_a_lower_expected_loss(seconds: float, fixed: float, each: float) -> None:
    most = most_rows(recipe(), MACHINE)
    chosen = by_time(recipe(), MACHINE, seconds, most, loss, timed(fixed, each))
    assert chosen is not None and most == MAX_ROWS_TOKENS["cpu"] // 256

    def expected(rows: int) -> float:
        tokens = seconds * rows * 256 / (rows * each + fixed * math.ceil(rows / most))
        return loss(tokens) * (1 + PENALTY * math.log2(rows * 256 / step_law_batch(tokens)) ** 2)

    total = chosen.rows * chosen.accumulation
    assert chosen.rows <= most
    for other in (total // 2, 2 * total):
        if 1 <= other <= 8 * most:
            assert expected(total) <= expected(other) * (1 + 1e-9)


def test_steps_that_cost_nothing_by_themselves_have_step_laws_batch() -> None:
    free = by_time(recipe(), MACHINE, 300.0, 32, loss, timed(0.0, 0.0125))
    rule = by_tokens(recipe(), MACHINE, 300.0 * 256 / 0.0125)
    assert free is not None and (free.rows, free.accumulation) == (rule.rows, rule.accumulation)


def test_what_a_step_costs_whatever_it_reads_makes_batches_larger() -> None:
    rows = [by_time(recipe(), MACHINE, 100.0, 32, loss, timed(fixed, 0.0125)).rows for fixed in (0.0, 0.06, 0.5)]
    assert rows == sorted(rows) and rows[0] < rows[1] < rows[2]


@pytest.mark.parametrize("sets", [("train.rows=4",), ("train.rows=4", "train.accumulation=2")])
def test_the_recipes_own_batch_stays(sets: tuple[str, ...]) -> None:
    chosen = by_tokens(recipe(*sets), MACHINE, 1e6)
    assert (chosen.rows, chosen.accumulation) == (4, 2 if len(sets) == 2 else 1) and "as the recipe says" in chosen.reason


def test_where_nothing_can_be_timed_there_is_no_choice_by_time() -> None:
    assert by_time(recipe(), MACHINE, 100.0, 32, loss, lambda rows: None) is None
    assert by_time(recipe("train.context=8192"), MACHINE, 100.0, 1, loss, timed(0.1, 1.0)) is None  # one row is all that fits
