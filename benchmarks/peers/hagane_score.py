"""Score the pretrained weights of a hagane run on held-out documents, by the product's own `bits_per_byte.score` (windows begin as `carry`).

python -m peers.hagane_score RUN TEST OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from hagane.engine.load import load_decoder
from hagane.evaluate.bits_per_byte import score
from hagane.tokenizer.bpe import load_tokenizer
from peers.score import read_test, write_scores


def main() -> None:
    run, test_path, out = (Path(argument) for argument in sys.argv[1:4])
    decoder, config = load_decoder(run / "pretrain")  # float32, as the others are scored
    test = read_test(test_path)
    scores = score(decoder, load_tokenizer(run / "encode"), [document["text"] for document in test], config.context)
    write_scores(out, test, {"carry": scores.bits_D.tolist()})


if __name__ == "__main__":
    main()
