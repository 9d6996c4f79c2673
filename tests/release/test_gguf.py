"""GGUF files are read by llama.cpp as we read the masters, or there are none."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hagane.corpus.embedded import parallel_sentences
from hagane.errors import RunError
from hagane.hosts import HOSTS, host_for
from hagane.hosts.checkpoint import Published
from hagane.hosts.gguf import interleaved, unfit
from hagane.hosts.vocabulary import grown
from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig, RopeConfig, YarnConfig
from hagane.model.decoder import Decoder
from hagane.model.extend import extended
from hagane.release import gguf as writing
from hagane.release import verify_gguf
from hagane.release.gguf import Identity, release_gguf, write_gguf
from hagane.release.llamacpp import LlamaCpp
from hagane.tokenizer.bpe import cut
from hagane.tokenizer.chat import CHAT_TEMPLATE
from hagane.tokenizer.extend import extend
from toy_models import TEXTS, toy_config, toy_tokenizer

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
KINDS = {"qwen3_moe": ("experts", {}), "qwen3": ("dense", {}), "llama": ("dense", {"qk_norm": False, "tied": False})}
SENTENCES = tuple(text for sentence in parallel_sentences(2) for text in sentence.values())


def masters(host="qwen3"):
    """(float32 masters, configuration) of a toy whose distributions are as sharp as a trained model's, with norms that are not one."""
    kind, settings = KINDS[host]
    config = toy_config(kind, **settings).model_copy(update={"init_std": 0.12})
    decoder = Decoder(config)
    decoder.init_weights(1)
    state = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    return {name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) if tensor.dim() == 1 else tensor for name, tensor in state.items()}, config


def release(folder, state, config, texts=SENTENCES, tokenizer=None):
    return release_gguf(state, config, host_for(config), tokenizer or toy_tokenizer(), folder, Identity("toy", "Apache-2.0", "me"), texts)


@pytest.mark.parametrize("host", KINDS)
def test_llama_cpp_gives_the_distributions_and_the_text_of_the_masters(tmp_path, host):
    facts = release(tmp_path / "gguf", *masters(host))
    half, eight = facts.files
    assert [file.file for file in facts.files] == ["toy-f16.gguf", "toy-q8_0.gguf"] == sorted(path.name for path in (tmp_path / "gguf").iterdir())
    assert half.unsteady <= (2 if host == "qwen3_moe" else 0), "two experts may tie, and that is counted"
    assert half.max_logprob_gap <= 0.02 or host == "qwen3_moe", "where experts tie, the release has judged every place by itself"
    assert half.max_logprob_gap > 0 and half.kl_bits_per_token < 1e-5 and half.greedy_tokens > 100
    assert half.kl_bits_per_token < eight.kl_bits_per_token <= verify_gguf.Q8_TOLERANCE
    assert half.positions >= 100 and facts.texts_tokenised >= len(SENTENCES)
    assert eight.bytes < half.bytes == (tmp_path / "gguf" / half.file).stat().st_size
    assert (half.kept_f16, eight.kept_f16) == (0, 2), "the rows of ffn_down are no multiple of 32, and that is said"
    assert facts.architecture == HOSTS[host].gguf.architecture and not facts.skipped


def test_a_vocabulary_that_was_given_more_tokens_is_read_the_same(tmp_path):
    """Its special tokens are no longer the last ids, and the kept chat template, which is not ours, goes along."""
    pytest.importorskip("transformers")
    text = "Jökullinn er stór og kaldur, 12 menn gengu á hann."
    larger = extend(toy_tokenizer(), [text] * 9, 40)
    state, config = masters()
    new = grown(Published(HOSTS["qwen3"], config, state), 384, larger.pieces)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    facts = release_gguf(new.state, new.config, "qwen3", larger.tokenizer, tmp_path / "gguf", Identity("toy"), [text, *SENTENCES], template=template)
    assert facts.files[0].max_logprob_gap <= 0.02 and facts.texts_tokenised > len(SENTENCES)
    field = gguf.GGUFReader(tmp_path / "gguf" / "toy-f16.gguf").fields
    assert field["tokenizer.chat_template"].contents() == template
    kinds = field["tokenizer.ggml.token_type"].contents()
    end = 320 + len(larger.pieces)
    assert kinds[315:321] == [3, 3, 3, 4, 4, 1] and set(kinds[320:end]) == {1} and set(kinds[end:]) == {5}


@pytest.mark.parametrize("method", ("linear", "ntk", "yarn"))
def test_llama_cpp_interpolates_positions_as_we_do(tmp_path, method):
    state, config = masters("llama")
    config = extended(config.model_copy(update={"context": 16}), 8, method)
    facts = release(tmp_path / "gguf", state, config)
    assert 0 < facts.files[0].max_logprob_gap <= 0.02 and facts.files[0].kl_bits_per_token < 1e-5


