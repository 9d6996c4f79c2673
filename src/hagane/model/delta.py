"""Gated DeltaNet (Yang et al. 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule"), in the form of Qwen3-Next.

Queries, keys and values pass a short causal convolution per channel and a SiLU; queries and keys then have length 1. They write to and
read from a matrix per value head (`kernels.delta_rule`) that forgets at a rate exp(-exp(A_log) · softplus(a + dt_bias)), a from the token.
What is read is normed per head and multiplied with silu(z). No positions: order comes from the convolution and from forgetting.
A document sees nothing of the ones before it in its row: neither the state nor the convolution reaches over its first token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.delta_rule import chunked, recurrent
from hagane.kernels.delta_step import delta_steps
from hagane.model.config import DeltaConfig
from hagane.model.layer_cache import LayerCache, Placement
from hagane.model.linear import Linear
from hagane.model.norm import RMSNorm
from hagane.model.sequence import View

SINGLE_STEPS = 8  # up to so many tokens are taken one by one: fewer operations than one chunk
LENGTH_EPSILON = 1e-6  # under the root of a query's or key's length, as in the published kernels


class DeltaCache(LayerCache):
    """The last inputs of the convolution (rows, taps - 1, channels) and the state (rows, value heads, key dim, value dim), float32.

    As much for one token as for a million. A row of length 0 counts as empty whatever is stored.
    """

    names = ("recent_BLC", "state_BVHW")

    def __init__(self, rows: int, config: DeltaConfig, device: torch.device | str | None) -> None:
        self.recent_BLC = torch.zeros(rows, config.taps - 1, config.channels, device=device)
        self.state_BVHW = torch.zeros(rows, config.num_value_heads, config.key_dim, config.value_dim, device=device)
        self.ahead = 0
        self._way: tuple[Placement, Tensor, Tensor, Tensor] | None = None

    def read(self) -> tuple[Tensor, Tensor]:
        """Where the rows of the placed forward pass go on from."""
        assert self.placement is not None, "the decoder places tokens before its layers run"
        held_B = self.placement.start_B > 0
        return self.recent_BLC * held_B[:, None, None], self.state_BVHW * held_B[:, None, None, None]

    def cleared(self) -> tuple[Tensor, Tensor]:
        """What `read` gives, but the cache's own tensors, to be changed in place."""
        assert self.placement is not None
        if not (self.placement.start_B > 0).all():
            self.recent_BLC, self.state_BVHW = self.read()
        self.state_BVHW = self.state_BVHW.contiguous()
        return self.recent_BLC, self.state_BVHW

    def write(self, inputs_BXC: Tensor, num_new_B: Tensor, state_BVHW: Tensor) -> None:
        """`inputs_BXC` are the recent inputs read before, then those of the new tokens, of which `num_new_B` are real."""
        slot_BL = num_new_B[:, None] + torch.arange(self.recent_BLC.shape[1], device=num_new_B.device)
        self.recent_BLC = inputs_BXC.gather(1, slot_BL[..., None].expand(*slot_BL.shape, inputs_BXC.shape[2]))
        self.state_BVHW = state_BVHW

    def remember(self, inputs_BXC: Tensor, num_new_B: Tensor, states: list[Tensor]) -> None:
        """For `retract`: the inputs given to `write`, and the states before the first new token and after each."""
        assert self.placement is not None
        self._way = self.placement, inputs_BXC, num_new_B, torch.stack(states, dim=1)

    def prepare(self, ahead: int) -> None:
        self.ahead = ahead

    def retract(self, num_B: Tensor) -> None:
        """Back to where the row was on the way through the last forward pass."""
        assert self._way is not None and self._way[0] is self.placement, "tokens are taken back right after a short forward pass"
        _, inputs_BXC, num_new_B, state_BSVHW = self._way
        kept_B = num_new_B - num_B
        self.write(inputs_BXC, kept_B, state_BSVHW[torch.arange(len(kept_B), device=kept_B.device), kept_B])


