"""Response surfaces whose best mixture is known in closed form are recovered; constraints hold; what is noise is not called a gain."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.mixture import Shard
from hagane.errors import RecipeError
from hagane.plan import optimum
from hagane.plan.ladder import Cost, Rung
from hagane.plan.law import GENERAL
from hagane.plan.optimum import Ground, Objective, best_mixture, bounds_of, gain_of
from hagane.plan.proxies import FEWEST, PAIRS, Shape, choose_shape, pairs, proxies, sampled, target_ground, weights_of
from hagane.plan.surface import Proxy, fit_surface
from hagane.recipe.load import validate
from hagane.recipe.types import Machine

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=2e11, bandwidth=2e10, power_watts=31.0, power_source="test")


def names(count):
    return [f"l{index}" for index in range(count)]


def plenty(count, total=1e6, repeats=4.0):
    return Ground(dict.fromkeys(names(count), 1e9), {}, {}, total, repeats)


def power_law(slopes, noise=0.0, level=2.0):
    """Bits per byte that fall with a power of a language's own share."""

    def bits(shares, generator):
        return {name: level * (shares[name] * len(slopes)) ** -slope * math.exp(noise * generator.standard_normal()) for name, slope in slopes.items()}

    return bits


def run_proxies(bits, count, mixtures=40, repeats=3, seed=0):
    unimax = dict.fromkeys(names(count), 1 / count)
    generator = np.random.default_rng(seed)
    made = [unimax] * repeats + sampled(unimax, mixtures, seed)
    return unimax, [Proxy(shares, bits(shares, generator)) for shares in made]


def test_the_mean_of_power_laws_has_its_closed_form_optimum():
    """Minimise sum L_i with L_i = c (n r_i)^-b_i: b_i L_i / r_i is the same for all languages."""
    slopes = {"l0": 0.05, "l1": 0.1, "l2": 0.2, "l3": 0.4}
    unimax, ran = run_proxies(power_law(slopes), 4)
    surface = fit_surface(ran, unimax)
    assert surface.form.name.startswith("own text") and surface.error < 0.002 < surface.constant_error
    rates = best_mixture(surface, Objective.of("mean", {}, names(4)), plenty(4), unimax)
    marginal = [slopes[name] * 2 * (4 * rate) ** -slopes[name] / rate for name, rate in rates.items()]
    assert max(marginal) / min(marginal) < 1.1 and sum(rates.values()) == pytest.approx(1)
    assert rates["l3"] > 2 * rates["l0"]
    truth = [np.mean(list(power_law(slopes)(mix, np.random.default_rng(0)).values())) for mix in (unimax, rates)]
    gain = gain_of(surface, Objective.of("mean", {}, names(4)), plenty(4), unimax, rates)
    assert gain.value == pytest.approx(1 - truth[1] / truth[0], abs=0.003) and gain.low > 0.01


def test_weights_that_follow_the_slopes_are_found_with_noise_of_training():
    slopes = dict(zip(names(6), (0.05, 0.05, 0.1, 0.1, 0.3, 0.3), strict=True))
    unimax, ran = run_proxies(power_law(slopes, noise=0.006), 6)
    surface, goal = fit_surface(ran, unimax), Objective.of("mean", {}, names(6))
    rates = best_mixture(surface, goal, plenty(6), unimax)
    exact = [np.mean(list(power_law(slopes)(mix, np.random.default_rng(0)).values())) for mix in (unimax, rates)]
    gain = gain_of(surface, goal, plenty(6), unimax, rates)
    assert gain.low < 1 - exact[1] / exact[0] < gain.high and gain.low > 0


def test_the_worst_language_is_levelled():
    """With equal slopes and levels c_i the least worst loss has all losses equal: r_i as c_i^(1/b)."""
    level = {"l0": 2.0, "l1": 2.1, "l2": 2.3}

    def bits(shares, generator):
        return {name: level[name] * (3 * shares[name]) ** -0.2 for name in level}

    unimax, ran = run_proxies(bits, 3)
    rates = best_mixture(fit_surface(ran, unimax), Objective.of("worst", {}, names(3)), plenty(3), unimax)
    total = sum(value**5 for value in level.values())
    assert rates == pytest.approx({name: value**5 / total for name, value in level.items()}, abs=0.01)


def test_a_weighted_objective_reads_more_of_what_is_important():
    slopes = dict.fromkeys(names(3), 0.2)
    unimax, ran = run_proxies(power_law(slopes), 3)
    surface = fit_surface(ran, unimax)
    rates = best_mixture(surface, Objective.of("weighted", {"l0": 4.0, "l1": 1.0, "l2": 1.0}, names(3)), plenty(3), unimax)
    assert rates["l0"] / rates["l1"] == pytest.approx(4 ** (1 / 1.2), rel=0.05)  # w b c r^-b / r equal for all: r as w^(1 / (1 + b))
    assert rates["l1"] == pytest.approx(rates["l2"], rel=0.02)


