"""`hagane mix` at toy size: real runs of a second, killed and gone on with, and what is found in the plan, in a run and in the report."""

import json
import time

import pytest

from hagane import cli
from hagane.errors import RecipeError, RunError
from hagane.measure import mix as mix_module
from hagane.measure import small_runs
from hagane.measure.mix import _prepared, find
from hagane.plan import proxies as proxies_module
from hagane.plan.found import find_mixture, keep_mixture, mixture_page, mixture_path, with_mixture
from hagane.plan.ladder import Cost, Rung
from hagane.plan.proxies import Shape
from hagane.preview import preview
from hagane.report.page import render
from hagane.run import create, walk
from measure.test_ladder import MACHINE, recipe_of, texts


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    texts(folder / "texts")
    return folder


def small(patch):
    """Six mixtures on proxies of half a second."""
    rung = Rung(width=16, num_layers=1, ffn="experts", vocabulary_size=300, tokens=2000)
    patch.setattr(mix_module, "choose_shape", lambda *_, **__: Shape(rung, Cost(0.5, False), 6))
    patch.setattr(mix_module, "FEWEST", 6)
    patch.setattr(mix_module, "best_mixture", lambda *_: {"smj": 0.4, "sv": 0.6})  # so that there is one to check
    patch.setattr(proxies_module, "PAIRS", 2)
    patch.setattr(mix_module, "PAIRS", 2)


def opened(home, folder, budget="80s", **mix):
    recipe = recipe_of(home / "texts", budget)
    recipe = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"rule": "unimax", **mix})})
    return create(folder, recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None)


@pytest.fixture(scope="module")
def searched(home):
    """A search that is killed at its third proxy and gone on with: what was trained in each part, and what was found."""
    trained, real = [], small_runs.train_rung
    with pytest.MonkeyPatch.context() as patch:
        small(patch)

        def killed_at_the_third(ground, rung, **options):
            if len(trained) == 2:
                raise KeyboardInterrupt
            trained.append(rung.name)
            return real(ground, rung, **options)

        patch.setattr(small_runs, "train_rung", killed_at_the_third)
        with opened(home, home / "run") as run, pytest.raises(KeyboardInterrupt):
            find(run, 600.0)
        first = trained[:]
        trained.clear()
        patch.setattr(small_runs, "train_rung", lambda ground, rung, **options: (trained.append(rung.name), real(ground, rung, **options))[1])
        with opened(home, home / "run") as run:
            found = find(run, 600.0)
        second = trained[:]
        trained.clear()
        with opened(home, home / "run") as run:
            again = find(run, 600.0)
    return first, second, trained, found, again


def test_a_search_that_is_killed_goes_on_and_finds_the_same_again(searched, home):
    first, second, third, found, again = searched
    assert len(first) == 2 and not set(first) & set(second) and third == []
    assert len(first) + len(second) == 6 + 2 + 2 and found.pairs == 2 and found.weights == {"smj": 0.8, "sv": 1.2}
    assert again == found and json.loads((home / "run" / "mixture.json").read_text())["weights"] == found.weights
    assert set(found.languages) == {"sv", "smj"} and sum(item.found for item in found.languages.values()) == pytest.approx(1)
    assert len([proxy for proxy in found.proxies if proxy.kind == "unimax"]) >= 2
    assert not list((home / "run" / "mix").glob("text-*")) and not list((home / "run" / "mix").glob("runs/*/weights.safetensors"))
    lines, facts = mixture_page(found)
    assert any("expected gain over UniMax" in line for line in lines) and facts["gains"] == found.gains


