"""Generation: what everyone calls. The rows that decode together are in `batch`, with drafts in `draft`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from hagane.engine.batch import Batch, OnTokens
from hagane.engine.draft import DraftedBatch, Drafts
from hagane.engine.sampling import Sampling
from hagane.model.decoder import Decoder


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    on_tokens: OnTokens | None = None,
    drafts: Drafts | None = None,
) -> list[list[int]]:
    """New tokens of every prompt, in the order given; a row that stopped ends with its stop token, one that ran out does not.

    Greedy at temperature 0. Sampled tokens depend on (seed, prompt number, token number) only, up to rounding
    of the logits, which batching may change in the last bits. `drafts`: decode speculatively, which changes nothing but the
    time, and count the drafts there; needs temperature 0 and a model with modules for multi-token prediction.
    Raises ValueError for an empty prompt, and for drafts that there cannot be.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("an empty prompt has no token to continue from; give it <|endoftext|> at least")
    if drafts is not None and (temperature != 0 or not decoder.config.mtp_layers):
        raise ValueError("drafts are of greedy decoding, by a model that was trained with model.pattern.mtp_layers")
    if not prompts or max_new_tokens < 1:
        return [[] for _ in prompts]
    with torch.inference_mode():
        rows = min(batch_size, len(prompts))
        if drafts is not None:
            batch: Batch = DraftedBatch(decoder, prompts, max_new_tokens, stop_ids, rows, on_tokens, drafts)
        else:
            batch = Batch(decoder, prompts, max_new_tokens, stop_ids, Sampling(temperature, top_p, seed), rows, on_tokens)
        while batch.num_active:
            batch.step()
    return batch.outputs()