def test_null_experts_are_experts_of_zeros_in_llama_cpp(tmp_path):
    ffn = ExpertsConfig(num_experts=4, top_k=3, hidden=16, null_experts=3, mean_experts=1.5)
    config = toy_config("experts").model_copy(update={"init_std": 0.12})
    config = config.model_copy(update={"layers": tuple(layer.model_copy(update={"ffn": ffn}) for layer in config.layers)})
    decoder = Decoder(config)
    decoder.init_weights(1)
    facts = release(tmp_path / "gguf", {name: parameter.detach() for name, parameter in decoder.named_parameters()}, config)
    assert facts.architecture == "qwen3moe" and facts.files[0].kl_bits_per_token < 1e-5


def test_the_file_says_what_it_is(tmp_path):
    state, config = masters("llama")
    kept = write_gguf(tmp_path / "one.gguf", "q8_0", state, config, HOSTS["llama"], cut(toy_tokenizer(), 312), Identity("toy", "MIT", "me"))
    reader = gguf.GGUFReader(tmp_path / "one.gguf")
    field = {name: value.contents() for name, value in reader.fields.items()}
    assert field["general.architecture"] == "llama" and field["general.license"] == "MIT" and field["general.author"] == "me"
    assert field["llama.rope.freq_base"] == 10_000 and field["llama.attention.head_count_kv"] == 2 and field["general.file_type"] == 7
    tokens, kinds = field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"]
    assert tokens[:2] == ["Ā", "ā"] and tokens[307:312] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    assert kinds[307:312] == [3, 3, 3, 4, 4] and tokens[312] == "[PAD312]" and set(kinds[312:]) == {5}, "rows that no token has are unused ones"
    assert tokens[field["tokenizer.ggml.eos_token_id"]] == "<|im_end|>" and field["tokenizer.ggml.add_bos_token"] is False
    type_of = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert type_of["blk.0.attn_q.weight"] == "Q8_0" and type_of["blk.0.ffn_down.weight"] == "F16" and type_of["output_norm.weight"] == "F32" and kept == 2
    (head,) = (tensor for tensor in reader.tensors if tensor.name == "output.weight")
    assert np.allclose(gguf.quants.dequantize(head.data, head.tensor_type), state["head.weight"].numpy(), atol=float(state["head.weight"].abs().max()) / 127)


def test_rows_are_reordered_from_halves_to_neighbours():
    rows = torch.arange(2 * 6)[:, None] * torch.ones(1, 3)
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def other_norm(monkeypatch):
    original = writing._encoded
    monkeypatch.setattr(writing, "_encoded", lambda name, tensor, kind: original(name, tensor * (1.05 if name == "output_norm.weight" else 1), kind))


def not_interleaved(monkeypatch):
    monkeypatch.setattr(type(HOSTS["llama"]), "gguf", dataclasses.replace(HOSTS["llama"].gguf, adapt=lambda name, tensor, config: ((name, tensor),)))


def fewer_merges(monkeypatch):
    original = gguf.GGUFWriter.add_token_merges
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_merges", lambda self, merges: original(self, merges[:-20]))


def other_template(monkeypatch):
    write = gguf.GGUFWriter.add_chat_template
    monkeypatch.setattr(gguf.GGUFWriter, "add_chat_template", lambda writer, template: write(writer, template.replace("<think>", "<thought>")))


def no_head_count(monkeypatch):
    original = gguf.GGUFWriter.add_uint32
    monkeypatch.setattr(gguf.GGUFWriter, "add_uint32", lambda self, key, value: None if key.endswith(".head_count") else original(self, key, value))


@pytest.mark.parametrize(
    ("damage", "message"),
    ((other_norm, "log-prob"), (not_interleaved, "log-prob"), (fewer_merges, "tokens"), (other_template, "template"), (no_head_count, "wrong shape")),
)
def test_a_file_that_llama_cpp_reads_differently_is_not_released(tmp_path, monkeypatch, damage, message):
    damage(monkeypatch)
    with pytest.raises(RunError, match=message) as error:
        release(tmp_path / "gguf", *masters("llama"), texts=(*SENTENCES, *TEXTS))
    assert "toy-f16.gguf" in str(error.value) and "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_kept_chat_template_is_compared_with_transformers(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    kept = "{# of another maker #}" + CHAT_TEMPLATE
    state, config = masters()
    release_gguf(state, config, "qwen3", toy_tokenizer(), tmp_path / "gguf", Identity("toy"), SENTENCES, template=kept)
    other_template(monkeypatch)
    with pytest.raises(RunError, match=r"toy-f16\.gguf in llama\.cpp: the chat template gives .* in transformers; set release\.gguf = false"):
        release_gguf(state, config, "qwen3", toy_tokenizer(), tmp_path / "other", Identity("toy"), SENTENCES, template=kept)
    assert not (tmp_path / "other").exists()


def test_greedy_text_that_differs_where_tokens_are_apart_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(LlamaCpp, "greedy", lambda self, ids, max_new_tokens: [7] * max_new_tokens)
    with pytest.raises(RunError, match="other words"):
        release(tmp_path / "gguf", *masters())


def test_a_broken_q8_0_file_is_found_by_its_own_measure(tmp_path, monkeypatch):
    original = writing._encoded
    monkeypatch.setattr(writing, "_encoded", lambda name, tensor, kind: original(name, tensor.flip(0) if kind == "q8_0" and "attn_v" in name else tensor, kind))
    with pytest.raises(RunError, match=r"toy-q8_0.gguf.*bits per token"):
        release(tmp_path / "gguf", *masters())
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_release_stays_where_a_new_one_fails(tmp_path, monkeypatch):
    release(tmp_path / "gguf", *masters())
    before = {path.name: path.read_bytes() for path in (tmp_path / "gguf").iterdir()}
    other_norm(monkeypatch)
    with pytest.raises(RunError):
        release(tmp_path / "gguf", *masters())
    assert {path.name: path.read_bytes() for path in (tmp_path / "gguf").iterdir()} == before


def test_all_places_together_are_held_to_what_rounding_does_to_our_own_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_gguf, "F16_BITS", 0.0)
    monkeypatch.setattr(verify_gguf, "F16_TOLERANCE", float("inf"))
    release(tmp_path / "gguf", *masters())
    other_norm(monkeypatch)
    with pytest.raises(RunError, match=r"toy-f16.gguf.*bits per token"):
        release(tmp_path / "other", *masters())