def test_a_mixture_that_gains_is_read_by_plan_and_run_of_the_same_text_and_objective(searched, home, tmp_path):
    found = searched[3].model_copy(update={"gain": 0.03, "low": 0.01, "high": 0.05, "measured_gain": 0.02, "weights": {"sv": 1.5, "smj": 0.5}})
    path = keep_mixture(found)
    try:
        recipe = recipe_of(home / "texts", "10min")
        lines, facts = preview(recipe, ())
        assert "found by hagane mix" in facts["mixture"] and any("proxies expect 3.0 % (1.0 to 5.0 %)" in line for line in lines)
        worst = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"objective": "worst"})})
        assert find_mixture(worst) is None
        off = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"rule": "unimax"})})
        assert find_mixture(off) is None and "equal shares" in preview(off, ())[1]["mixture"]
        with create(tmp_path / "run", recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run:
            assert run.recipe.mix.weights == found.weights and (tmp_path / "run" / "mixture.json").exists()
            small_recipe = run.recipe
        path.unlink()  # the folder keeps what it was made with
        with create(tmp_path / "run", recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run:
            assert run.recipe.mix == small_recipe.mix
        assert "Mixture found by experiment" in render(tmp_path / "run") and "The run uses it." in render(tmp_path / "run")
    finally:
        path.unlink(missing_ok=True)


def test_where_nothing_is_gained_unimax_stays_and_the_plan_says_so(searched, home):
    found = searched[3].model_copy(update={"gain": 0.002, "low": -0.004, "high": 0.009, "measured_gain": 0.001})
    recipe = with_mixture(recipe_of(home / "texts"), found)
    assert recipe.mix.weights == {} and "no gain here" in recipe.mix.reason and "0.2 % (-0.4 to 0.9 %)" in recipe.mix.reason
    assert not found.model_copy(update={"low": 0.001, "pairs": 1}).gains and found.model_copy(update={"low": 0.001}).gains
    disagreed = found.model_copy(update={"low": 0.001, "measured_gain": -0.01})
    assert not disagreed.gains and "No gain here" in mixture_page(disagreed)[0][-1]


def test_the_weights_reach_the_plan_of_a_run(home, tmp_path):
    recipe = recipe_of(home / "texts", "204800tokens")
    recipe = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"weights": {"sv": 3.0}})})
    recipe = recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"max_repeats": 100.0})})
    with create(tmp_path / "run", recipe, "", MACHINE, ("model.size.width",), started=time.monotonic(), say=lambda text: None) as run:
        walk(run, until="plan", report=False)
        facts = run.facts("plan")
    assert facts["mixture"]["corpus.sv"] > facts["mixture"]["corpus.smj"] and "as the recipe says" in facts["reasons"]["mixture"]
    unknown = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"weights": {"xx": 3.0}})})
    refused = pytest.raises(RecipeError, match=r"mix.weights names xx, which no document is in \(smj, sv\)")
    with create(tmp_path / "run", unknown, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run, refused:
        walk(run, until="plan", report=False)


def test_another_target_has_the_whole_budget_once_more(searched, home):
    """Of the budget nothing is left: for the target it was spent on the search stays as it is, for another one it begins anew."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        for target, anew in ((600.0, False), (900.0, True)):
            with opened(home, home / "run") as run:
                run.clock._before += 200
                assert (_prepared(run, target).design.key.endswith(" 900.0"), run.clock.spent() < 80) == (anew, anew)


def test_what_cannot_be_searched_is_refused_in_a_sentence(home, tmp_path):
    with opened(home, tmp_path / "tokens", "300000tokens") as run, pytest.raises(RecipeError, match="hagane mix is bounded by time"):
        find(run)
    with opened(home, tmp_path / "text", "70s") as run, pytest.raises(RecipeError, match="the smallest proxy reads"):
        find(run)
    refused = pytest.raises(RecipeError, match=r"mix\.importance names xx, of which no text is held out")
    with opened(home, tmp_path / "text", "70s", objective="weighted", importance={"xx": 1.0}) as run, refused:
        find(run)


def test_files_that_cannot_be_used_are_refused_in_a_sentence(searched, home):
    found, recipe = searched[3], recipe_of(home / "texts")
    path = mixture_path(found.paths, found.corpus, "mean", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for broken in ("{", found.model_dump_json()[:-200]):
            path.write_text(broken, encoding="utf-8")
            with pytest.raises(RunError, match=r"is damaged or of another version .* Delete it to go on with UniMax"):
                find_mixture(recipe)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": {"sv": 0.0}}, "not a positive number"),
        ({"objective": "weighted"}, "needs importance"),
        ({"importance": {"sv": 1.0}}, "importance is of objective = 'weighted'"),
        ({"objective": "weighted", "importance": {"sv": -1.0}}, "must be 0 or more"),
    ],
)
def test_settings_that_contradict_are_refused(settings, said):
    from hagane.recipe.load import validate

    with pytest.raises(RecipeError, match=said):
        validate({"name": "toy", "mix": settings}, "test")


def test_the_command_says_what_it_needs(home, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hagane", "mix", "nordic", "--corpus", str(home / "texts"), "--budget", "10s", "--out", str(home / "cli")])
    with pytest.raises(SystemExit):
        cli.main()
    assert "The smallest useful one" in capsys.readouterr().err
