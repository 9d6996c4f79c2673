"""The gated delta rule (Yang et al. 2024, "Gated Delta Networks", equation 10): one step at a time, and in chunks for training.

Per value head, with a matrix S (H, W) as the state: S ← exp(g_t) S, then S ← S + k_t (β_t (v_t - Sᵀ k_t))ᵀ, and o_t = Sᵀ q_t. A document
begins with S = 0. All of it is float32, whatever the inputs are.

In chunks of C tokens (Yang et al. 2024, "Parallelizing linear transformers with the delta rule", section 3; with decay as in section 3.3 of
the first): what tokens of a chunk write depends on each other through a unit lower triangular matrix, solved once per chunk for all chunks
at the same time; what remains step by step is one small update of S per chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def recurrent(
    query_BTKH: Tensor, key_BTKH: Tensor, value_BTVW: Tensor, log_decay_BTV: Tensor, beta_BTV: Tensor, begins_BT: Tensor | None, state_BVHW: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One token after another: the definition, and what decoding does. See `chunked` for what goes in and comes out."""
    query, key, value, log_decay, beta = _wide(query_BTKH, key_BTKH, value_BTVW, log_decay_BTV, beta_BTV)
    group = value.shape[2] // key.shape[2]
    query, key = (x.repeat_interleave(group, dim=2) for x in (query, key))
    keep_BTV = log_decay.exp() if begins_BT is None else log_decay.exp() * ~begins_BT[..., None]
    state = _state(key, value) if state_BVHW is None else state_BVHW
    mixed = []
    for t in range(value.shape[1]):
        state = state * keep_BTV[:, t, :, None, None]
        known_BVW = (key[:, t, :, None] @ state)[:, :, 0]
        written_BVW = beta[:, t, :, None] * (value[:, t] - known_BVW)
        state = state + key[:, t, :, :, None] * written_BVW[:, :, None]
        mixed.append((query[:, t, :, None] @ state)[:, :, 0])
    return torch.stack(mixed, dim=1), state


def chunked(
    query_BTKH: Tensor,
    key_BTKH: Tensor,
    value_BTVW: Tensor,
    log_decay_BTV: Tensor,
    beta_BTV: Tensor,
    begins_BT: Tensor | None = None,
    state_BVHW: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """The gated delta rule over whole rows: (B, T, V, W) float32, and the state after the last token (B, V, H, W).

    V value heads share K key heads in order (V a multiple of K). Keys should have length 1 at most, queries their scale already.
    `log_decay_BTV` is at most 0, `beta_BTV` within 0 and 1: with 0 and 0 a token changes nothing (padding). Where `begins_BT` (bool) is
    set, the state is forgotten before the token. `state_BVHW` is where the rows begin, nothing by default.
    """
    length = value_BTVW.shape[1]
    query, key, value, log_decay, beta = (_chunks(x, chunk) for x in _wide(query_BTKH, key_BTKH, value_BTVW, log_decay_BTV, beta_BTV))
    decay = _decay(log_decay, begins_BT, chunk)
    key_V, query_V = _per_value_head(key, value), _per_value_head(query, value)
    key_gram, query_gram = (_per_value_head(x @ key.transpose(-1, -2), value) for x in (key, query))
    system_CC = key_gram * decay.between_CC * beta[..., None]
    # the diagonal is not read: it counts as one
    solved = torch.linalg.solve_triangular(
        system_CC, torch.cat((value, key_V * decay.from_start_C[..., None]), dim=-1) * beta[..., None], upper=False, unitriangular=True
    )
    wanted, reading = solved.split([value.shape[-1], key.shape[-1]], dim=-1)
    begin = _state(key_BTKH, value_BTVW) if state_BVHW is None else state_BVHW
    written, states, end = scan(wanted, reading, key_V * decay.to_end_C[..., None], decay.whole, begin)
    mixed = (query_V * decay.from_start_C[..., None]) @ states + (query_gram * decay.between_CC) @ written
    mixed_BTVW = mixed.permute(1, 0, 3, 2, 4).flatten(1, 2)
    return mixed_BTVW[:, :length], end


class _Decay(NamedTuple):
    """What is left of what was written, in chunks (N, B, V): 0 where a document begins between."""

    between_CC: Tensor  # by token j, when token i reads it; 0 for j > i
    from_start_C: Tensor  # before the chunk, when token i reads it
    to_end_C: Tensor  # by token j, after the chunk
    whole: Tensor  # before the chunk, after it


def _decay(log_decay_NBVC: Tensor, begins_BT: Tensor | None, chunk: int) -> _Decay:
    # float64: the difference of two long sums must be as exact as the short sum it stands for
    ones_CC = torch.ones(chunk, chunk, dtype=torch.float64, device=log_decay_NBVC.device)
    total = log_decay_NBVC.double() @ ones_CC.triu()
    between = (total[..., :, None] - total[..., None, :]).float()
    from_start, to_end, whole = total.float().exp(), (total[..., -1:] - total).float().exp(), total[..., -1].float().exp()
    causal_CC = ones_CC.tril() > 0
    if begins_BT is None:
        return _Decay(between.masked_fill(~causal_CC, float("-inf")).exp(), from_start, to_end, whole)
    # how many documents have begun in the chunk, this token's included
    begun_NBC = _chunks(begins_BT[..., None], chunk)[:, :, 0].long().cumsum(-1)
    same = causal_CC & (begun_NBC[..., :, None] == begun_NBC[..., None, :])
    between = between.masked_fill(~same[:, :, None], float("-inf")).exp()
    first, last = begun_NBC == 0, begun_NBC == begun_NBC[..., -1:]
    return _Decay(between, from_start * first[:, :, None], to_end * last[:, :, None], whole * first[:, :, -1:])


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.float() for tensor in tensors]


