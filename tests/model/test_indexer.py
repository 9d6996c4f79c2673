"""The lightning indexer: what it chooses and how it learns, against the definitions written out; every form of sparse attention against one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.kernels.attention import serves
from hagane.model import indexer as indexer_file
from hagane.model import latent as latent_file
from hagane.model.config import IndexConfig, LatentConfig
from hagane.model.indexer import Indexer, Probe, choose, index_scores
from hagane.model.latent import LatentAttention, kernel_dim
from hagane.model.rope import rotation
from hagane.model.sequence import PADDING, Sequence, View, document_mask, first_visible

WIDTH = 20


def sparse(top_k=4, share=None, num_heads=8):
    index = IndexConfig(num_heads=num_heads, head_dim=6, top_k=top_k, share=share)
    return LatentConfig(num_heads=3, query_rank=10, kv_rank=9, nope_dim=6, rope_dim=4, value_dim=7, index=index)


def mixer(config, seed=0):
    made = LatentAttention(WIDTH, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 + (parameter.dim() == 1))
    return made


def packed(documents, padding=0):
    ids = [index for index, length in enumerate(documents) for _ in range(length)] + [PADDING] * padding
    position = torch.cat([torch.arange(length) for length in [*documents, padding]])
    return Sequence(position[None], torch.tensor([ids], dtype=torch.int32))


def view(sequence, config, *, kernel=False):
    cosine, sine = rotation(sequence.position_BT, config.rope_dim, config.rope)
    real_BT = (sequence.document_BT != PADDING).float()
    return View(cosine, sine, real_BT, first_visible(sequence, None), None) if kernel else View(cosine, sine, real_BT, None, document_mask(sequence, None))


def hidden(length, seed=1):
    return torch.randn(1, length, WIDTH, generator=torch.Generator().manual_seed(seed))


@given(
    scores=st.lists(st.lists(st.integers(-3, 3), min_size=7, max_size=7), min_size=1, max_size=3), top_k=st.integers(1, 9),
    share=st.none() | st.floats(0.05, 0.95), seen=st.lists(st.booleans(), min_size=7, max_size=7).filter(any),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_the_keys_read_are_the_best_and_no_more_than_needed(scores, top_k, share, seen):
    """Sorted by hand: the best keys, ties to the earlier, until `share` of the softmax is held or there are `top_k`."""
    score_BTS = torch.tensor([scores]).double()
    seen_BTS = torch.tensor(seen).expand(1, len(scores), 7)
    chosen = choose(score_BTS, seen_BTS, IndexConfig(num_heads=1, head_dim=2, top_k=top_k, share=share))
    for row, mine in zip(scores, chosen[0], strict=True):
        order = sorted((slot for slot in range(7) if seen[slot]), key=lambda slot: (-row[slot], slot))
        mass = torch.tensor([row[slot] for slot in order]).double().softmax(0).cumsum(0)
        held = [float(value) for value in mass[: top_k]]
        count = len(held) if share is None else next((index + 1 for index, value in enumerate(held) if value >= share), len(held))
        if share is None or all(abs(value - share) > 1e-9 for value in held):
            assert mine.nonzero()[:, 0].tolist() == sorted(order[:count])


def test_ties_are_those_of_the_library_where_that_is_asked_for():
    score, seen = torch.randint(-2, 3, (2, 50, 50)).float(), torch.ones(50, 50, dtype=torch.bool).tril().expand(2, -1, -1)
    config = IndexConfig(num_heads=1, head_dim=2, top_k=9)
    mine, theirs = choose(score, seen, config), choose(score, seen, config, library_ties=True)
    wanted = score.masked_fill(~seen, -torch.inf).topk(9).indices
    assert torch.equal(theirs, torch.zeros_like(theirs).scatter(-1, wanted, True) & seen)
    assert torch.equal(mine.sum(-1), theirs.sum(-1))
    assert not torch.equal(mine, theirs)
    assert torch.equal((score * mine).sum(-1), (score * theirs).sum(-1))


def test_ties_of_the_library_do_not_see_room_for_tokens_to_come():
    """Its choice goes by the width of the scores, and a host's cache is as wide as the text."""
    torch.manual_seed(0)
    indexer = Indexer(16, 8, IndexConfig(num_heads=1, head_dim=4, top_k=9))
    indexer.library_ties = True
    probe = Probe(torch.randn(1, 1, 1, 4), -torch.ones(1, 1, 1), torch.randn(1, 40, 4))
    assert (index_scores(*probe) == 0).sum() > 9, "more keys tie than can be read"
    seen = torch.ones(1, 1, 40, dtype=torch.bool)
    wide = Probe(probe.query_BTJH, probe.weight_BTJ, torch.cat([probe.key_BSH, torch.randn(1, 25, 4)], dim=1))
    found = indexer.chosen(wide, torch.nn.functional.pad(seen, (0, 25)))
    assert found.shape[2] == 65 and not found[..., 40:].any() and torch.equal(found[..., :40], indexer.chosen(probe, seen))


