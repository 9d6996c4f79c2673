"""What no host holds, or llama.cpp does not where GGUF files are demanded, is refused before anything is read; what is not demanded is left out later."""

import pytest

from hagane.errors import RecipeError
from hagane.plan.held import refuse_unheld, usual_shape
from hagane.recipe.schema import ExtendSettings, ModelSettings, PatternSettings, Recipe, ReleaseSettings, SizeSettings
from toy import hagane, write_recipe

LATENT = {"mixer": "latent", "query_ratio": 0.5, "ffn": "experts", "score": "sigmoid", "balance": "bias", "shared_experts": 1}
AFMOE = {
    "ffn": "experts", "score": "sigmoid", "balance": "bias", "shared_experts": 1, "attention_gate": "sigmoid", "sandwich_norms": True, "window": 32,
    "full_positions": False,
}  # fmt: skip
HYBRID = {"deltas": 3, "attention_gate": "sigmoid"}
CASES = {
    "an unknown host": ({**LATENT, "post_experts_norm": True}, {}, "llama.cpp does not know axk1"),
    "an indexer": ({**LATENT, "index_top_k": 16}, {}, "llama.cpp knows deepseek_v32, but the gguf package"),
    "a published depth": (LATENT, {"num_layers": 27}, "deepseek2 takes a model of 27 layers for one without mixer.query_rank"),
    "weights as they are": ({"ffn": "experts", "normalise": False}, {}, "qwen3moe .* ffn.normalise = false"),
    "dense layers before experts": ({"ffn": "experts", "dense_layers": 1}, {}, "qwen3moe has experts in every layer; layer 0"),
    "a window": ({"window": 32}, {}, "qwen3 has no sliding window; layer 0 has window = 32"),
    "whole layers elsewhere": ({**AFMOE, "full_every": 2}, {}, "full_every = 4.; layer 1 has no window"),
    "a dense hybrid": (HYBRID, {}, "qwen3next has experts in every layer; layer 0"),
}


def judge(pattern, size, gguf, **settings):
    recipe = Recipe(name="toy", model=ModelSettings(pattern=PatternSettings(**pattern)), release=ReleaseSettings(gguf=gguf), **settings)
    refuse_unheld(recipe, usual_shape(recipe, SizeSettings(**size)))


@pytest.mark.parametrize(("pattern", "size", "reason"), CASES.values(), ids=CASES)
def test_gguf_that_llama_cpp_cannot_hold_is_refused_where_it_is_demanded(pattern, size, reason):
    with pytest.raises(RecipeError, match=f"release.gguf = true cannot be done: .*{reason}.*Set it to false, or change model.pattern"):
        judge(pattern, size, True)
    judge(pattern, size, "auto")
    judge(pattern, size, False)


@pytest.mark.parametrize("pattern", ({}, {"ffn": "experts"}, LATENT, AFMOE, {**HYBRID, "ffn": "experts", "shared_experts": 1, "shared_gate": True}))
def test_what_llama_cpp_holds_may_be_demanded(pattern):
    judge(pattern, {}, True)
    judge(pattern, {}, True, extend=ExtendSettings(share=0.2))


def test_a_run_stops_before_its_corpus_is_read(tmp_path):
    settings = ("--set", "model.pattern.normalise=false", "--set", "release.gguf=true")
    done = hagane("run", write_recipe(tmp_path, "experts"), "--out", tmp_path / "run", *settings, check=False)
    assert done.returncode == 2 and "ffn.normalise = false. Set it to false, or change model.pattern" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "corpus").exists()