def _state(key_BTKH: Tensor, value_BTVW: Tensor) -> Tensor:
    rows, _, num_heads, head_dim = value_BTVW.shape
    return torch.zeros(rows, num_heads, key_BTKH.shape[-1], head_dim, device=value_BTVW.device)


def _chunks(tensor: Tensor, chunk: int) -> Tensor:
    """(B, T, heads, ...) -> (N, B, heads, chunk, ...), filled up with zeros, which change nothing."""
    rows, length = tensor.shape[:2]
    count = -(-length // chunk)
    tensor = F.pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, count * chunk - length])
    return tensor.view(rows, count, chunk, *tensor.shape[2:]).movedim((1, 3), (0, 2)).contiguous()


def _per_value_head(tensor: Tensor, value: Tensor) -> Tensor:
    """(N, B, K, ...) -> (N, B, V, ...)."""
    return tensor.repeat_interleave(value.shape[2] // tensor.shape[2], dim=2)


@torch.library.custom_op("hagane::delta_scan", mutates_args=())
def scan(wanted: Tensor, reading: Tensor, key: Tensor, whole: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From chunk to chunk: written[n] = wanted[n] - reading[n] S, then S ← whole[n] S + key[n]ᵀ written[n], from S = `begin`.

    `wanted` (N, B, V, C, W), `reading` and `key` (N, B, V, C, H), `whole` (N, B, V), `begin` (B, V, H, W). Returns what was written, the
    states before each chunk (N, B, V, H, W) and the last one. One operator, so that compiled graphs do not grow with the context.
    """
    written = wanted.new_empty(wanted.shape)
    states = begin.new_empty(wanted.shape[0], *begin.shape)
    state = begin.clone(memory_format=torch.contiguous_format)
    for n in range(wanted.shape[0]):
        states[n] = state
        torch.sub(wanted[n], reading[n] @ state, out=written[n])
        state = torch.addcmul(key[n].transpose(-1, -2) @ written[n], state, whole[n, ..., None, None])
    return written, states, state


@scan.register_fake
def _(wanted: Tensor, reading: Tensor, key: Tensor, whole: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return wanted.new_empty(wanted.shape), begin.new_empty(wanted.shape[0], *begin.shape), begin.new_empty(begin.shape)


@torch.library.custom_op("hagane::delta_scan_backward", mutates_args=())
def scan_backward(
    d_written: Tensor, d_states: Tensor, d_end: Tensor, reading: Tensor, key: Tensor, whole: Tensor, written: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of wanted, reading, key, whole and begin."""
    d_wanted, d_after, d_state = written.new_empty(written.shape), states.new_empty(states.shape), d_end.clone(memory_format=torch.contiguous_format)
    for n in reversed(range(written.shape[0])):
        d_after[n] = d_state
        torch.add(d_written[n], key[n] @ d_state, out=d_wanted[n])
        d_state = torch.addcmul(d_states[n], d_state, whole[n, ..., None, None]) - reading[n].transpose(-1, -2) @ d_wanted[n]
    d_reading, d_key = -(d_wanted @ states.transpose(-1, -2)), written @ d_after.transpose(-1, -2)
    return d_wanted, d_reading, d_key, (states * d_after).sum((-1, -2)), d_state


@scan_backward.register_fake
def _(
    d_written: Tensor, d_states: Tensor, d_end: Tensor, reading: Tensor, key: Tensor, whole: Tensor, written: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    d_wanted, d_reading, d_key, d_whole, d_begin = (x.new_empty(x.shape) for x in (written, reading, key, whole, d_end))
    return d_wanted, d_reading, d_key, d_whole, d_begin


def _set_up(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, reading, key, whole, _ = inputs
    ctx.save_for_backward(reading, key, whole, *output[:2])


def _backward(ctx: Any, d_written: Tensor, d_states: Tensor, d_end: Tensor) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = scan_backward(d_written, d_states, d_end, *ctx.saved_tensors)
    return result


scan.register_autograd(_backward, setup_context=_set_up)