def test_scores_are_weighted_sums_of_what_is_positive():
    """I(t, s) = Σ_j w(t, j) relu(q(t, j) · k(s)), number by number."""
    query, weight, key = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4), torch.randn(2, 6, 5)
    scores = index_scores(query, weight, key)
    for b, t, s in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(6)).tolist():
        wanted = sum(float(weight[b, t, j]) * max(0.0, float(query[b, t, j] @ key[b, s])) for j in range(4))
        assert float(scores[b, t, s]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("config", [sparse(), sparse(top_k=1), sparse(top_k=6, share=0.5)], ids=str)
@pytest.mark.parametrize("documents", [[13], [5, 1, 9], [40, 20]])
def test_the_kernel_equals_the_written_out_form(config, documents):
    """Outputs, statistics and every gradient, the indexer's included."""
    if not serves(torch.device("cpu"), torch.float32, kernel_dim(config)):
        pytest.skip("no compiler on this machine")
    made, sequence = mixer(config), packed(documents, padding=3)
    results = []
    for kernel in (False, True):
        states = hidden(sum(documents) + 3).requires_grad_()
        output, stats = made(states, view(sequence, config, kernel=kernel))
        direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)) / output.shape[1]
        real = (sequence.document_BT != PADDING)[..., None]
        loss = (output * direction * real).sum() + stats.divergence_sum / output.shape[1]
        results.append((output[real[..., 0]], *stats, *torch.autograd.grad(loss, [states, *made.parameters()])))
    for name, a, b in zip(["output", "KL", "read", "tokens", "hidden", *dict(made.named_parameters())], *results, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("config", [sparse(), sparse(share=0.5)], ids=str)
def test_a_document_is_read_as_if_it_were_alone(config):
    made, documents = mixer(config), [6, 1, 8]
    states = hidden(15)
    together, _ = made(states, view(packed(documents), config))
    for part, state in zip(together.split(documents, dim=1), states.split(documents, dim=1), strict=True):
        assert_close(part, made(state, view(packed([state.shape[1]]), config))[0], atol=1e-6, rtol=1e-5)


def test_keys_that_suffice_for_all_make_attention_dense():
    config = sparse(top_k=15)
    made, states = mixer(config), hidden(15)
    dense = mixer(config)
    dense.indexer.mode = "dense"
    seen = view(packed([6, 9]), config)
    assert_close(made(states, seen)[0], dense(states, seen)[0])
    few = mixer(sparse(top_k=3))
    assert (few(states, seen)[0] - dense(states, seen)[0]).abs().max() > 1e-2


@given(lengths=st.lists(st.integers(1, 5), min_size=2, max_size=2), top_k=st.integers(1, 6), share=st.none() | st.just(0.6), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_reading_the_chosen_keys_alone_equals_masking_the_others(lengths, top_k, share, seed):
    config = sparse(top_k, share)
    made, generator = mixer(config, seed), torch.Generator().manual_seed(seed)
    span, seen = sum(lengths), view(packed(lengths), config)
    plain, turned, key = (torch.randn(2, *shape, generator=generator) for shape in ((span, 3, 6), (span, 3, 4), (1, span, 13)))
    chosen = choose(torch.randn(2, span, span, generator=generator), seen.mask_BTS.expand(2, -1, -1), config.index)
    with torch.no_grad():
        assert_close(made.gathered(plain, turned, key, chosen, top_k), made.absorbed(plain, turned, key, chosen), atol=1e-5, rtol=1e-5)


def by_definition(made, states, seen, among_BTS, real_BT):
    """KL of the softmax of the scores from the heads' mean attention over the same keys, by autograd; inputs of the indexer detached."""
    caught = {}
    learn = made.indexer.learn
    made.indexer.learn = lambda probe, query, key, *rest: caught.update(probe=probe, query=query.detach(), key=key.detach()) or learn(probe, query, key, *rest)
    made(states, seen)
    made.indexer.learn = learn
    score = torch.einsum("btnh,bsnh->bnts", caught["query"], caught["key"]) * made.score_scale
    target = torch.where(among_BTS[:, None], score, -torch.inf).softmax(-1).mean(1)
    mine = torch.where(among_BTS, index_scores(*caught["probe"]), -torch.inf).log_softmax(-1)
    terms = torch.where(target > 0, target * (target.log() - mine), 0.0)
    return (torch.where(among_BTS, terms, 0.0).sum(-1) * real_BT).sum()


@pytest.mark.parametrize("mode", ["warmup", "sparse"])
def test_the_indexer_learns_from_attention_and_nothing_else_does(mode, monkeypatch):
    monkeypatch.setattr(indexer_file, "BLOCK", 4)  # several blocks
    config = sparse(top_k=3)
    made, sequence = mixer(config), packed([6, 7], padding=2)
    made.indexer.mode = mode
    states, seen = hidden(15).requires_grad_(), view(sequence, config)
    caught = {}
    made.indexer.register_forward_hook(lambda module, inputs, probe: caught.update(probe=probe))
    stats = made(states, seen)[1]
    among = seen.mask_BTS if mode == "warmup" else made.indexer.chosen(caught["probe"], seen.mask_BTS)
    assert int(stats.read_sum) == int((among.sum(-1) * seen.real_BT).sum())
    assert int(stats.num_tokens) == 13
    wanted = by_definition(made, states, seen, among, seen.real_BT)
    assert_close(stats.divergence_sum, wanted, atol=1e-5, rtol=1e-5)
    learning = dict(made.indexer.named_parameters())
    ours, theirs = (torch.autograd.grad(value / 13, list(learning.values())) for value in (stats.divergence_sum, wanted))
    for name, a, b in zip(learning, ours, theirs, strict=True):
        assert a.abs().max() > 0
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"gradient of {n}: {m}")
    made.zero_grad()
    made(states, seen)[1].divergence_sum.backward()
    assert states.grad is None or not states.grad.any()
    for name, parameter in made.named_parameters():
        assert name.startswith("indexer.") or parameter.grad is None or not parameter.grad.any(), name


def test_an_indexer_that_agrees_with_attention_has_nothing_to_learn():
    """One head of attention over two keys of equal score, an indexer with equal scores: divergence and gradients are zero."""
    made = mixer(sparse(top_k=9))
    with torch.no_grad():
        made.query_up.weight.zero_()
        made.indexer.weigh.weight.zero_()
    made.indexer.mode = "warmup"
    _, stats = made(hidden(7), view(packed([7]), made.config))
    assert float(stats.divergence_sum.detach()) == pytest.approx(0.0, abs=1e-5)


def test_nothing_is_learned_in_evaluation_nor_in_dense_training():
    made, seen = mixer(sparse()), view(packed([9]), sparse())
    assert made.eval()(hidden(9), seen)[1] is None
    made.train()
    with torch.no_grad():
        assert made(hidden(9), seen)[1] is None
    made.indexer.mode = "dense"
    assert made(hidden(9), seen)[1] is None


def test_decoding_reads_no_more_than_the_chosen_keys(tiny, monkeypatch):
    """With three keys to read, the products over the cache are of three keys whatever it holds."""
    spans = []
    attend = latent_file.attend

    def watched(query, key, value, mask, scale):
        spans.append(key.shape[2])
        return attend(query, key, value, mask, scale)

    model = tiny("indexed")
    cache = model.new_cache(2, 64)
    with torch.no_grad():
        model(torch.randint(0, 61, (2, 40)), cache.sequence([40, 33]), cache)
        monkeypatch.setattr(latent_file, "attend", watched)
        model(torch.randint(0, 61, (2, 1)), cache.sequence([1, 1]), cache)
    assert spans == [3, 3]


@pytest.mark.parametrize(
    ("change", "named"), [({"query_rank": None}, "index needs query_rank"), ({"rope_dim": 8}, "head_dim 6 must be at least rope_dim 8")]
)
def test_impossible_indexers_are_refused(change, named):
    with pytest.raises(ValidationError, match=named):
        LatentConfig(**{**sparse().model_dump(exclude={"kind"}), **change})
    with pytest.raises(ValidationError, match="share"):
        sparse(share=1.0)
