"""A conversation in the terminal: streamed, with thinking shown dim, switched by /think and /plain.

Reads lines from a terminal or a pipe. What is not an answer (notices, help) goes to standard error where output is a pipe,
so that `hagane chat RUN --prompt …` can be used in scripts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, NamedTuple

import torch
from rich.console import Console
from rich.text import Text
from tokenizers import Tokenizer

from hagane.engine.draft import Drafts
from hagane.engine.generate import generate
from hagane.engine.load import load_decoder, load_huggingface
from hagane.engine.reply import ReplyStream, decode, parse
from hagane.errors import RunError
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.tokenizer.bpe import load_tokenizer
from hagane.tokenizer.chat import ChatEncoder, Message
from hagane.tokenizer.special import END_OF_TEXT, IM_END

HELP = """/think  think before answering
/plain  answer at once
/reset  forget the conversation
/help   this
/quit   leave (so does the end of input)"""
ANSWER_SHARE = 0.5  # of the context is kept free for the answer; older turns are forgotten for it


class Model(NamedTuple):
    """A loaded model; `name` says where it came from, `tuned` whether it learned to answer."""

    decoder: Decoder
    config: ModelConfig
    tokenizer: Tokenizer
    name: str
    tuned: bool


def find_model(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, *, drafts: bool = False) -> Model:
    """The release of a run, else the weights of its last finished training stage; or any Hugging Face folder of a host we know.

    With `drafts` the first of these that can draft: most releases leave out what drafts. Raises RunError when there is none yet.
    """
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}. Give the folder of a run, for example runs/quickstart.")
    tunes = sorted(folder.glob("tune/*/weights.safetensors"), key=lambda path: path.stat().st_mtime)
    for release in (folder, folder / "huggingface", folder / "release" / "huggingface"):
        if (release / "config.json").exists():
            decoder, config = load_huggingface(release, device, dtype)
            if drafts and not config.mtp_layers:
                continue
            # of a release alone nobody can tell; it gets the benefit of the doubt
            return Model(decoder, config, load_tokenizer(release), release.name, bool(tunes) or release == folder)
    for path in [*reversed(tunes), *(folder / stage / "weights.safetensors" for stage in ("extend", "midtrain", "pretrain"))]:
        if path.exists():
            decoder, config = load_decoder(path.parent, device, dtype)
            if drafts and not config.mtp_layers:
                raise RunError(f"{path} has no module that drafts. Train one with model.pattern.mtp_layers = 1, or leave out --drafts.")
            return Model(decoder, config, load_tokenizer(folder / "encode"), path.parent.relative_to(folder).as_posix(), path in tunes)
    if drafts and (folder / "config.json").exists():
        raise RunError(f"the model in {folder} has no module that drafts. Leave out --drafts.")
    raise RunError(f"{folder} has no trained model yet. `hagane status {folder}` says how far it is.")


def chat(
    folder: Path,
    *,
    prompt: str | None = None,
    thinking: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    device: str = "cpu",
    drafts: bool = False,
    source: IO[str] | None = None,
) -> None:
    """Answer `prompt` and return, or converse until /quit or the end of `source` (standard input).

    Raises RunError for `drafts` that there cannot be: of a model without a module for them, or of sampled answers.
    """
    if drafts and temperature > 0:
        raise RunError("--drafts are of greedy answers. Leave out --temperature, or --drafts.")
    with Console(stderr=True).status("Loading the model. The first time, kernels are compiled for this processor: some seconds."):
        model = find_model(folder, device, drafts=drafts)
    session = Session(model, thinking, temperature, top_p, seed, max_new_tokens, Drafts() if drafts else None)
    if prompt is not None:
        session.ask(prompt)
        return
    source = source or sys.stdin
    session.notice(f"{model.name}: {'thinking' if thinking else 'plain'} mode. /help lists the commands.")
    while (line := _read(source, session.console)) is not None:
        if line.startswith("/"):
            if not session.command(line):
                return
        elif line:
            session.ask(line)


def _read(source: IO[str], console: Console) -> str | None:
    """The next line, or None at the end of input."""
    try:
        if source.isatty():
            return console.input("[bold]> [/bold]", stream=None).strip()
        line = source.readline()
    except (EOFError, KeyboardInterrupt):
        return None
    except UnicodeDecodeError as error:
        raise RunError(f"the input is not UTF-8 text ({error.reason} at byte {error.start}). Convert it first.") from None
    return line.strip() if line else None


class Session:
    """A conversation with one model and how it is shown."""

    def __init__(
        self, model: Model, thinking: bool, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, max_new_tokens: int | None = None,
        drafts: Drafts | None = None,
    ) -> None:  # fmt: skip
        self.model, self.thinking, self.temperature, self.top_p, self.seed = model, thinking, temperature, top_p, seed
        self.max_new_tokens, self.drafts = max_new_tokens, drafts
        self.messages: list[Message] = []
        self.encoder = ChatEncoder(model.tokenizer)
        self.console = Console(highlight=False, soft_wrap=True)
        self.notices = Console(stderr=not self.console.is_terminal, highlight=False, soft_wrap=True)
        if not model.tuned:
            self.notice(f"{model.name} was not tuned to answer: it can only continue text.")

    def notice(self, text: str) -> None:
        self.notices.print(Text(text, style="italic"))

    def command(self, line: str) -> bool:
        """Do what a line beginning with / says. False: leave."""
        match line.split()[0].lower():
            case "/quit" | "/exit":
                return False
            case "/think" | "/plain" as mode:
                self.thinking = mode == "/think"
                self.notice("thinking mode" if self.thinking else "plain mode")
            case "/reset":
                self.messages.clear()
                self.notice("the conversation is forgotten")
            case "/help":
                self.notice(HELP)
            case other:
                self.notice(f"{other} is not a command.\n{HELP}")
        return True

    def ask(self, question: str) -> str | None:
        """Stream the answer and remember it. Returns it, or None where the thinking did not end."""
        self.messages.append({"role": "user", "content": question})
        ids = self._fitting_prompt()
        # a question too long for the context still gets an answer, from a model that never saw so long a text
        room = max(self.model.config.context - len(ids), int(ANSWER_SHARE * self.model.config.context))
        stream = ReplyStream(self.model.tokenizer, self.thinking)
        printer = _Printer(self.console)

        def show(_: list[int], tokens: list[int]) -> None:
            printer.write(*stream.step(tokens[0]))

        limit = room if self.max_new_tokens is None else min(room, self.max_new_tokens)
        stop_ids = [self.encoder.special[IM_END], self.encoder.special[END_OF_TEXT]]
        try:
            turn = self.seed + len(self.messages)
            (output,) = generate(self.model.decoder, [ids], limit, stop_ids, self.temperature, self.top_p, turn, on_tokens=show, drafts=self.drafts)
        except KeyboardInterrupt:
            printer.end()
            self.messages.pop()
            self.notice("stopped")
            return None
        printer.end()
        if self.drafts is not None:
            self.notice(f"{self.drafts.acceptance:.0%} of {self.drafts.proposed:,} drafts accepted so far")
        reply = parse(decode(self.model.tokenizer, output), self.thinking)
        if not reply.finished:
            self.notice(f"cut off after {len(output)} tokens" + (", still thinking" if reply.answer is None else ""))
        self.messages.append({"role": "assistant", "content": reply.answer or ""})
        return reply.answer

    def _fitting_prompt(self) -> list[int]:
        """Ids of the conversation; its oldest turns are forgotten where they would leave no room for an answer."""
        ids = self.encoder.prompt(self.messages, self.thinking)
        while len(self.messages) > 1 and len(ids) > (1 - ANSWER_SHARE) * self.model.config.context:
            del self.messages[:2]
            ids = self.encoder.prompt(self.messages, self.thinking)
        return ids


class _Printer:
    """Pieces of an answer as they come: thinking dim, without the empty lines around it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thinking: bool | None = None
        self._pending = ""

    def write(self, piece: str, thinking: bool) -> None:
        text = self._pending + piece
        if thinking != self._thinking:
            text = piece.lstrip()
            if text and self._thinking is not None:
                text = "\n" + text
        if not text:
            return
        # line ends wait: at the end of a part they are not shown
        kept = text.rstrip()
        self._pending = text[len(kept) :]
        if kept:
            self._thinking = thinking
            self._console.print(Text(kept, style="dim" if thinking else ""), end="")
            self._console.file.flush()

    def end(self) -> None:
        if self._thinking is not None:
            self._console.print()
