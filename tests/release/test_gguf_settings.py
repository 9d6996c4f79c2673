"""What the recipe says about GGUF decides: demanded and impossible is an error, left out is said."""

from types import SimpleNamespace

import pytest

from hagane import run as running
from hagane.errors import RunError
from hagane.hosts import gguf as tools
from hagane.recipe.schema import Recipe, ReleaseSettings
from hagane.release import stage
from toy_models import toy_config


@pytest.fixture
def without_xllamacpp(monkeypatch):
    found = tools.importlib.util.find_spec
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else found(name))


def run_with(gguf, facts=None):
    return SimpleNamespace(recipe=Recipe(name="toy", release=ReleaseSettings(gguf=gguf)), record=lambda name: facts and {"facts": facts})


def test_auto_without_the_packages_says_what_to_install(without_xllamacpp, tmp_path):
    skipped = stage._gguf(run_with("auto"), tmp_path, toy_config(), {}).skipped
    assert skipped == "xllamacpp is not installed: `pip install 'hagane[edge]'`"
    headline = running.headline("release", {"host": "qwen3", "max_logit_gap": 1e-6, "gguf": {"files": [], "skipped": skipped}})
    assert headline == f"qwen3: transformers agrees within 1.0e-06; no GGUF: {skipped}"
    assert list(tmp_path.iterdir()) == []


def test_false_leaves_them_out_and_auto_says_why_a_model_does_not_fit(tmp_path):
    assert "release.gguf = false" in stage._gguf(run_with(False), tmp_path, toy_config(), {}).skipped
    config = toy_config("experts")
    layers = tuple(layer.model_copy(update={"ffn": layer.ffn.model_copy(update={"normalise": False})}) for layer in config.layers)
    assert "ffn.normalise" in stage._gguf(run_with("auto"), tmp_path, config.model_copy(update={"layers": layers}), {}).skipped


def test_true_without_the_packages_is_refused_before_anything_is_spent(without_xllamacpp):
    with pytest.raises(RunError, match=r"release.gguf = true, but xllamacpp is not installed: `pip install 'hagane\[edge\]'`"):
        running.check_release(run_with(True).recipe)
    running.check_release(run_with("auto").recipe)


def test_files_are_made_once_the_packages_are_there_and_stay_where_they_are_missing(without_xllamacpp, monkeypatch):
    skipped, made = {"gguf": {"files": [], "skipped": "not installed"}}, {"gguf": {"files": [{}], "skipped": ""}}
    keys = {name: running.derived(run_with("auto", facts), "release") for name, facts in (("never", None), ("skipped", skipped), ("made", made))}
    monkeypatch.undo()
    after = {name: running.derived(run_with("auto", facts), "release") for name, facts in (("skipped", skipped), ("made", made))}
    assert keys["never"] == keys["skipped"] != after["skipped"], "skipped ones are made now"
    assert keys["made"] == after["made"] == after["skipped"]


def test_the_headline_says_how_far_a_fixed_number_of_keys_is_from_our_own_form():
    facts = {"host": "deepseek_v32", "max_logit_gap": 1e-6, "form_logit_gap": 0.321, "gguf": {}}
    assert running.headline("release", facts) == "deepseek_v32: transformers agrees within 1.0e-06; with a fixed number of keys 3.2e-01 from our own form"
    assert running.headline("release", facts | {"form_logit_gap": None}) == "deepseek_v32: transformers agrees within 1.0e-06"


def test_the_headline_names_the_files_with_size_and_gap():
    half = {"file": "n-f16.gguf", "quantisation": "f16", "bytes": 3_700_000, "max_logprob_gap": 0.0126, "kl_bits_per_token": 1e-7}
    eight = {"file": "n-q8_0.gguf", "quantisation": "q8_0", "bytes": 2_000_000, "max_logprob_gap": 0.2, "kl_bits_per_token": 4e-4}
    text = running.headline("release", {"host": "qwen3", "max_logit_gap": 1e-6, "gguf": {"files": [half, eight], "skipped": ""}})
    assert text.endswith("; llama.cpp within 1.3e-02 (n-f16.gguf, 3.7 MB), 4.0e-04 bits per token away (n-q8_0.gguf, 2.0 MB)")
