"""Does transformers read what we wrote as we do? Tokens, chat template, logits and greedy text on prompts of every kind.

Keys that an indexer scores equally are taken as transformers takes them, or no sparse model could be compared: that choice is its library's, and
another one for scores of another width, so that one text is decoded at a time.

It reads the folder as any user would (`AutoConfig`, `AutoTokenizer`, `AutoModelForCausalLM`), without a network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hagane.engine.generate import generate
from hagane.errors import RunError
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence as Placement
from hagane.tokenizer.bpe import special_ids
from hagane.tokenizer.chat import CHAT_TEMPLATE, Message, render
from hagane.tokenizer.save import chat_template
from hagane.tokenizer.special import END_OF_TEXT, IM_END

TOLERANCE = 1e-4
"""Largest difference of float32 logits that is rounding; where logits are larger than 1, times the largest of them."""
GREEDY_TOKENS = 32

QUESTIONS = ("What is 1234 + 987?", "三千四百二十一を数字で書いてください。", "Hur många dagar är det mellan 3 mars och 21 april?", "이천삼 더하기 구는?")
TEXTS = ("The quick brown fox", "def add(first, second):\n    return", "Ég heiti Jón og bý á Íslandi.\n\n", "🙂 naïve — 你好\t１２")


@dataclass(frozen=True)
class Verdict:
    """What was compared and how close it was. `greedy_parted`: prompts whose texts are the same up to two tokens within rounding of each other only."""

    max_logit_gap: float
    rounding_logit_gap: float
    form_logit_gap: float | None
    largest_logit: float
    greedy_tokens: int
    greedy_parted: int
    prompts_checked: int
    transformers: str


def verify(folder: Path, decoder: Decoder, master: Decoder, tokenizer: Tokenizer, adaptive: Decoder | None = None) -> Verdict:
    """Compare a written folder with `decoder` (the rounded weights) and, for what rounding changed, `master`. Raises RunError on any difference.

    `adaptive` is our own form of a model whose exported form is `decoder`: how far apart they are is measured.
    """
    transformers = import_transformers()
    with _quiet(transformers):
        try:
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
            their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever transformers says is the finding
            raise RunError(f"the release was stopped: transformers cannot load it ({type(error).__name__}: {error}).") from error
        prompts = _prompts(tokenizer, their_tokenizer, kept=chat_template(folder) != CHAT_TEMPLATE)
        for one in (decoder, master):
            for indexer in one.indexers():
                indexer.library_ties = True
        gap, rounding, largest = _compare_logits(prompts, decoder, master, theirs)
        form = None if adaptive is None else max(_gap(decoder, adaptive, ids) for ids in prompts.values())
        tokens, parted = _compare_greedy(prompts, decoder, theirs, tokenizer, TOLERANCE * max(1.0, largest))
    return Verdict(gap, rounding, form, largest, tokens, parted, len(prompts), transformers.__version__)


def import_transformers() -> ModuleType:
    """transformers, or a RunError that says how to get it."""
    try:
        import transformers
    except ImportError:
        raise RunError("a release is checked with transformers, which is not installed. Install it with `pip install 'hagane[hf]'`.") from None
    module: ModuleType = transformers
    return module


@contextlib.contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bars or advice of transformers in our output."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _prompts(tokenizer: Tokenizer, their_tokenizer: object, *, kept: bool) -> dict[str, list[int]]:
    """Prompt -> ids, after making sure that both tokenizers agree on every one, and both chat templates where the folder's is not `kept` of a checkpoint."""
    texts = [*TEXTS, END_OF_TEXT, f"{END_OF_TEXT}{TEXTS[0]}"]
    for rendering in renderings(their_tokenizer, kept=kept):
        if not kept and rendering.text != (text := render(rendering.messages, rendering.thinking)):
            raise RunError(f"the release was stopped: the chat template gives {rendering.text!r} in transformers and {text!r} in hagane.")
        texts.append(rendering.text)
    prompts = {}
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        their_ids = their_tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        if list(their_ids) != ids or list(their_tokenizer(text)["input_ids"]) != ids:  # type: ignore[operator]
            raise RunError(f"the release was stopped: transformers reads {text!r} as other tokens than hagane does.")
        prompts[text] = ids
    return prompts


@dataclass(frozen=True)
class Rendering:
    """A conversation as a chat template gives it, up to where the next answer begins."""

    messages: list[Message]
    thinking: bool
    text: str


