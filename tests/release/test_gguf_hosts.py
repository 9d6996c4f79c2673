"""GGUF files of the hosts beyond Llama and Qwen3: read by llama.cpp as our masters say, and as transformers reads the same weights."""

import math

import pytest
import torch

from hagane.corpus.embedded import parallel_sentences
from hagane.errors import RunError
from hagane.hosts import HOSTS, host_for
from hagane.hosts.deepseek_v3.gguf import query_scales
from hagane.hosts.gguf import unfit
from hagane.model.config import ExpertsConfig, LayerConfig, RopeConfig
from hagane.model.extend import extended
from hagane.release import verify_gguf
from hagane.release.gguf import Identity, release_gguf
from hagane.release.huggingface import write_config, write_weights
from hagane.release.llamacpp import LlamaCpp
from toy_hosts import CONFIGS as BY_HOST
from toy_hosts import DELTA, DENSE, GATED, GROUPED, PARTIAL, SHARED, SIGMOID, WHOLE, WINDOWED, YARN, latent, layers, masters, model, sandwiched
from toy_models import TEXTS, toy_tokenizer

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
SENTENCES = tuple(text for sentence in parallel_sentences(2) for text in sentence.values())


def afmoe(mixers, ffns, **settings):
    return model(sandwiched(mixers, ffns), **settings)


def hybrid(*mixers, ffn=SHARED, **settings):
    return model([LayerConfig(mixer=mixer, ffn=ffn) for mixer in mixers], **settings)


CONFIGS = {
    **{host: BY_HOST[host] for host in ("glm4_moe", "afmoe", "deepseek_v3", "qwen3_next")},
    "glm4_moe groups": model(layers(PARTIAL.model_copy(update={"qk_norm": True}), GROUPED, GROUPED), tied=True),
    "afmoe unscaled": afmoe([WINDOWED] * 3 + [WHOLE, WINDOWED], [SIGMOID] * 5, tied=True, norm_epsilon=1e-5),
    "deepseek_v3 epsilon": model(layers(latent(), DENSE, GROUPED, GROUPED), norm_epsilon=1e-3),
    "deepseek_v3 dense": model(layers(latent(query_rank=None), DENSE, DENSE), tied=True),
    "deepseek_v3 yarn": model(layers(latent(rope=RopeConfig(yarn=YARN)), DENSE, SIGMOID)),
    "deepseek_v3 plain yarn": model(layers(latent(rope=RopeConfig(yarn=YARN.model_copy(update={"mscale": 0.0, "mscale_all_dim": 0.0}))), DENSE, SIGMOID)),
    "deepseek_v3 extended": extended(model(layers(latent(), DENSE, SIGMOID), context=24), 8.0, "yarn"),
    "deepseek_v3 ntk": extended(model(layers(latent(), DENSE, SIGMOID), context=24), 8.0, "ntk"),
    "deepseek_v3 linear": extended(model(layers(latent(), DENSE, SIGMOID), context=24), 8.0, "linear"),
    "qwen3_next irregular": hybrid(GATED, DELTA, DELTA, GATED, DELTA, tied=True),
}


