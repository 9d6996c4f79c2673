"""Cached generation equals uncached, whatever is selected, forked, replaced or rewound on the way."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.model import layer_cache
from hagane.model.count import WINDOW_STEP, cache_bytes
from hagane.model.linear import SHAPE_STEP
from hagane.model.sequence import Sequence

KINDS = [("dense", None), ("dense", 3), ("experts", None), ("latent", None), ("indexed", None), ("gated", None), ("delta", None), ("sandwich", 3)]


def feed(model, cache, pieces):
    """Append one piece of tokens per row (ragged, padded on the right); the hidden states of each."""
    length = max(len(piece) for piece in pieces)
    tokens = torch.stack([torch.cat([piece, torch.full((length - len(piece),), 60)]) for piece in pieces])
    with torch.no_grad():
        hidden = model(tokens, cache.sequence([len(piece) for piece in pieces], length), cache).hidden_BTD
    return [row[: len(piece)] for row, piece in zip(hidden, pieces, strict=True)]


def uncached(model, tokens):
    with torch.no_grad():
        return model(tokens[None], Sequence.plain(1, len(tokens))).hidden_BTD[0]


def assert_row(model, hidden, tokens):
    # other matrix shapes add in another order: float32, entries of about one
    assert_close(hidden, uncached(model, tokens)[len(tokens) - len(hidden) :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "window"), KINDS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_ragged_pieces_equal_one_pass(tiny, kind, window, data):
    model = tiny(kind, window=window)
    rows = data.draw(st.integers(1, 3))
    steps = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=rows, max_size=rows).filter(any), min_size=1, max_size=4))
    cache = model.new_cache(rows, 16)
    texts = [torch.zeros(0, dtype=torch.int64) for _ in range(rows)]
    for counts in steps:
        pieces = [torch.randint(0, 61, (count,)) for count in counts]
        hidden = feed(model, cache, pieces)
        texts = [torch.cat(pair) for pair in zip(texts, pieces, strict=True)]
        for row in range(rows):
            if counts[row]:
                assert_row(model, hidden[row], texts[row])
    assert cache.length_B == [len(text) for text in texts]


@pytest.mark.parametrize(("kind", "window"), [*KINDS, ("dense", 40)])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_tokens_taken_back_leave_no_trace(tiny, kind, window, data):
    """Of every short piece some tokens are taken back, each row its own number, past many turns of a window's ring."""
    model = tiny(kind, window=window)
    rows, ahead = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    long = [data.draw(st.integers(1, 100)) for _ in range(rows)]
    cache = model.new_cache(rows, 160, ahead=ahead)
    texts = [torch.randint(0, 61, (count,)) for count in long]
    feed(model, cache, texts)
    for _ in range(data.draw(st.integers(1, 6))):
        counts = [data.draw(st.integers(0, ahead + 1)) for _ in range(rows)]
        if not any(counts):
            continue
        taken = [data.draw(st.integers(0, min(count, ahead))) for count in counts]
        pieces = [torch.randint(0, 61, (count,)) for count in counts]
        hidden = feed(model, cache, pieces)
        cache.retract(taken)
        for row, (piece, back) in enumerate(zip(pieces, taken, strict=True)):
            if len(piece):
                assert_row(model, hidden[row], torch.cat([texts[row], piece]))
            texts[row] = torch.cat([texts[row], piece[: len(piece) - back]])
    assert cache.length_B == [len(text) for text in texts]
    last = [torch.randint(0, 61, (1,)) for _ in range(rows)]
    for row, hidden in enumerate(feed(model, cache, last)):
        assert_row(model, hidden, torch.cat([texts[row], last[row]]))


def test_no_more_is_taken_back_than_the_cache_was_made_for(tiny):
    model = tiny()
    cache = model.new_cache(2, 16, ahead=1)
    feed(model, cache, [torch.tensor([1, 2, 3]), torch.tensor([4])])
    for wrong in ([2, 0], [-1, 0], [1]):
        with pytest.raises(ValueError, match="can be taken back"):
            cache.retract(wrong)
    with pytest.raises(ValueError, match="up to 0 tokens"):
        model.new_cache(1, 16).retract([1])


def test_a_windowed_layer_keeps_its_window_only(tiny, config):
    """Prompts longer than the window in one piece, then token by token past many turns of the ring: equal to reading all at once."""
    model = tiny(window=40)  # held in 64 slots
    cache = model.new_cache(3, 300)
    assert cache.nbytes == 3 * cache_bytes(config(window=40), 300, bytes_per_value=4)
    per_token = cache_bytes(config(), 1, bytes_per_value=4) // 2  # of one of the two layers
    assert cache.nbytes == 3 * (64 + 300) * per_token
    texts = [torch.randint(0, 61, (count,)) for count in (150, 7, 90)]
    for hidden, text in zip(feed(model, cache, texts), texts, strict=True):
        assert_row(model, hidden, text)
    for size in (1, 30, 1, 100, 1):  # beside the window, and not
        pieces = [torch.randint(0, 61, (count,)) for count in (size, max(0, size - 2), size)]
        texts = [torch.cat(pair) for pair in zip(texts, pieces, strict=True)]
        for hidden, piece, text in zip(feed(model, cache, pieces), pieces, texts, strict=True):
            if len(piece):
                assert_row(model, hidden, text)


