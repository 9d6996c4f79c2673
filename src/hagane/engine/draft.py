"""Speculative decoding (Leviathan et al. 2023) with the model's own draft: the first module for multi-token prediction.

In every step the decoder reads two tokens of each row at once: the one it chose last, and the module's guess of the next. What it chooses
after the first tells whether the guess was right; then its choice after the second counts as well, else the guess is taken back from
the cache. Every token is so the decoder's own: the same as without drafts, up to rounding of the logits, which reading two tokens
at once may change in the last bits. The module reads on from the decoder's hidden states, and from tokens that stay only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hagane.engine.batch import Batch, OnTokens
from hagane.engine.cache import GrowingCache
from hagane.engine.sampling import Sampling
from hagane.model.cache import Cache
from hagane.model.decoder import Decoder


@dataclass
class Drafts:
    """Switches drafts on, and counts them."""

    proposed: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the drafts that were the decoder's own choice."""
        return self.accepted / self.proposed if self.proposed else 0.0


class DraftedBatch(Batch):
    """Rows that decode with a draft each. Greedy only."""

    ahead = 1

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Collection[int],
        rows: int,
        on_tokens: OnTokens | None,
        drafts: Drafts,
    ) -> None:
        self.drafts = drafts
        self.draft_cache = GrowingCache(decoder, rows, max(map(len, prompts)), config=decoder.config.draft_block)
        self.draft_B = np.zeros(rows, dtype=np.int64)
        super().__init__(decoder, prompts, max_new_tokens, stop_ids, Sampling(), rows, on_tokens)

    def _decode(self) -> None:
        """One or two tokens for every active row."""
        row_A = np.flatnonzero(self.active_B)
        guessed_B = self.active_B & (self.step_B + 1 < self.max_new_tokens)  # of a row's last token nothing is guessed
        num_new_B = self.active_B.astype(np.int64) + guessed_B
        token_B2 = self._tensor(np.stack((self.token_B, self.draft_B), axis=1))
        hidden_B2D = self.decoder(token_B2, self.cache.sequence(num_new_B.tolist(), 2), self.cache).hidden_BTD
        choice_A2 = self._choose(hidden_B2D, row_A)
        right_A = guessed_B[row_A] & (choice_A2[:, 0] == self.draft_B[row_A])
        used_A = right_A & ~np.isin(choice_A2[:, 0], self.stop_ids)
        self.drafts.proposed += int(guessed_B.sum())
        self.drafts.accepted += int(right_A.sum())
        kept_B = np.zeros(len(self.active_B), dtype=np.int64)
        kept_B[row_A] = 1 + used_A
        self.cache.retract((num_new_B - kept_B).tolist())
        self._record(row_A, choice_A2[:, 0])
        if used_A.any():
            self._record(row_A[used_A], choice_A2[used_A, 1])
        following_B2 = np.zeros((len(self.active_B), 2), dtype=np.int64)
        following_B2[row_A] = choice_A2
        if self.num_active:
            self._guess(np.arange(len(self.active_B)), hidden_B2D, following_B2, kept_B * self.active_B, self.draft_cache)

    def _prefilled(self, row_A: NDArray[np.int64], tokens_AT: NDArray[np.int64], length_A: NDArray[np.int64], hidden_ATD: Tensor) -> None:
        """The module reads the prompts, each token with the hidden state of the one before it, up to the first new one."""
        following_AT = np.concatenate((tokens_AT[:, 1:], tokens_AT[:, :1]), axis=1)
        following_AT[np.arange(len(row_A)), length_A - 1] = self.token_B[row_A]
        cache = self.decoder.new_draft_cache(len(row_A), int(length_A.max()))
        self._guess(row_A, hidden_ATD, following_AT, length_A, cache)
        self.draft_cache.put(row_A.tolist(), cache)

    def _guess(
        self, row_A: NDArray[np.int64], hidden_ATD: Tensor, following_AT: NDArray[np.int64], num_A: NDArray[np.int64], cache: Cache
    ) -> None:
        """Guess the token after the last of `num_A` new ones of these rows; `hidden_ATD` are of the tokens before them."""
        drafted_ATD = self.decoder.draft(hidden_ATD, self._tensor(following_AT), cache.sequence(num_A.tolist(), following_AT.shape[1]), cache)
        last_A = self._tensor(np.maximum(num_A - 1, 0))
        logits_AV = self.decoder.head.logits(drafted_ATD[torch.arange(len(row_A), device=self.device), last_A])
        self.draft_B[row_A] = logits_AV.argmax(-1).cpu().numpy()

    def _choose(self, hidden_B2D: Tensor, row_A: NDArray[np.int64]) -> NDArray[np.int64]:
        """The decoder's choices after both tokens of these rows."""
        if len(row_A) != hidden_B2D.shape[0]:
            hidden_B2D = hidden_B2D[self._tensor(row_A)]
        choice: NDArray[np.int64] = self.decoder.head.logits(hidden_B2D).argmax(-1).cpu().numpy()
        return choice

    def _keep(self, kept_A: NDArray[np.int64]) -> None:
        super()._keep(kept_A)
        self.draft_cache.select(kept_A.tolist())
        self.draft_B = self.draft_B[kept_A]
