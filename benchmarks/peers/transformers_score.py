"""Score a checkpoint of `transformers_train.py` on held-out documents, in float32.

python -m peers.transformers_score MODEL TOKENIZER TEST OUT CONTEXT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from peers.score import check_lossless, document_bits, read_test, write_scores
from peers.transformers_text import BEGIN


def main() -> None:
    folder, tokenizer_path, test_path, out = (Path(argument) for argument in sys.argv[1:5])
    context = int(sys.argv[5])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    test = read_test(test_path)
    ids_D = [encoding.ids for encoding in tokenizer.encode_batch([document["text"] for document in test], add_special_tokens=False)]
    check_lossless(test, [tokenizer.decode(ids, skip_special_tokens=False) for ids in ids_D])

    def nll(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        logits_BTV = model(input_ids=inputs_BT, use_cache=False).logits.float()
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)

    write_scores(out, test, document_bits(nll, ids_D, tokenizer.token_to_id(BEGIN), context))


if __name__ == "__main__":
    main()
