"""Multi-token prediction (DeepSeek-V3, 2024, section 2.2): modules after the decoder that predict further tokens, one each.

Module k (from 1) has at token i the hidden state of the one before it (of the decoder for k = 1, after its final norm) and the embedding
of token i + k, and predicts token i + k + 1: both are normed, joined (embedding first, as every host stores the matrix), projected to the
model's width, and pass one block and a norm. Embedding and head are the decoder's. While training this asks the decoder's hidden states
to hold more of what comes; while generating, the first module drafts the token that the decoder then checks (`engine.draft`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.model.config import ModelConfig
from hagane.model.indexer import IndexStats
from hagane.model.layer_cache import LayerCache
from hagane.model.linear import Linear
from hagane.model.norm import RMSNorm
from hagane.model.router import RouterStats
from hagane.model.sequence import PADDING, View


def shifted(values: Tensor, offset: int) -> Tensor:
    """(B, T, ...) moved `offset` places to the front, zeros behind."""
    offset = min(offset, values.shape[1])
    return F.pad(values[:, offset:], (0, 0) * (values.dim() - 2) + (0, offset))


def later(values_BT: Tensor, document_BT: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """What stands `offset` places further in the same document (B, T), and where there is such a place (bool); 0 where there is none."""
    # counted from 1, so that the zeros behind are no document
    there_BT = (shifted(document_BT + 1, offset) == document_BT + 1) & (document_BT != PADDING)
    return torch.where(there_BT, shifted(values_BT, offset), torch.zeros_like(values_BT)), there_BT


class MtpModule(nn.Module):
    """One module. Its block is built by the decoder, which knows how; it is compiled with the rest as one unit."""

    def __init__(self, config: ModelConfig, block: nn.Module, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.embedding_norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.hidden_norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.projection = Linear(2 * config.width, config.width, device)
        self.block = block
        self.norm = RMSNorm(config.width, config.norm_epsilon, device)

    def forward(
        self, hidden_BTD: Tensor, embedded_BTD: Tensor, view: View, cache: LayerCache | None = None
    ) -> tuple[Tensor, RouterStats | None, IndexStats | None]:
        """`embedded_BTD`: the token k after each. Returns hidden states for the head and the next module, and its router's and indexer's statistics."""
        joined_BTE = torch.cat((self.embedding_norm(embedded_BTD), self.hidden_norm(hidden_BTD)), dim=-1)
        output_BTD, router_stats, index_stats = self.block(self.projection(joined_BTE), view, cache)
        return self.norm(output_BTD), router_stats, index_stats
