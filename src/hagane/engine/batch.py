"""Continuous batching: a fixed number of rows decode together, and a finished row makes room for a waiting prompt.

One decoding step costs the same Python for one row as for 256: rows are never touched one by one. Finished rows idle
until there are enough of them to be worth a prefill of waiting prompts (their slots of the cache are overwritten) or,
when no prompt waits, a smaller cache without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hagane.engine.cache import GrowingCache
from hagane.engine.sampling import Sampling
from hagane.model.decoder import Decoder
from hagane.model.linear import stepped

OnTokens = Callable[[list[int], list[int]], None]
"""Called after every step with prompt numbers and their new tokens."""

PREFILL_TOKENS = {"cpu": 2_048, "cuda": 65_536}
"""Tokens (padding included) of one prefill. On a CPU 2,048 was twice as fast as 16,384, whose intermediates leave the processor's caches."""

IDLE_SHARE = 0.125
"""Of the rows that may idle before they are refilled or dropped."""


class Batch:
    """The rows that decode together. `prompt_B[row]` is the prompt a row continues, `step_B[row]` how many tokens it has added."""

    ahead = 0  # tokens of a forward pass that may be taken back

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Collection[int],
        sampling: Sampling,
        rows: int,
        on_tokens: OnTokens | None,
    ) -> None:
        self.decoder, self.prompts, self.max_new_tokens, self.sampling, self.on_tokens = decoder, prompts, max_new_tokens, sampling, on_tokens
        self.device = decoder.embedding.weight.device
        self.prefill_tokens = PREFILL_TOKENS.get(self.device.type, 2_048)
        self.stop_ids = np.array(sorted(stop_ids), dtype=np.int64)
        # longest first: neighbours in a prefill are alike, and the longest conversations do not start last
        self.waiting = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        self.emitted: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self.cache = GrowingCache(decoder, rows, len(prompts[self.waiting[0]]), ahead=self.ahead)
        self.prompt_B = np.zeros(rows, dtype=np.int64)
        self.step_B = np.zeros(rows, dtype=np.int64)
        self.token_B = np.zeros(rows, dtype=np.int64)
        self.active_B = np.zeros(rows, dtype=bool)
        self._refill()

    @property
    def num_active(self) -> int:
        return int(self.active_B.sum())

    def step(self) -> None:
        """The next tokens of every active row."""
        self._decode()
        idle = len(self.active_B) - self.num_active
        if idle > IDLE_SHARE * len(self.active_B) or not self.num_active:
            self._refill()
            self._compact()

    def _decode(self) -> None:
        """One token for every active row."""
        sequence = self.cache.sequence(self.active_B.astype(int).tolist(), 1)
        hidden_BD = self.decoder(self._tensor(self.token_B[:, None]), sequence, self.cache).hidden_BTD[:, 0]
        self._emit(np.flatnonzero(self.active_B), hidden_BD)

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _emit(self, row_A: NDArray[np.int64], hidden_BD: Tensor) -> None:
        """Choose the next token of these rows (all rows of `hidden_BD`, or those among them that are active)."""
        if hidden_BD.shape[0] != len(row_A):
            hidden_BD = hidden_BD[torch.from_numpy(row_A).to(self.device)]
        logits_AV = self.decoder.head.logits(hidden_BD)
        self._record(row_A, self.sampling.choose(logits_AV, self.prompt_B[row_A], self.step_B[row_A]).cpu().numpy())

    def _record(self, row_A: NDArray[np.int64], token_A: NDArray[np.int64]) -> None:
        """Take in the next token of these rows."""
        prompt_A, step_A = self.prompt_B[row_A], self.step_B[row_A]
        self.token_B[row_A] = token_A
        self.step_B[row_A] = step_A + 1
        self.active_B[row_A] = ~np.isin(token_A, self.stop_ids) & (step_A + 1 < self.max_new_tokens)
        self.emitted.append((prompt_A, token_A))
        if self.on_tokens is not None:
            self.on_tokens(prompt_A.tolist(), token_A.tolist())

    def _refill(self) -> None:
        """Give idle rows to waiting prompts."""
        while self.waiting and not self.active_B.all():
            longest = len(self.prompts[self.waiting[0]])
            row_A = np.flatnonzero(~self.active_B)[: min(len(self.waiting), max(1, self.prefill_tokens // longest))]
            taken, self.waiting = self.waiting[: len(row_A)], self.waiting[len(row_A) :]
            self._prefill(row_A, taken)

    def _prefill(self, row_A: NDArray[np.int64], taken: list[int]) -> None:
        length_A = np.array([len(self.prompts[index]) for index in taken])
        longest = int(length_A.max())
        tokens_AT = np.zeros((len(taken), stepped(longest)), dtype=np.int64)
        for row, index in enumerate(taken):
            tokens_AT[row, : length_A[row]] = self.prompts[index]
        cache = self.decoder.new_cache(len(taken), longest, ahead=self.ahead)
        hidden_ATD = self.decoder(self._tensor(tokens_AT), cache.sequence(length_A.tolist(), tokens_AT.shape[1]), cache).hidden_BTD
        self.cache.put(row_A.tolist(), cache)
        self.prompt_B[row_A], self.step_B[row_A] = taken, 0
        self._emit(row_A, hidden_ATD[torch.arange(len(taken), device=self.device), self._tensor(length_A - 1)])
        self._prefilled(row_A, tokens_AT, length_A, hidden_ATD)

    def _prefilled(self, row_A: NDArray[np.int64], tokens_AT: NDArray[np.int64], length_A: NDArray[np.int64], hidden_ATD: Tensor) -> None:
        """Prompts were read and their first new tokens chosen: for who wants to read them, too."""

    def _compact(self) -> None:
        """Drop idle rows, when nothing waits for them."""
        kept_A = np.flatnonzero(self.active_B)
        if len(kept_A) and len(kept_A) < len(self.active_B):
            self._keep(kept_A)

    def _keep(self, kept_A: NDArray[np.int64]) -> None:
        self.cache.select(kept_A.tolist())
        self.prompt_B, self.step_B, self.token_B, self.active_B = (x[kept_A] for x in (self.prompt_B, self.step_B, self.token_B, self.active_B))

    def outputs(self) -> list[list[int]]:
        prompt_M = np.concatenate([prompt for prompt, _ in self.emitted])
        token_M = np.concatenate([token for _, token in self.emitted])
        token_M = token_M[prompt_M.argsort(kind="stable")]
        end_P = np.bincount(prompt_M, minlength=len(self.prompts)).cumsum()
        return [part.tolist() for part in np.split(token_M, end_P[:-1])]