class Delta(nn.Module):
    """The mixer of kind `delta`.

    `qkvz` makes queries (K · H), keys (K · H), values (V · W) and z (V · W), in this order along its rows, `rates` the V logits of
    beta and then the V inputs of the decay. `conv` (channels, taps) has the newest token last; its channels are q, k, v.
    """

    def __init__(self, width: int, config: DeltaConfig, norm_epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        value_width = config.num_value_heads * config.value_dim
        self.qkvz = Linear(width, config.channels + value_width, device)
        self.rates = Linear(width, 2 * config.num_value_heads, device)
        self.conv = nn.Parameter(torch.empty(config.channels, config.taps, device=device))
        self.A_log = nn.Parameter(torch.empty(config.num_value_heads, device=device))
        self.dt_bias = nn.Parameter(torch.empty(config.num_value_heads, device=device))
        self.output_norm = RMSNorm(config.value_dim, norm_epsilon, device)
        self.output = Linear(value_width, width, device)
        self.fused = False  # few tokens by the kernel of `kernels.delta_step`, where it serves

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        rows, length, _ = hidden_BTD.shape
        config = self.config
        inputs_BTC, z_BTZ = self.qkvz(hidden_BTD).split([config.channels, config.num_value_heads * config.value_dim], dim=-1)
        if self.fused and isinstance(cache, DeltaCache) and not cache.ahead and length <= SINGLE_STEPS:
            return self.output(self._few_steps(hidden_BTD, inputs_BTC, z_BTZ, view.real_BT, cache)), None
        beta_BTV, log_decay_BTV = self._rates(hidden_BTD, view.real_BT)
        if cache is None:
            assert view.first_BT is not None, "a recurrent mixer is told where documents begin"
            inputs_BXC = F.pad(inputs_BTC.float(), (0, 0, config.taps - 1, 0))
            heads = self._heads(inputs_BXC, view.first_BT)
            begins_BT = view.first_BT == torch.arange(length, device=hidden_BTD.device)
            read_BTVW, _ = chunked(*heads, log_decay_BTV, beta_BTV, begins_BT, chunk=config.chunk)
        else:
            assert isinstance(cache, DeltaCache)
            recent_BLC, state = cache.read()
            inputs_BXC = torch.cat((recent_BLC, inputs_BTC.float()), dim=1)
            heads, num_new_B = self._heads(inputs_BXC, None), view.real_BT.sum(1).long()
            if cache.ahead and length <= SINGLE_STEPS:
                read_BTVW, states = _step_by_step(*heads, log_decay_BTV, beta_BTV, state)
                cache.remember(inputs_BXC, num_new_B, states)
                state = states[-1]
            else:
                rule = recurrent if length <= SINGLE_STEPS else chunked
                read_BTVW, state = rule(*heads, log_decay_BTV, beta_BTV, None, state)
            cache.write(inputs_BXC, num_new_B, state)
        gated_BTVW = self.output_norm(read_BTVW) * F.silu(z_BTZ.float()).view(read_BTVW.shape)
        return self.output(gated_BTVW.to(hidden_BTD.dtype).reshape(rows, length, -1)), None

    def _few_steps(self, hidden_BTD: Tensor, inputs_BTC: Tensor, z_BTZ: Tensor, real_BT: Tensor, cache: DeltaCache) -> Tensor:
        recent_BLC, state_BVHW = cache.cleared()
        inputs_BXC = torch.cat((recent_BLC, inputs_BTC.float()), dim=1)
        read_BTZ = delta_steps(
            inputs_BXC, self.conv, self.rates(hidden_BTD), self.A_log, self.dt_bias, real_BT, self.output_norm.weight, z_BTZ, state_BVHW,
            LENGTH_EPSILON, self.output_norm.epsilon,
        )  # fmt: skip
        cache.write(inputs_BXC, real_BT.sum(1).long(), state_BVHW)
        return read_BTZ

    def _rates(self, hidden_BTD: Tensor, real_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Beta and the log of the decay, float32; both 0 for padding, which so leaves the state alone."""
        beta_BTV, decay_BTV = self.rates(hidden_BTD).float().chunk(2, dim=-1)
        log_decay_BTV = -self.A_log.float().exp() * F.softplus(decay_BTV + self.dt_bias.float())
        return beta_BTV.sigmoid() * real_BT[..., None], log_decay_BTV * real_BT[..., None]

    def _heads(self, inputs_BXC: Tensor, first_BT: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, K, H), keys (B, T, K, H) and values (B, T, V, W) from the convolution of inputs with `taps - 1` tokens before the first.

        With `first_BT` a token's convolution reaches no further back than to that one.
        """
        config, weight = self.config, self.conv.float()
        length = inputs_BXC.shape[1] - config.taps + 1
        mixed_BTC = torch.zeros_like(inputs_BXC[:, :length])
        for tap in range(config.taps):
            reached = inputs_BXC[:, tap : tap + length] * weight[:, tap]
            if first_BT is not None:
                slot_T = torch.arange(tap - config.taps + 1, length + tap - config.taps + 1, device=first_BT.device)
                reached = torch.where((slot_T >= first_BT)[..., None], reached, 0.0)
            mixed_BTC = mixed_BTC + reached
        key_width = config.num_key_heads * config.key_dim
        query, key, value = torch.split(F.silu(mixed_BTC), [key_width, key_width, config.num_value_heads * config.value_dim], dim=-1)
        shape = (*mixed_BTC.shape[:2], -1)
        query, key = (_unit(x.reshape(*shape, config.key_dim)) for x in (query, key))
        return query * config.key_dim**-0.5, key, value.reshape(*shape, config.value_dim)


def _step_by_step(
    query_BTKH: Tensor, key_BTKH: Tensor, value_BTVW: Tensor, log_decay_BTV: Tensor, beta_BTV: Tensor, state_BVHW: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """`recurrent` with the states before the first token and after each."""
    read, states = [], [state_BVHW]
    for t in range(value_BTVW.shape[1]):
        query, key, value, log_decay, beta = (x[:, t : t + 1] for x in (query_BTKH, key_BTKH, value_BTVW, log_decay_BTV, beta_BTV))
        read_B1VW, state_BVHW = recurrent(query, key, value, log_decay, beta, None, state_BVHW)
        read.append(read_B1VW)
        states.append(state_BVHW)
    return torch.cat(read, dim=1), states


def _unit(heads_BTKH: Tensor) -> Tensor:
    return heads_BTKH * torch.rsqrt(heads_BTKH.square().sum(-1, keepdim=True) + LENGTH_EPSILON)