def transformers_model(config, state, folder):
    transformers = pytest.importorskip("transformers")
    host = HOSTS[host_for(config)]
    write_config(folder, host.config_to_host(config, {}), toy_tokenizer(), "float32")
    write_weights(folder, dict(host.weights.weights_to_host(state, config)))
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", [name if name in HOSTS else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def test_llama_cpp_gives_the_distributions_of_the_masters_and_of_transformers(tmp_path, name):
    config = CONFIGS[name]
    assert host_for(config) == name.split()[0]
    state = masters(config)
    facts = release_gguf(state, config, host_for(config), toy_tokenizer(), tmp_path / "gguf", Identity("toy"), SENTENCES)
    half, eight = facts.files
    routed = any(isinstance(layer.ffn, ExpertsConfig) for layer in config.layers)
    assert half.kl_bits_per_token < 1e-4 and half.unsteady <= (0.05 * half.positions if routed else 0)
    assert half.max_logprob_gap <= 0.02 or routed, "where experts tie, the release has judged every place by itself"
    assert half.greedy_tokens > 100 and half.kl_bits_per_token < eight.kl_bits_per_token <= verify_gguf.Q8_TOLERANCE
    theirs = transformers_model(config, state, tmp_path)
    rows = [toy_tokenizer().encode(text).ids[:16] for text in SENTENCES]
    with torch.inference_mode():
        wanted = [theirs(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy() for ids in rows]
    with LlamaCpp(tmp_path / "gguf" / half.file, config.context, 1, toy_tokenizer().encode("A").ids[0]) as llama:
        gaps = [float(abs(llama.logprobs(ids, 320) - wanted_V).max()) for ids, wanted_V in zip(rows, wanted, strict=True)]
    over = [index for index, gap in enumerate(gaps) if not gap <= 0.02]
    assert len(over) <= (0.25 * len(gaps) if routed else 0), "where experts tie others are chosen, and all that follows is moved"
    places = [(rows[index], len(rows[index])) for index in over]
    reference = verify_gguf.Reference(state, config, toy_tokenizer(), SENTENCES)
    assert not reference.unexplained(places, [gaps[index] for index in over]), "no farther than rounding moves our own answers, too"


@pytest.mark.parametrize(
    ("config", "field"),
    (
        (afmoe([WINDOWED, WINDOWED, WHOLE], [SIGMOID] * 3), "full_every = 4"),
        (afmoe([WINDOWED] * 4, [SIGMOID] * 4), "layer 3 has mixer.window"),
        (model(layers(latent(), *[DENSE] * 27)), "27 layers"),
        (hybrid(DELTA, GATED, ffn=DENSE), "ffn.kind = 'dense'"),
        (hybrid(DELTA, GATED, ffn=SHARED.model_copy(update={"normalise": False})), "ffn.normalise = false"),
        (hybrid(DELTA.model_copy(update={"value_dim": 12}), GATED), "mixer.key_dim = mixer.value_dim; layer 0 has 8 and 12"),
        (hybrid(GATED, GATED), "mixer.kind = 'delta'"),
        (model(layers(PARTIAL.model_copy(update={"rope": RopeConfig(yarn=YARN)}), SIGMOID)), "mixer.rope.yarn.mscale"),
    ),
)
def test_what_llama_cpp_cannot_hold_is_refused_by_field(tmp_path, config, field):
    host = host_for(config)
    assert field in (unfit(HOSTS[host], config) or "")
    with pytest.raises(RunError, match=field.replace("(", ".").replace(")", ".")):
        release_gguf({}, config, host, toy_tokenizer(), tmp_path / "gguf", Identity("toy"), TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_modules_for_multi_token_prediction_are_left_out(tmp_path):
    config = CONFIGS["glm4_moe"]
    config = config.model_copy(update={"mtp_layers": config.layers[-1:]})
    facts = release_gguf(masters(config), config, "glm4_moe", toy_tokenizer(), tmp_path / "gguf", Identity("toy"), SENTENCES)
    assert facts.left_out == "llama.cpp has no place for modules for multi-token prediction"
    field = gguf.GGUFReader(tmp_path / "gguf" / facts.files[0].file)
    assert field.fields["glm4moe.block_count"].contents() == 3
    assert not [tensor.name for tensor in field.tensors if tensor.name.startswith(("blk.3", "nextn"))]


def test_what_llama_cpp_does_not_say_is_made_up_for_in_the_weights():
    """Scores of interpolated positions: with DeepSeek's usual settings nothing, else the part that its own scale misses."""
    usual = YARN.model_copy(update={"mscale": 1.2})
    assert query_scales(latent(rope=RopeConfig(yarn=usual))) == pytest.approx((1.0, 1.0))
    plain, turned = query_scales(latent(rope=RopeConfig(yarn=YARN)))
    assert plain == pytest.approx(1.0) and turned == pytest.approx(((1 + 0.08 * math.log(4)) / (1 + 0.12 * math.log(4))) ** 2)
    assert query_scales(latent(rope=RopeConfig(linear=4.0)))[0] == pytest.approx((1 + 0.1 * math.log(4)) ** -2)