def test_a_tie_is_looked_for_in_many_changes_of_our_weights(monkeypatch):
    """A tie that half precision parted may be parted by few of the changes; what none moves as far is no tie, and other files stay refused."""
    reference = verify_gguf.Reference(*masters(), toy_tokenizer(), SENTENCES)
    tried = []

    def changed(places, probes):
        for probe in range(probes):
            tried.append(probe)
            yield [(np.zeros(2), np.full(2, 0.3 if probe == 20 else 0.01)), (np.zeros(2), np.full(2, 0.2 if probe == 3 else 0.01))]

    monkeypatch.setattr(reference, "_changed", changed)
    places = [([1, 2], 1), ([1, 2], 2)]
    assert reference.unexplained(places, [0.5, 0.4]) == [] and tried == list(range(21)), "and no further than they are all explained"
    assert reference.unexplained(places, [0.7, 0.4]) == [0.7]
    assert reference.unexplained(places, [0.5, float("nan")])[0] != 0.5 and reference.unexplained([], []) == []


@pytest.mark.parametrize("value", (1e5, float("nan")))
def test_values_beyond_half_precision_are_named(tmp_path, value):
    state, config = masters()
    state["layers.1.ffn.down.weight"][3, 3] = value
    with pytest.raises(RunError, match=r"blk\.1\.ffn_down\.weight holds .*65,504"):
        release(tmp_path / "gguf", state, config)
    assert list(tmp_path.iterdir()) == []


def test_a_pre_tokenizer_without_a_name_is_refused(tmp_path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(toy_tokenizer().to_str().replace(r"|\\p{N}|", r"|\\p{N}{1,3}|"))
    with pytest.raises(RunError, match="pre_tokenizer"):
        release(tmp_path / "gguf", *masters(), tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


YARN = RopeConfig(yarn=YarnConfig(factor=8, original_context=64, mscale=1.0, mscale_all_dim=1.0))
MIXER = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=True)
EXPERTS = ExpertsConfig(num_experts=4, top_k=2, hidden=16)


@pytest.mark.parametrize(
    ("host", "mixer", "ffns", "field"),
    (
        ("qwen3", MIXER.model_copy(update={"window": 8}), [DenseConfig(hidden=32)] * 2, "window = 8"),
        ("qwen3", MIXER.model_copy(update={"rope": YARN}), [DenseConfig(hidden=32)], "mixer.rope.yarn.mscale"),
        ("qwen3_moe", MIXER, [DenseConfig(hidden=32), EXPERTS], "ffn.kind = 'dense'"),
        ("qwen3_moe", MIXER, [EXPERTS.model_copy(update={"normalise": False})], "ffn.normalise = false"),
    ),
)
def test_what_llama_cpp_cannot_hold_is_refused_by_field(tmp_path, host, mixer, ffns, field):
    layers = tuple(LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns)
    config = ModelConfig(vocabulary_size=320, width=32, layers=layers, context=64)
    assert field in (unfit(HOSTS[host], config) or "")
    with pytest.raises(RunError, match=field):
        release_gguf({}, config, host, toy_tokenizer(), tmp_path / "gguf", Identity("toy"), TEXTS)


def test_a_host_that_llama_cpp_does_not_know_is_refused():
    assert unfit(SimpleNamespace(name="axk1", gguf=None), masters()[1]).startswith("llama.cpp does not know axk1")
    assert "the gguf package, which writes its files, does not yet" in unfit(HOSTS["deepseek_v32"], masters()[1])


def test_a_file_that_is_no_gguf_is_one_sentence_and_leaves_no_process(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(200))
    judge = LlamaCpp(tmp_path / "bad.gguf", 64, 1, 65)
    with pytest.raises(RunError, match=r"llama\.cpp cannot load bad\.gguf"), judge:
        pass
    assert judge._process.poll() is not None