def renderings(their_tokenizer: object, *, kept: bool) -> list[Rendering]:
    """Every conversation with thinking and without, by transformers. Those that a template `kept` of a checkpoint refuses are left out.

    Raises RunError where it refuses all of them.
    """
    found, refusal = [], ""
    for messages in conversations():
        for thinking in (True, False):
            try:
                text = their_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)  # type: ignore[attr-defined]
            except Exception as error:  # a template is a program: it refuses in its own way
                if not kept:
                    raise
                refusal = f" ({type(error).__name__}: {error})"
            else:
                found += [Rendering(messages, thinking, text)] if text else []
    if not found:
        raise RunError(f"the release was stopped: the chat template kept from the checkpoint gives no text for any conversation{refusal}.")
    return found


def conversations() -> list[list[Message]]:
    single = [[{"role": "user", "content": question}] for question in QUESTIONS]
    answer = {"role": "assistant", "content": "2221", "reasoning_content": "1234 + 987 = 2221"}
    return [*single, [{"role": "system", "content": "Answer briefly."}, *single[0], answer, *single[1]]]


@torch.inference_mode()
def _compare_logits(prompts: dict[str, list[int]], decoder: Decoder, master: Decoder, theirs: torch.nn.Module) -> tuple[float, float, float]:
    """Largest gap to transformers, largest gap to the unrounded weights, largest logit."""
    gap = rounding = largest = 0.0
    for text, ids in prompts.items():
        token_BT = torch.tensor([ids])
        ours = _logits(decoder, token_BT)
        other: Tensor = theirs(input_ids=token_BT).logits.float()
        here, size = float((ours - other).abs().max()), float(ours.abs().max())
        allowed = TOLERANCE * max(1.0, size)
        if not here <= allowed:  # also when it is not a number
            raise RunError(f"the release was stopped: transformers' logits differ from ours by {here:.3g} on {text!r}; {allowed:.1g} would be rounding.")
        gap, largest = max(gap, here), max(largest, size)
        rounding = max(rounding, float((ours - _logits(master, token_BT)).abs().max()))
    return gap, rounding, largest


@torch.inference_mode()
def _gap(one: Decoder, two: Decoder, ids: list[int]) -> float:
    token_BT = torch.tensor([ids])
    return float((_logits(one, token_BT) - _logits(two, token_BT)).abs().max())


def _logits(decoder: Decoder, token_BT: Tensor) -> Tensor:
    return decoder.head.logits(decoder(token_BT, Placement.plain(*token_BT.shape)).hidden_BTD)


def _compare_greedy(prompts: dict[str, list[int]], decoder: Decoder, theirs: torch.nn.Module, tokenizer: Tokenizer, tolerance: float) -> tuple[int, int]:
    """Tokens compared, and prompts that parted. Where both go apart at two logits within rounding of each other, the rest of that prompt is left out."""
    special = special_ids(tokenizer)
    together = 1 if any(True for _ in decoder.indexers()) else len(prompts)
    ours = generate(decoder, list(prompts.values()), GREEDY_TOKENS, [special[IM_END], special[END_OF_TEXT]], batch_size=together)
    compared = parted = 0
    for (text, ids), mine in zip(prompts.items(), ours, strict=True):
        output = theirs.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64), max_new_tokens=GREEDY_TOKENS)  # type: ignore[operator]
        other = output[0, len(ids) :].tolist()
        apart = next((index for index, (one, two) in enumerate(zip(mine, other)) if one != two), None)
        if apart is None and len(mine) != len(other):
            raise RunError(f"the release was stopped: transformers ends its answer to {text!r} elsewhere than hagane does.")
        if apart is not None and not _tied(decoder, [*ids, *mine[:apart]], mine[apart], other[apart], tolerance):
            raise RunError(f"the release was stopped: transformers goes on from {text!r} with other words than hagane does (token {apart + 1}).")
        compared += len(mine) if apart is None else apart
        parted += apart is not None
    return compared, parted


@torch.inference_mode()
def _tied(decoder: Decoder, ids: Sequence[int], one: int, two: int, tolerance: float) -> bool:
    """Whether two tokens are within rounding of each other after a text."""
    logits_V = _logits(decoder, torch.tensor([list(ids)]))[0, -1]
    return bool((logits_V[one] - logits_V[two]).abs() <= tolerance)
