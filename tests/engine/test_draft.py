"""Speculative decoding gives the tokens of plain greedy decoding, whatever drafts; and counts what it guessed."""

import random
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from hagane.engine.draft import Drafts
from hagane.engine.generate import generate
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.sequence import Sequence
from toy_models import randomised

VOCABULARY = 23  # few tokens: random drafts are right now and then
FULL = AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=8, qk_norm=True)
LATENT = LatentConfig(num_heads=2, query_rank=6, kv_rank=10, nope_dim=8, rope_dim=4, value_dim=8)
INDEXED = tuple(LATENT.model_copy(update={"index": IndexConfig(num_heads=4, head_dim=8, top_k=4, share=share)}) for share in (None, 0.6))
GATED = FULL.model_copy(update={"gate": "sigmoid"})
MIXERS = {
    "attention": (FULL,),
    "window": (FULL.model_copy(update={"window": 5}), FULL),
    "wide window": (FULL.model_copy(update={"window": 40}),),
    "latent": (LATENT,),
    "indexed": INDEXED,
    "gated norms": (LATENT.model_copy(update={"gate": "sigmoid"}), INDEXED[0].model_copy(update={"gate": "sigmoid"})),
    "sandwich": (GATED.model_copy(update={"window": 5}), GATED.model_copy(update={"rope": None})),
    "delta": (DeltaConfig(num_key_heads=1, num_value_heads=2, key_dim=8, value_dim=8), FULL),
}
NORMS = {"gated norms": {"mixer_norm_rank": 4, "ffn_norm_rank": 4}, "sandwich": {"post_mixer_norm": True, "post_ffn_norm": True}}
FFNS = {"dense": DenseConfig(hidden=24), "experts": ExpertsConfig(num_experts=4, top_k=2, hidden=12)}


def model(mixers="attention", ffn="dense", seed=0, drafting="like the last"):
    layers = tuple(LayerConfig(mixer=mixer, ffn=FFNS[ffn], **NORMS.get(mixers, {})) for mixer in MIXERS[mixers])
    modules = layers[:1] if drafting == "like the first" else layers[-1:]
    return randomised(ModelConfig(vocabulary_size=VOCABULARY, width=16, layers=layers, mtp_layers=modules, context=64, init_std=0.4), seed)


def trained(mixers, ffn):
    """On lines that count on by one to three: after a while model and module guess many tokens, and not all."""
    decoder, generator = model(mixers, ffn).train().requires_grad_(True), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(60):
        start_B1, step_B1 = (torch.randint(low, high, (16, 1), generator=generator) for low, high in ((0, VOCABULARY), (1, 4)))
        token_BT = (start_B1 + step_B1 * torch.arange(14)) % VOCABULARY
        outputs = decoder(token_BT[:, :-2], Sequence.plain(16, 12), further=True)
        hidden = ((outputs.hidden_BTD, token_BT[:, 1:-1]), (outputs.further[0][:, :-1], token_BT[:, 2:-1]))
        sum(cross_entropy(decoder.head.logits(hidden_BTD).flatten(0, 1), target_BT.flatten()) for hidden_BTD, target_BT in hidden).backward()
        optimizer.step()
        optimizer.zero_grad()
    return decoder.eval().requires_grad_(False)


def copying(seed=0):
    """The module drafts what the decoder chose at the same place: right wherever a token comes twice."""
    built = model(seed=seed)
    with torch.no_grad():
        module = built.mtp[0]
        module.projection.weight.copy_(torch.cat([torch.zeros(16, 16), torch.eye(16)], dim=1))
        module.block.mixer.output.weight.zero_()
        module.block.ffn.down.weight.zero_()
        module.hidden_norm.weight.fill_(1.0)
        module.norm.weight.fill_(1.0)
    return built


