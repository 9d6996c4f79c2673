"""The tokenizer as other people's engines read it: `tokenizer.json` and `tokenizer_config.json` with the chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from hagane.errors import DataError
from hagane.folder import read_json, write_atomic
from hagane.tokenizer.chat import CHAT_TEMPLATE
from hagane.tokenizer.extend import Pieces
from hagane.tokenizer.special import END_OF_TEXT, IM_END

PIECES = "pieces.json"


def save_for_transformers(tokenizer: Tokenizer, folder: Path, context: int, template: str = CHAT_TEMPLATE) -> None:
    """Write both files into `folder` (made if missing), each whole or not at all. `AutoTokenizer.from_pretrained(folder)` reads them.

    `context` is the longest text the model was made for, in tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False))


def chat_template(folder: Path) -> str:
    """The chat template of `folder/tokenizer_config.json`."""
    template: str = read_json(folder / "tokenizer_config.json")["chat_template"]
    return template


def save_pieces(folder: Path, pieces: Pieces) -> None:
    """Write `folder/pieces.json`: for each token that a checkpoint did not have, the ids of its own tokens that it stands for."""
    write_atomic(folder / PIECES, json.dumps({str(number): ids for number, ids in pieces.items()}))


def load_pieces(folder: Path) -> Pieces:
    """Read `folder/pieces.json`. Raises DataError where it is missing or damaged."""
    path = folder / PIECES
    try:
        return {int(number): tuple(ids) for number, ids in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): make it again with `hagane tokenizer`.") from None
