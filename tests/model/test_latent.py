"""Multi-head latent attention: both forms against the formula written out, and against the published implementation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.kernels.attention import serves
from hagane.model.config import LatentConfig, RopeConfig, YarnConfig
from hagane.model.latent import LATENT_EPSILON, LatentAttention, absorbing_pays, kernel_dim
from hagane.model.rope import frequencies, rotation
from hagane.model.sequence import Sequence, View, document_mask, first_visible

YARN = YarnConfig(factor=8.0, original_context=16, mscale=0.7, mscale_all_dim=1.3)
WIDTH = 20


def latent(query_rank=10, nope=6, rope=4, value=7, yarn=None):
    return LatentConfig(
        num_heads=3, query_rank=query_rank, kv_rank=9, nope_dim=nope, rope_dim=rope, value_dim=value, rope=RopeConfig(theta=100.0, yarn=yarn)
    )


def mixer(config, seed=0):
    made = LatentAttention(WIDTH, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 + (parameter.dim() == 1))
    return made


def packed(documents):
    """One row of the documents' lengths."""
    ids = [index for index, length in enumerate(documents) for _ in range(length)]
    return Sequence(torch.cat([torch.arange(length) for length in documents])[None], torch.tensor([ids], dtype=torch.int32))


def view(sequence, config, *, kernel=False):
    cosine, sine = rotation(sequence.position_BT, config.rope_dim, config.rope)
    real_BT = torch.ones(sequence.document_BT.shape)
    if kernel:
        return View(cosine, sine, real_BT, first_visible(sequence, None), None)
    return View(cosine, sine, real_BT, None, document_mask(sequence, None))


def rms(x, weight):
    return x / (x.square().mean() + LATENT_EPSILON).sqrt() * weight


def turned(x, position, config):
    """A rotation by complex numbers: dimension i with dimension i + half."""
    half = config.rope_dim // 2
    factor = config.rope.yarn.rotation_factor if config.rope.yarn else 1.0
    angle = position * frequencies(config.rope_dim, config.rope)
    result = torch.complex(x[:half], x[half:]) * torch.polar(torch.full((half,), factor), angle)
    return torch.cat((result.real, result.imag))


def by_formula(made, config, hidden_TD, documents):
    """Equations 9 to 19 and 37 to 47 of arXiv 2405.04434, token by token and head by head."""
    position_T = torch.cat([torch.arange(length) for length in documents])
    start_T = torch.cat([torch.full((length,), sum(documents[:index])) for index, length in enumerate(documents)])
    rank = config.query_rank or 0
    keys, values, queries = [], [], []
    for hidden, position in zip(hidden_TD, position_T, strict=True):
        down = made.down.weight @ hidden
        c, shared = rms(down[rank : rank + config.kv_rank], made.kv_norm.weight), turned(down[rank + config.kv_rank :], position, config)
        query = made.query_up.weight @ rms(down[:rank], made.query_norm.weight) if rank else made.query.weight @ hidden
        query = query.view(config.num_heads, -1)
        queries.append([torch.cat((head[: config.nope_dim], turned(head[config.nope_dim :], position, config))) for head in query])
        up = (made.kv_up.weight @ c).view(config.num_heads, -1)
        keys.append([torch.cat((head[: config.nope_dim], shared)) for head in up])
        values.append([head[config.nope_dim :] for head in up])
    scale = 1 / math.sqrt(config.nope_dim + config.rope_dim)
    if config.rope.yarn:
        scale *= (0.1 * config.rope.yarn.mscale_all_dim * math.log(config.rope.yarn.factor) + 1) ** 2
    result = []
    for t in range(len(hidden_TD)):
        seen = range(int(start_T[t]), t + 1)
        heads = []
        for n in range(config.num_heads):
            weight = torch.stack([queries[t][n] @ keys[s][n] * scale for s in seen]).softmax(0)
            heads.append(sum(w * values[s][n] for w, s in zip(weight, seen, strict=True)))
        result.append(made.output.weight @ torch.cat(heads))
    return torch.stack(result)


SHAPES = [latent(), latent(query_rank=None), latent(yarn=YARN), latent(nope=2, rope=2, value=11), latent(nope=12, rope=4, value=16)]