@given(window=st.integers(1, 5), data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_ring_of_any_window_equals_one_pass(tiny, window, data):
    """With a step of one token the ring is as small as its window: every path of overwriting is taken."""
    with mock.patch.object(layer_cache, "stepped", lambda size: size):
        model = tiny(window=window)
        cache = model.new_cache(2, 24)
        texts = [torch.zeros(0, dtype=torch.int64)] * 2
        for _ in range(data.draw(st.integers(1, 4))):
            pieces = [torch.randint(0, 61, (data.draw(st.integers(0, 6)),)) for _ in range(2)]
            if not any(len(piece) for piece in pieces):
                continue
            snapshot = cache.snapshot()
            if data.draw(st.booleans()):
                feed(model, cache, [torch.randint(0, 61, (3,))] * 2) if max(cache.length_B) < 15 else None
                cache.rewind(snapshot)
            if max(held + len(piece) for held, piece in zip(cache.length_B, pieces, strict=True)) > 24:
                break
            texts = [torch.cat(pair) for pair in zip(texts, pieces, strict=True)]
            for hidden, piece, text in zip(feed(model, cache, pieces), pieces, texts, strict=True):
                if len(piece):
                    assert_row(model, hidden, text)


def test_rows_of_a_ring_are_selected_forked_and_replaced(tiny):
    model = tiny(window=3)
    with mock.patch.object(layer_cache, "stepped", lambda size: size):
        cache = model.new_cache(3, 40)
        texts = [torch.randint(0, 61, (count,)) for count in (15, 2, 27)]
        feed(model, cache, texts)
        continue_and_check(model, cache.fork(2, 2), [texts[2]] * 2)
        fresh, new = model.new_cache(1, 2), torch.randint(0, 61, (2,))
        feed(model, fresh, [new])
        cache.put([0], fresh)
        cache.select([2, 0])
        continue_and_check(model, cache, [texts[2], new])


@pytest.fixture(params=["experts", "latent", "indexed", "delta"])
def filled(tiny, request):
    """A model, a cache of three ragged rows, and their texts."""
    model = tiny(request.param, window=3)
    cache = model.new_cache(3, 12)
    texts = [torch.randint(0, 61, (count,)) for count in (5, 2, 7)]
    feed(model, cache, texts)
    return model, cache, texts


def continue_and_check(model, cache, texts):
    pieces = [torch.randint(0, 61, (2,)) for _ in texts]
    for hidden, text, piece in zip(feed(model, cache, pieces), texts, pieces, strict=True):
        assert_row(model, hidden, torch.cat([text, piece]))


@pytest.mark.parametrize("rows", [[2, 0], [1], [0, 0, 2, 1]])
def test_select_keeps_rows_in_order(filled, rows):
    model, cache, texts = filled
    cache.select(rows)
    assert cache.num_rows == len(rows)
    continue_and_check(model, cache, [texts[row] for row in rows])


def test_fork_copies_and_leaves_the_original(filled):
    model, cache, texts = filled
    fork = cache.fork(1, 4)
    continue_and_check(model, fork, [texts[1]] * 4)
    continue_and_check(model, cache, texts)


def test_put_and_reset_replace_finished_rows(filled):
    model, cache, texts = filled
    new = torch.randint(0, 61, (4,))
    fresh = model.new_cache(1, 6)
    feed(model, fresh, [new])
    cache.put([2], fresh)
    cache.reset([0])
    continue_and_check(model, cache, [texts[0][:0], texts[1], new])


def test_rewind_undoes_what_came_after(filled):
    model, cache, texts = filled
    snapshot = cache.snapshot()
    feed(model, cache, [torch.randint(0, 61, (count,)) for count in (3, 1, 2)])
    cache.rewind(snapshot)
    assert cache.length_B == [5, 2, 7]
    continue_and_check(model, cache, texts)


def test_a_snapshot_of_other_rows_is_refused(filled):
    _, cache, _ = filled
    snapshot = cache.snapshot()
    cache.select([1, 0, 2])
    with pytest.raises(ValueError, match="snapshot"):
        cache.rewind(snapshot)


def test_windows_are_counted_in_the_steps_they_are_held_in():
    assert WINDOW_STEP == SHAPE_STEP


def test_a_rewound_cache_can_be_rewound_again(filled):
    model, cache, texts = filled
    snapshot = cache.snapshot()
    for _ in range(2):
        continue_and_check(model, cache, texts)
        cache.rewind(snapshot)


@pytest.mark.parametrize("kind", ["experts", "latent", "indexed"])
def test_memory_is_rows_times_length(tiny, config, kind):
    model, per_token = tiny(kind), cache_bytes(config(kind), 1, bytes_per_value=4)
    assert model.new_cache(3, 12).nbytes == 3 * 12 * per_token
    cache = model.new_cache(3, 24)
    assert cache.nbytes == 3 * 24 * per_token
    feed(model, cache, [torch.randint(0, 61, (20,)) for _ in range(3)])
    assert cache.nbytes == 3 * 24 * per_token
    cache.select([1])
    assert cache.nbytes == 24 * per_token
    assert model.new_cache(3, 12, torch.bfloat16).nbytes == 3 * 12 * per_token / 2


def test_a_full_cache_says_so(filled):
    model, cache, _ = filled
    with pytest.raises(ValueError, match="12 tokens"):
        feed(model, cache, [torch.randint(0, 61, (6,)) for _ in range(3)])
    assert cache.length_B == [5, 2, 7]


def test_padding_on_the_left_is_refused(filled):
    model, cache, _ = filled
    sequence = cache.sequence([2, 1, 2])
    with pytest.raises(ValueError, match="right"):
        model(torch.zeros(3, 2, dtype=torch.int64), Sequence(sequence.position_BT, sequence.document_BT.flip(1)), cache)


@pytest.mark.parametrize("kind", ["dense", "latent"])
def test_half_precision_cache_stays_close(tiny, kind):
    model = tiny(kind)
    text = torch.randint(0, 61, (9,))
    cache = model.new_cache(1, 9, torch.bfloat16)
    assert_close(feed(model, cache, [text])[0], uncached(model, text), atol=0.1, rtol=0.1)