def prompts(count, longest, seed):
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("mixers", MIXERS)
@given(
    seed=st.integers(0, 1000), count=st.integers(1, 7), longest=st.sampled_from([3, 50]), max_new_tokens=st.integers(1, 40), batch_size=st.integers(1, 8),
    drafting=st.sampled_from(["like the first", "like the last"]), num_stops=st.sampled_from([0, 1, 3]),
)  # fmt: skip
@settings(max_examples=4, deadline=None)
def test_drafts_change_no_token(mixers, ffn, seed, count, longest, max_new_tokens, batch_size, drafting, num_stops):
    decoder, asked, stop = model(mixers, ffn, seed, drafting), prompts(count, longest, seed), set(range(num_stops))
    drafts = Drafts()
    plain = generate(decoder, asked, max_new_tokens, stop, batch_size=batch_size)
    assert generate(decoder, asked, max_new_tokens, stop, batch_size=batch_size, drafts=drafts) == plain
    assert 0 <= drafts.accepted <= drafts.proposed <= sum(map(len, plain))


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("mixers", MIXERS)
def test_drafts_of_a_trained_module_are_often_right_and_change_no_token(mixers, ffn):
    decoder, drafts = trained(mixers, ffn), Drafts()
    asked = [[(start + step * place) % VOCABULARY for place in range(5)] for start in range(8) for step in (1, 2, 3)] + prompts(8, 20, seed=0)
    plain = generate(decoder, asked, 30, [], batch_size=12)
    assert generate(decoder, asked, 30, [], batch_size=12, drafts=drafts) == plain
    assert 0.1 < drafts.acceptance < 1.0, "accepted and taken back"
    assert len({tuple(text) for text in plain}) > 20


def test_right_drafts_are_used_and_counted():
    """The module drafts each token once more: drafts are right where text repeats, and each spares a step."""
    decoder, asked = copying(), prompts(6, 9, seed=1)
    plain = generate(decoder, asked, 60, [])
    steps, drafts, streamed = [], Drafts(), defaultdict(list)

    def note(which, tokens):
        for prompt, token in zip(which, tokens, strict=True):
            streamed[prompt].append(token)

    forward = decoder.forward
    decoder.forward = lambda *arguments, **settings: steps.append(1) or forward(*arguments, **settings)
    assert generate(decoder, asked[:1], 60, [], drafts=drafts) == plain[:1]
    repeats = sum(a == b for a, b in zip(plain[0], plain[0][1:]))
    assert repeats > 2, "nothing is repeated, so nothing is tested"
    assert 0 < drafts.accepted <= repeats
    assert len(steps) == 1 + drafts.proposed + (1 if len(plain[0]) - 1 > drafts.proposed + drafts.accepted else 0)
    assert 1 + drafts.proposed + drafts.accepted >= 59
    assert drafts.acceptance == drafts.accepted / drafts.proposed
    assert generate(decoder, asked, 60, [], drafts=Drafts(), on_tokens=note, batch_size=4) == plain
    assert [streamed[prompt] for prompt in range(6)] == plain


def test_the_acceptance_is_that_of_the_modules_own_choices():
    """By hand, without a cache: what the module chooses after each token of the finished text."""
    decoder, (prompt,) = model("latent", seed=4), prompts(1, 5, seed=2)
    (text,) = generate(decoder, [prompt], 40, [])
    drafts = Drafts()
    generate(decoder, [prompt], 40, [], drafts=drafts)
    ids = torch.tensor([[*prompt, *text]])
    chosen = decoder.head.logits(decoder(ids, Sequence.plain(*ids.shape), further=True).further[0])[0].argmax(-1)
    accepted, proposed, place = 0, 0, len(prompt)  # the newest token known, not yet read by the decoder
    while place < ids.shape[1] - 2:  # of the last token nothing is guessed
        right = int(chosen[place - 1]) == int(ids[0, place + 1])
        proposed, accepted = proposed + 1, accepted + right
        place += 1 + right
    assert (drafts.proposed, drafts.accepted) == (proposed, accepted)


def test_drafts_need_a_module_and_greed():
    decoder = model()
    for asked, temperature in ((decoder, 0.5), (randomised(decoder.config.without_mtp), 0.0)):
        with pytest.raises(ValueError, match="mtp_layers"):
            generate(asked, [[1]], 4, [], temperature=temperature, drafts=Drafts())
    assert Drafts().acceptance == 0.0
