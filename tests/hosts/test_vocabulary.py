"""A checkpoint with more tokens: what it said of old tokens stays, new rows are the mean of their pieces."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hagane.engine.load import build_decoder, load_starting
from hagane.hosts import HOSTS
from hagane.hosts.checkpoint import Published, read_chat_template, read_published
from hagane.hosts.vocabulary import grown, rows_for, starting_tokenizer
from hagane.model.sequence import Sequence as Placement
from hagane.release.huggingface import release_huggingface, write_config, write_weights
from hagane.tokenizer.extend import extend, next_id
from hagane.tokenizer.save import save_for_transformers
from toy_models import TEXTS, toy_config, toy_decoder, toy_tokenizer

PIECES = {320: (84, 104, 101), 322: (5, 5, 9)}
KINDS = {"tied": ("qwen3", "dense", {}), "untied": ("llama", "dense", {"qk_norm": False, "tied": False}), "experts": ("qwen3_moe", "experts", {"tied": False})}


def published(kind):
    host, ffn, settings = KINDS[kind]
    return Published(HOSTS[host], toy_config(ffn, **settings), dict(toy_decoder(ffn, **settings).named_parameters()))


def logits(decoder, ids):
    with torch.inference_mode():
        return decoder.head.logits(decoder(torch.tensor([ids]), Placement.plain(1, len(ids))).hidden_BTD)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_means_and_old_tokens_are_judged_as_before(kind):
    old = published(kind)
    new = grown(old, 324, PIECES)
    assert new.config.vocabulary_size == 324 and new.state.keys() == old.state.keys() and ("head.weight" in new.state) == (kind != "tied")
    for name in {"embedding.weight", "head.weight"} & new.state.keys():
        before, after = old.state[name], new.state[name]
        assert torch.equal(after[:320], before)
        torch.testing.assert_close(after[320], (before[84] + before[104] + before[101]) / 3)
        torch.testing.assert_close(after[322], (2 * before[5] + before[9]) / 3)
        torch.testing.assert_close(after[321], before.mean(0)), torch.testing.assert_close(after[323], before.mean(0))
    ids = [3, 84, 104, 101, 7]
    here, there = logits(build_decoder(old.config, old.state), ids), logits(build_decoder(new.config, new.state), ids)
    torch.testing.assert_close(there[:, :320], here)
    torch.testing.assert_close(there[:, 320], here[:, [84, 104, 101]].mean(-1))
    assert grown(old, 320, {}) is old


@pytest.mark.parametrize("kind", KINDS)
def test_a_padding_row_becomes_that_of_a_new_token_where_there_is_one(kind):
    old = published(kind)
    new = grown(old, 320, {317: (1, 2)})
    for name in {"embedding.weight", "head.weight"} & new.state.keys():
        torch.testing.assert_close(new.state[name][317], old.state[name][1:3].mean(0))
        assert torch.equal(new.state[name][316], old.state[name][316])


@pytest.mark.parametrize("kind", KINDS)
def test_with_its_larger_tokenizer_it_is_released_and_transformers_agrees(tmp_path, kind):
    pytest.importorskip("transformers")
    old, larger = published(kind), extend(toy_tokenizer(), TEXTS + ["Jökullinn er stór og kaldur."] * 9, 30)
    rows = rows_for(next_id(larger.tokenizer), old.config.vocabulary_size)
    assert rows > 345 and rows % 64 == 0, "320 rows are a multiple of 64"
    new = grown(old, rows, larger.pieces)
    save_for_transformers(larger.tokenizer, tmp_path / "tokenizer", 64)
    facts = release_huggingface(new.state, new.config, tmp_path / "tokenizer", tmp_path / "release", dtype="float32")
    assert facts.host == old.host.name and facts.max_logit_gap < 1e-4
    again = read_published(tmp_path / "release")
    assert again.config.vocabulary_size == rows and torch.equal(again.state["embedding.weight"], new.state["embedding.weight"])


@given(st.integers(1, 200_000), st.integers(256, 200_000))
def test_rows_hold_every_id_and_stay_the_multiple_they_were(ids, rows):
    found = rows_for(ids, rows)
    assert found >= max(ids, rows) and found - max(ids, rows) < 128 and (found == rows or ids > rows)
    for multiple in (2, 64, 128):
        assert rows % multiple or not found % multiple


@pytest.fixture
def foreign(tmp_path):
    """A checkpoint whose tokenizer has one special token, not ours, and rows to spare; its conversations have a form of their own."""
    description = json.loads(toy_tokenizer().to_str())
    description["added_tokens"] = description["added_tokens"][:1]
    description["added_tokens"][0]["content"] = "<s>"
    decoder, config = toy_decoder(vocabulary_size=330), toy_config(vocabulary_size=330)
    host = HOSTS["qwen3"]
    write_config(tmp_path, host.config_to_host(config, {}), toy_tokenizer(), "float32")
    write_weights(tmp_path, dict(host.weights.weights_to_host(dict(decoder.named_parameters()), config)))
    begin = description["added_tokens"][0]["id"]
    said = json.loads((tmp_path / "config.json").read_text()) | {"bos_token_id": begin, "eos_token_id": begin}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    return tmp_path, begin


def test_special_tokens_that_it_lacks_get_rows_and_its_own_stand_in(foreign):
    folder, begin = foreign
    start = starting_tokenizer(folder)
    end, im_end, think = (start.tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>", "<think>"))
    assert start.pieces[end] == start.pieces[im_end] == (begin,) and len(start.pieces[think]) > 1
    decoder, tokenizer = load_starting(folder)
    weight = toy_decoder(vocabulary_size=330).embedding.weight
    torch.testing.assert_close(decoder.embedding.weight[end], weight[begin])
    torch.testing.assert_close(decoder.embedding.weight[think], weight[list(start.pieces[think])].mean(0))
    assert isinstance(tokenizer, Tokenizer) and decoder.config.vocabulary_size == 330, "spare rows are taken first"


def test_a_chat_template_is_found_in_either_place(tmp_path):
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "one"}')
    assert read_chat_template(tmp_path) == "one"
    (tmp_path / "chat_template.jinja").write_text("two")
    assert read_chat_template(tmp_path) == "two"
