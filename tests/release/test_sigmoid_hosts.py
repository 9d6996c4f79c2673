"""Releases of models with sigmoid experts, selection biases, windows and gates: loaded by transformers, and by us, as they were trained."""

import pytest
import torch

from hagane.engine.load import load_huggingface
from hagane.errors import RunError
from hagane.hosts import exported_form
from hagane.model.decoder import Decoder
from hagane.model.latent import LatentAttention
from hagane.model.sequence import Sequence
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.release.huggingface import release_huggingface
from hagane.tokenizer.save import save_for_transformers
from toy_hosts import CONFIGS, DENSE, GROUPED, INDEX, latent, layers, masters, model
from toy_models import toy_tokenizer

pytest.importorskip("transformers")

EXPERTS = {"ffn": "experts", "num_experts": 4, "score": "sigmoid", "balance": "bias", "shared_experts": 1, "dense_layers": 1, "aux_coefficient": 0.0}
PATTERNS = {
    "glm4_moe": {**EXPERTS, "rotary_share": 0.5, "num_groups": 2, "top_groups": 2, "scaling": 1.5},
    "deepseek_v32": {**EXPERTS, "mixer": "latent", "query_ratio": 0.5, "index_top_k": 12, "index_heads": 8, "index_share": 0.5},
    "afmoe": {**EXPERTS, "window": 8, "full_every": 3, "full_positions": False, "attention_gate": "sigmoid", "sandwich_norms": True, "scaled_embedding": True},
}


@pytest.mark.parametrize("host", PATTERNS)
def test_a_release_loads_as_any_model_does(tmp_path, host):
    pattern = PatternSettings(head_dim=8, init_std=0.3, **PATTERNS[host])
    config = shape(pattern, SizeSettings(), width=32, num_layers=3, vocabulary_size=320, context=192)
    decoder = Decoder(config)
    decoder.init_weights(0)
    for bias in decoder.selection_biases().values():
        bias.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    state = {**{name: parameter.detach() for name, parameter in decoder.named_parameters()}, **decoder.selection_biases()}
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    facts = release_huggingface(state, config, tmp_path / "encode", tmp_path / "release")
    assert facts.host == host and facts.greedy_equal and facts.max_logit_gap <= 1e-4 * max(1, facts.largest_logit)
    loaded, again = load_huggingface(tmp_path / "release")
    assert again == exported_form(config).model_copy(update={"embedding_std": None})  # how a model began is nothing a host holds
    if exported_form(config) == config:
        assert facts.form_logit_gap is None
    else:  # ours reads as few keys as hold half of the indexer's probability, theirs always twelve
        assert facts.form_logit_gap > 10 * facts.max_logit_gap
    for name, bias in decoder.selection_biases().items():
        assert torch.equal(loaded.selection_biases()[name], bias), "not rounded"


def of_few_heads():
    """Many keys score exactly zero, because the one head turns away from them: which of those are read is the library's choice."""
    mixer = latent(index=INDEX.model_copy(update={"num_heads": 1}))
    return model(layers(mixer, DENSE, GROUPED, GROUPED), init_std=0.3)


def test_where_keys_tie_text_is_the_same_token_for_token(tmp_path):
    config = of_few_heads()
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    facts = release_huggingface(masters(config), config, tmp_path / "encode", tmp_path / "release")
    assert facts.greedy_equal and facts.greedy_tokens > 300, "nothing was left out because of ties"


def test_a_model_with_indexers_that_decodes_otherwise_than_transformers_is_found(tmp_path, monkeypatch):
    """Logits of whole texts agree; read from the cache, each query gets one key too few."""
    original = LatentAttention.gathered
    monkeypatch.setattr(LatentAttention, "gathered", lambda self, *args: original(self, *args[:-1], args[-1] - 1))
    config = CONFIGS["deepseek_v32"].model_copy(update={"init_std": 0.3})
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    with pytest.raises(RunError, match="other words"):
        release_huggingface(masters(config), config, tmp_path / "encode", tmp_path / "release")
    assert not (tmp_path / "release").exists()


NULL = {"ffn": "experts", "num_experts": 4, "top_k": 3, "null_experts": 3, "mean_experts": 1.5}
NULL_PATTERNS = {
    "qwen3_moe": {**NULL, "entropy_clamp": True},
    "glm4_moe": {**EXPERTS, **NULL, "rotary_share": 0.5},
    "deepseek_v3": {**EXPERTS, **NULL, "mixer": "latent"},
    "afmoe": {**PATTERNS["afmoe"], **NULL},
}


@pytest.mark.parametrize("host", NULL_PATTERNS)
def test_null_experts_are_released_as_experts_of_zeros(tmp_path, host):
    """transformers gives our logits and text; what is loaded again is the same function with three more experts."""
    config = shape(PatternSettings(head_dim=8, init_std=0.3, **NULL_PATTERNS[host]), SizeSettings(), width=32, num_layers=3, vocabulary_size=320, context=192)
    decoder = Decoder(config)
    decoder.init_weights(0)
    for bias in decoder.selection_biases().values():
        bias.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    state = {**{name: parameter.detach() for name, parameter in decoder.named_parameters()}, **decoder.selection_biases()}
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    facts = release_huggingface(state, config, tmp_path / "encode", tmp_path / "release", "float32")
    assert facts.host == host and facts.greedy_equal and facts.max_logit_gap <= 1e-4 * max(1, facts.largest_logit)
    assert facts.rounding_logit_gap == 0.0, "nothing is rounded, and zeros add nothing"
    loaded, again = load_huggingface(tmp_path / "release")
    assert again.layers[-1].ffn.num_experts == 7 and not again.layers[-1].ffn.null_experts
    assert not loaded.layers[-1].ffn.down[4:].any() and loaded.layers[-1].ffn.down[:4].any()
    used = [layer.used_H for layer in decoder(torch.randint(0, 320, (1, 64)), Sequence.plain(1, 64)).stats.layers if layer is not None]
    assert all((used_H > 0).sum() > 1 for used_H in used), "tokens used different numbers of experts"