@pytest.mark.parametrize("config", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [False, True], ids=["masked", "kernel"])
def test_the_expanded_form_is_the_formula(config, kernel):
    if kernel and not serves(torch.device("cpu"), torch.float32, kernel_dim(config)):
        pytest.skip("no compiler on this machine")
    made, documents = mixer(config), [5, 1, 7]
    hidden = torch.randn(1, 13, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = by_formula(made, config, hidden[0], documents)
    result, _ = made(hidden, view(packed(documents), config, kernel=kernel))
    assert_close(result[0], wanted, atol=1e-5, rtol=1e-5)
    direction = torch.randn(result.shape, generator=torch.Generator().manual_seed(2)) / 13
    inputs = [hidden, *made.parameters()]
    ours = torch.autograd.grad((result * direction).sum(), inputs)
    for name, a, b in zip(["hidden", *dict(made.named_parameters())], ours, torch.autograd.grad((wanted * direction[0]).sum(), inputs), strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"gradient of {n}: {m}")


@given(
    query_rank=st.none() | st.integers(1, 6),
    dims=st.tuples(*[st.integers(1, 5)] * 4),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_the_absorbed_form_equals_the_expanded_one(query_rank, dims, lengths, seed):
    nope, half, value, rank = dims
    config = LatentConfig(num_heads=2, query_rank=query_rank, kv_rank=rank, nope_dim=nope, rope_dim=2 * half, value_dim=value)
    made = mixer(config, seed)
    span, seen = sum(lengths), view(packed(lengths), config)
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(2, span, heads, size, generator=generator) for heads, size in ((2, nope), (2, 2 * half), (1, rank), (1, 2 * half))]
    with torch.no_grad():
        key_B1SE = torch.cat(parts[2:], dim=-1).transpose(1, 2)
        assert_close(made.absorbed(*parts[:2], key_B1SE, seen.mask_BTS), made.mixed(*made.heads(*parts), seen), atol=1e-5, rtol=1e-5)


def test_absorbing_pays_for_single_tokens_and_not_for_prompts():
    axk1 = LatentConfig(num_heads=64, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    assert absorbing_pays(axk1, 1, 32)
    assert absorbing_pays(axk1, 1, 32_768)
    assert not absorbing_pays(axk1, 4096, 4096)
    # by hand: 512·256 for what is made per head, 1088 per pair absorbed against 320 expanded
    for num_new, span in ((3, 7), (100, 500), (150, 4000), (200, 4000)):
        absorbed, expanded = num_new * 512 * 256 + num_new * span * 1088, span * 512 * 256 + num_new * span * 320
        assert absorbing_pays(axk1, num_new, span) == (absorbed < expanded)


@pytest.mark.parametrize("yarn", [None, YARN, YarnConfig(factor=40.0, original_context=64), YarnConfig(factor=2.0, original_context=4096, beta_fast=48)])
def test_frequencies_are_those_of_transformers(yarn):
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    parameters = {"rope_type": "default", "rope_theta": 5e4}
    if yarn is not None:
        parameters = {
            "rope_type": "yarn", "rope_theta": 5e4, "factor": yarn.factor, "original_max_position_embeddings": yarn.original_context,
            "beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow, "mscale": yarn.mscale, "mscale_all_dim": yarn.mscale_all_dim,
        }  # fmt: skip
    theirs = transformers.DeepseekV3Config(qk_rope_head_dim=64, rope_parameters=parameters, max_position_embeddings=4096)
    rope = RopeConfig(theta=5e4, yarn=yarn)
    if yarn is None:
        wanted = 1.0 / 5e4 ** (torch.arange(0, 64, 2).float() / 64)
    else:
        wanted, factor = rope_utils.ROPE_INIT_FUNCTIONS["yarn"](theirs)
        assert yarn.rotation_factor == pytest.approx(factor)
    assert_close(frequencies(64, rope), wanted)


@pytest.mark.parametrize(("change", "named"), [({"rope_dim": 3}, "rope_dim 3 must be even"), ({"kv_rank": 0}, "kv_rank"), ({"query_rank": 0}, "query_rank")])
def test_impossible_latent_attention_is_refused(change, named):
    with pytest.raises(ValidationError, match=named):
        LatentConfig(**{**latent().model_dump(exclude={"kind"}), **change})


def test_impossible_yarn_is_refused():
    with pytest.raises(ValidationError, match="beta_fast"):
        YarnConfig(factor=2.0, original_context=8, beta_fast=1.0)
    with pytest.raises(ValidationError, match="factor"):
        YarnConfig(factor=1.0, original_context=8)