def test_a_language_that_helps_another_is_read_more():
    """The second learns from the first nearly as much as from itself, and nobody from the third."""

    def bits(shares, generator=None):
        learned = {"l0": shares["l0"], "l1": shares["l1"] + 0.9 * shares["l0"], "l2": shares["l2"]}
        return {name: 2 * (3 * share) ** -0.3 for name, share in learned.items()}

    def mean(shares):
        return np.mean(list(bits(shares).values()))

    unimax, ran = run_proxies(bits, 3, mixtures=60)
    rates = best_mixture(fit_surface(ran, unimax), Objective.of("mean", {}, names(3)), plenty(3), unimax)
    grid = [{"l0": a, "l1": b, "l2": 1 - a - b} for a in np.linspace(0.1, 0.8, 71) for b in np.linspace(0.08, 0.8, 73) if a + b < 0.95]
    best = min(grid, key=mean)
    assert rates["l0"] > 1.5 * rates["l1"] and best["l0"] > 1.5 * best["l1"]
    assert mean(rates) < mean(unimax) - 0.8 * (mean(unimax) - mean(best))


def test_where_mixtures_do_not_matter_a_gain_is_rarely_claimed():
    claims = 0
    for seed in range(20):
        unimax, ran = run_proxies(power_law(dict.fromkeys(names(5), 0.0), noise=0.006), 5, mixtures=20, seed=seed)
        surface, goal = fit_surface(ran, unimax, seed=seed, draws=100), Objective.of("mean", {}, names(5))
        rates = best_mixture(surface, goal, plenty(5), unimax)
        truly = run_proxies(power_law(dict.fromkeys(names(5), 0.0), noise=0.006), 5, mixtures=0, seed=seed + 1000)[1]
        check = [Proxy(rates, truly[index].bits_per_byte) for index in range(PAIRS)]  # as the search does: the mixture is trained on before it counts
        surface = fit_surface([*ran, *check], unimax, seed=seed, draws=100)
        claims += gain_of(surface, goal, plenty(5), unimax, rates, (PAIRS, PAIRS)).low > 0
    assert claims <= 1


def test_the_interval_is_never_less_than_what_the_trained_pairs_could_tell():
    slopes = dict(zip(names(4), (0.05, 0.1, 0.2, 0.4), strict=True))
    unimax, ran = run_proxies(power_law(slopes, noise=0.01), 4, mixtures=12)
    surface, goal = fit_surface(ran, unimax), Objective.of("mean", {}, names(4))
    rates = best_mixture(surface, goal, plenty(4), unimax)
    gains = [gain_of(surface, goal, plenty(4), unimax, rates, trained) for trained in (None, (3, 300), (3, 3), (3, 1))]
    widths = [gain.high - gain.low for gain in gains]
    assert widths == sorted(widths) and len({gain.value for gain in gains}) == 1
    noise = math.sqrt(np.mean((surface.residual_NL.mean(1)) ** 2))
    assert widths[2] >= 2 * 1.96 * 0.8 * noise * math.sqrt(2 / 3)


def test_more_of_its_own_text_never_harms_a_language():
    unimax, ran = run_proxies(lambda shares, generator: {name: 2 * (3 * share) ** 0.2 for name, share in shares.items()}, 3)
    surface = fit_surface(ran, unimax)
    slopes_LF = surface.weights_DLF[0, :, 1:4] + surface.weights_DLF[0, :, 4:]
    assert all(slopes_LF[language, surface.domains.index(name)] <= 1e-6 for language, name in enumerate(surface.languages))


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.floats(1e3, 1e9), min_size=2, max_size=6), total=st.floats(1e4, 1e8), repeats=st.floats(1, 6),
    kind=st.sampled_from(["mean", "worst"]), fixed=st.booleans(),
)  # fmt: skip
def test_shares_sum_to_one_and_repeats_are_bounded(sizes, total, repeats, kind, fixed):
    recipe = recipe_with(repeats, fixed)
    text = {f"web.l{index}": Shard("web", f"l{index}", size) for index, size in enumerate(sizes)}
    if fixed:
        text["code.py"] = Shard("code", "py", 1e6)
    space, unimax = target_ground(recipe, text, total)
    slopes = {name: 0.05 * (1 + index) for index, name in enumerate(sorted(unimax))}
    _, ran = run_proxies(power_law(slopes), len(sizes), mixtures=12)
    surface = fit_surface([Proxy(proxy.shares, proxy.bits_per_byte) for proxy in ran], dict.fromkeys(names(len(sizes)), 1 / len(sizes)), draws=2)
    rates = best_mixture(surface, Objective.of(kind, {}, sorted(unimax)), space, unimax)
    assert sum(rates.values()) == pytest.approx(1, abs=1e-6)
    for name, rate in rates.items():
        low, high = bounds_of(space, unimax)[name]
        assert low * (1 - 1e-6) <= rate <= high * (1 + 1e-6)
        assert rate * space.rest * total <= max(repeats * space.unique[name], unimax[name] * space.rest * total) * (1 + 1e-6)


