"""Score a nanochat checkpoint on held-out documents, in float32. Runs in nanochat's own environment and checkout.

NANOCHAT_DTYPE=float32 python -m peers.nanochat_score TAG TEST OUT CONTEXT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from nanochat.checkpoint_manager import load_model
from torch import Tensor

from peers.score import check_lossless, document_bits, read_test, write_scores


def main() -> None:
    tag, test_path, out, context = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    model, tokenizer, _ = load_model("base", torch.device("cpu"), phase="eval", model_tag=tag)
    test = read_test(test_path)
    ids_D = tokenizer.encode([document["text"] for document in test])
    check_lossless(test, [tokenizer.decode(ids) for ids in ids_D])

    def nll(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return model(inputs_BT, targets_BT, loss_reduction="none").view_as(targets_BT)

    write_scores(out, test, document_bits(nll, ids_D, tokenizer.get_bos_token_id(), context))


if __name__ == "__main__":
    main()
