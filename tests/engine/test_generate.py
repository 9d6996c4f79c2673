import random

import pytest
import torch

from hagane.engine.cache import BLOCK
from hagane.engine.generate import generate
from hagane.hosts import HOSTS, host_for
from hagane.model.initial import to_working
from hagane.model.sequence import Sequence
from toy_models import toy_config, toy_decoder

KINDS = ("dense", "experts", "delta")


def prompts(count, longest=20, vocabulary=320, seed=0):
    draw = random.Random(seed)
    return [[draw.randrange(vocabulary) for _ in range(draw.randint(1, longest))] for _ in range(count)]


@torch.inference_mode()
def uncached(decoder, prompt, max_new_tokens, stop_ids):
    """One row, everything computed again for every token."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        hidden = decoder(torch.tensor([ids]), Sequence.plain(1, len(ids))).hidden_BTD
        ids.append(int(decoder.head.logits(hidden[0, -1]).argmax()))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_cached_ragged_batches_equal_the_uncached_model(kind):
    decoder, asked, stop = toy_decoder(kind), prompts(14), set(range(0, 320, 12))
    expected = [uncached(decoder, prompt, 24, stop) for prompt in asked]
    assert len({len(row) for row in expected}) > 2, "rows should end at different times, or nothing is tested"
    assert generate(decoder, asked, 24, stop, batch_size=4) == expected


@pytest.mark.parametrize("batch_size", (1, 2, 5, 64))
def test_batch_size_and_neighbours_change_nothing(batch_size):
    decoder, asked, stop = toy_decoder("experts"), prompts(23), set(range(0, 320, 15))
    whole = generate(decoder, asked, 20, stop, batch_size=23)
    assert generate(decoder, asked, 20, stop, batch_size=batch_size) == whole
    assert generate(decoder, asked[7:8], 20, stop) == whole[7:8]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_equals_that_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    config, decoder = toy_config(kind), toy_decoder(kind)
    host = HOSTS[host_for(config)]
    theirs_config = transformers.AutoConfig.for_model(**host.config_to_host(config, {}))
    theirs = transformers.AutoModelForCausalLM.from_config(theirs_config).float().eval()
    tensors = dict(host.weights.weights_to_host(dict(decoder.named_parameters()), config))
    own = theirs.state_dict()
    for name in own:
        if name.endswith("experts.gate_up_proj"):  # fused in memory, one matrix per expert on disk
            layer = name.removesuffix("gate_up_proj")
            own[name].copy_(torch.stack([torch.cat([tensors[f"{layer}{e}.gate_proj.weight"], tensors[f"{layer}{e}.up_proj.weight"]]) for e in range(4)]))
        elif name.endswith("experts.down_proj"):
            own[name].copy_(torch.stack([tensors[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] for e in range(4)]))
        elif name in tensors:
            own[name].copy_(tensors[name])
    asked = prompts(4, seed=3)
    ours = generate(decoder, asked, 16, [])
    for prompt, row in zip(asked, ours):
        ids = torch.tensor([prompt])
        output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=0, eos_token_id=None)
        assert output[0, len(prompt) :].tolist() == row


def test_rows_longer_than_a_block_of_the_cache_continue():
    decoder, asked = toy_decoder(), prompts(3, longest=BLOCK + 9, seed=1)
    rows = generate(decoder, asked, BLOCK + 5, [], batch_size=2)
    assert rows[0] == uncached(decoder, asked[0], BLOCK + 5, set())


def test_stop_tokens_end_a_row_and_are_its_last_token():
    decoder, asked = toy_decoder(), prompts(12)
    free = generate(decoder, asked, 12, [])
    stop = {free[0][3], free[1][0]}
    for prompt_free, row in zip(free, generate(decoder, asked, 12, stop)):
        first = next((index for index, token in enumerate(prompt_free) if token in stop), None)
        assert row == (prompt_free if first is None else prompt_free[: first + 1])


def test_sampling_is_reproducible_and_independent_of_the_batch():
    decoder, asked = toy_decoder(), prompts(11)
    settings = {"temperature": 1.3, "top_p": 0.95}
    first = generate(decoder, asked, 10, [5, 6], **settings, seed=1)
    assert generate(decoder, asked, 10, [5, 6], **settings, seed=1) == first
    assert generate(decoder, asked, 10, [5, 6], **settings, seed=1, batch_size=3) == first
    assert generate(decoder, asked, 10, [5, 6], **settings, seed=2) != first
    assert generate(decoder, asked, 10, [5, 6]) != first


def test_tokens_are_reported_as_they_come():
    decoder, asked = toy_decoder(), prompts(7)
    seen = [[] for _ in asked]

    def collect(indices, tokens):
        for index, token in zip(indices, tokens, strict=True):
            seen[index].append(token)

    assert generate(decoder, asked, 9, range(0, 320, 9), batch_size=3, on_tokens=collect) == seen


def test_nothing_to_do_is_no_error_and_an_empty_prompt_is():
    decoder = toy_decoder()
    assert generate(decoder, [], 5, []) == []
    assert generate(decoder, [[1], [2]], 0, []) == [[], []]
    with pytest.raises(ValueError, match="empty prompt"):
        generate(decoder, [[1], []], 5, [])


def test_bf16_generates_close_to_float32():
    decoder, half = toy_decoder(), toy_decoder()
    to_working(half, torch.bfloat16)
    asked = prompts(16)
    pairs = list(zip(generate(decoder, asked, 1, []), generate(half, asked, 1, [])))
    assert sum(one == two for one, two in pairs) >= 12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_text(kind):
    asked = prompts(40)
    expected = generate(toy_decoder(kind), asked, 24, range(0, 320, 12), batch_size=16)
    assert generate(toy_decoder(kind).to("cuda"), asked, 24, range(0, 320, 12), batch_size=16) == expected
    sampled = generate(toy_decoder(kind).to("cuda"), asked, 8, [], temperature=1.0, top_p=0.9, seed=1)
    assert sum(one == two for one, two in zip(sampled, generate(toy_decoder(kind), asked, 8, [], temperature=1.0, top_p=0.9, seed=1))) > 35
