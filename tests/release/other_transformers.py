"""What a version of transformers makes of released folders, on one line of JSON: run with that version on the path, the folders as arguments.

Per folder: what of it is missing or left over, logits on the ids in `expected.json`, and its chat template with thinking on and off.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers


def read(folder: Path) -> dict[str, object]:
    """Load a folder as any user would, and compute."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor([expected["ids"]])).logits[0]
    rendered = [
        tokenizer.apply_chat_template(expected["messages"], tokenize=False, add_generation_prompt=True, enable_thinking=thinking) for thinking in (True, False)
    ]
    return {
        "model_type": model.config.model_type,
        "odd": {name: sorted(map(str, values)) for name, values in report.items() if values},
        "gap": float((logits - torch.tensor(expected["logits"])).abs().max()),
        "ids": tokenizer(expected["text"])["input_ids"] == expected["ids"],
        "template": rendered == expected["rendered"],
    }


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    print(json.dumps({"transformers": transformers.__version__, "folders": {path: read(Path(path)) for path in sys.argv[1:]}}))