def recipe_with(repeats=4.0, fixed=False, **settings):
    sources = [{"name": "web", "path": "a"}] + ([{"name": "code", "path": "b", "share": 0.2}] if fixed else [])
    return validate({"name": "toy", "budget": "30min", "corpus": {"sources": sources, "max_repeats": repeats}, **settings}, "test")


def test_a_fixed_source_is_not_mixed_and_one_language_is_refused():
    text = {"web.sv": Shard("web", "sv", 1e7), "web.fi": Shard("web", "fi", 2e6), "code.sv": Shard("code", "sv", 1e6)}
    space, unimax = target_ground(recipe_with(fixed=True), text, 4e6)
    assert space.fixed == {"sv": pytest.approx(0.2)} and space.rest == pytest.approx(0.8) and unimax == pytest.approx({"sv": 0.5, "fi": 0.5})
    effective = space.effective({"sv": 0.25, "fi": 0.75})
    assert effective["sv"] == pytest.approx(0.2 + 0.8 * 0.25) and sum(effective.values()) <= 1 + 1e-9
    with pytest.raises(RecipeError, match=r"nothing to mix: the only language .* is sv\. Give text of two languages"):
        target_ground(recipe_with(), {"web.sv": text["web.sv"]}, 4e6)


def test_samples_stay_the_same_when_there_are_more_of_them():
    unimax = {"sv": 0.45, "fi": 0.45, "se": 0.1}
    few, many = sampled(unimax, 5, 3), sampled(unimax, 60, 3)
    assert many[:5] == few and all(sum(mix.values()) == pytest.approx(1) for mix in many)
    assert np.mean([mix["se"] for mix in many]) == pytest.approx(0.1, abs=0.04) and np.std([mix["sv"] for mix in many]) > 0.12


def test_proxies_are_the_baseline_in_several_seeds_and_then_samples():
    unimax = {"sv": 0.6, "fi": 0.4}
    shape = Shape(Rung(width=32, num_layers=1, ffn="dense", vocabulary_size=300, tokens=1000), Cost(1.0, False), 4)
    runs = proxies(shape, unimax, 0)
    assert len(runs) == PAIRS + 4 and len({run.name for run in runs}) == len(runs)
    assert [run.weights for run in runs[:PAIRS]] == [weights_of(unimax)] * PAIRS == [{"fi": 0.8, "sv": 1.2}] * PAIRS
    checks = pairs(runs[0], {"sv": 0.5, "fi": 0.5})
    assert [run.model_copy(update={"weights": runs[0].weights}) for run in checks] == runs[:PAIRS]


def test_a_larger_budget_buys_larger_proxies_and_a_small_one_is_refused_with_the_least_that_works():
    recipe, shared = recipe_with(), {"scored_bytes": 6e5, "text_bytes": 5e7, "spent": 10.0}
    shapes = [choose_shape(recipe, MACHINE, GENERAL, seconds, 2048, 5, **shared) for seconds in (1800.0, 14400.0)]
    assert shapes[1].cost.seconds > shapes[0].cost.seconds and shapes[0].count == 20
    assert all(shape.rung.ffn == recipe.model.pattern.ffn for shape in shapes)
    assert shapes[0].cost.seconds * (shapes[0].count + 2 * PAIRS) < 1800
    with pytest.raises(RecipeError, match=r"too small for 12 mixtures .* Give --budget (\w+) or more") as refused:
        choose_shape(recipe, MACHINE, GENERAL, 60.0, 2048, 5, **shared)
    from hagane.recipe.types import Budget

    least = Budget.parse(str(refused.value).split("--budget ")[1].split(" ")[0]).amount
    assert choose_shape(recipe, MACHINE, GENERAL, least - 10.0, 2048, 5, **shared).count >= FEWEST
    with pytest.raises(RecipeError, match="the smallest proxy reads"):
        choose_shape(recipe, MACHINE, GENERAL, 1800.0, 2048, 5, scored_bytes=6e5, text_bytes=1e4, spent=0.0)


def test_the_reach_is_where_proxies_were():
    unimax = dict.fromkeys(names(4), 0.25)
    for mix in sampled(unimax, 200, 1):
        assert all(1 / optimum.REACH / 1.8 < mix[name] / 0.25 <= 4 for name in unimax)
