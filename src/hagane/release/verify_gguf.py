"""Does llama.cpp read a GGUF file as we read the float32 masters? Tokens, chat template, whole distributions and greedy text.

Distributions are compared over the full vocabulary at places spread over real text of every language; greedy text is compared where
the two most likely tokens are far enough apart. A place is unsteady where changing our own weights by as little as half precision does
moves our own distribution by more than the tolerance (two experts tie, and the other is chosen): there no closer agreement can be asked for,
nor of all places together than such changes leave between us and ourselves.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hagane.engine.load import build_decoder
from hagane.errors import RunError
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence as Placement
from hagane.release.llamacpp import LlamaCpp
from hagane.release.verify import TEXTS, Rendering, conversations, import_transformers, renderings
from hagane.tokenizer.chat import CHAT_TEMPLATE, render
from hagane.tokenizer.save import save_for_transformers
from hagane.tokenizer.special import END_OF_TEXT

F16_TOLERANCE = 0.02
"""Largest difference of natural log-probabilities that half precision explains, over the whole vocabulary."""
F16_BITS = 1e-3
"""Bits per token that half precision may cost: the mean KL divergence. Two hundred times less were measured."""
PROBE_SIZE = 2.0**-11
"""The share of each weight by which our own weights are changed to see whether a place is steady. Half precision keeps 11 bits."""
PROBES, TIE_PROBES = 6, 24
"""How often they are changed, and at most where a place is not explained: a change of this size parts a tie that half precision parted in
30 to 60 % of the tries (docs/notebook.md, "Ties of experts in half precision"), so that six miss one in ten and 24 one in thousands."""
UNSTEADY_SHARE = 0.25
"""Of the places, at most: beyond that it is not chance that decides."""
Q8_TOLERANCE = 0.05
"""Bits per token that eight-bit blocks may cost: the mean KL divergence from the masters' distributions (docs/notebook.md, "GGUF")."""
GREEDY_TOKENS = 32
COMPARED_VALUES, PLACES = 200_000, (24, 160)
"""Log-probabilities to compare, and with them the fewest and most places: a large vocabulary is compared at fewer."""
TEXT_TOKENS = 48  # of a text in which distributions are compared


Place = tuple[list[int], int]  # ids, and after how many of them the next token is asked for


@dataclass(frozen=True)
class GgufVerdict:
    """How close the answers were: natural log-probabilities, bits."""

    max_logprob_gap: float
    kl_bits_per_token: float
    steady_kl_bits_per_token: float
    positions: int
    unsteady: int
    greedy_tokens: int


class Reference:
    """What the float32 masters say; one or more files are compared with it. Of a chat template that is not ours transformers says what it gives."""

    def __init__(self, state: Mapping[str, Tensor], config: ModelConfig, tokenizer: Tokenizer, texts: Sequence[str], template: str = CHAT_TEMPLATE) -> None:
        self.config, self.tokenizer, self._kept = config, tokenizer, template != CHAT_TEMPLATE
        self._renderings = _by_transformers(tokenizer, template) if self._kept else _by_us()
        self.prompts = [*dict.fromkeys([*TEXTS, *(rendering.text for rendering in self._renderings)])]
        self.texts = [*dict.fromkeys([*texts, *self.prompts])]
        self._state, self._decoder = state, build_decoder(config, state)

    def compare(self, path: Path, quantisation: str, threads: int) -> GgufVerdict:
        """Raises RunError where llama.cpp cannot load the file or differs by more than the quantisation explains."""
        (whole_character, *_) = self._ids("A")
        longest = max(len(self._ids(prompt)) for prompt in self.prompts) + GREEDY_TOKENS + 8
        with LlamaCpp(path, max(longest, self.config.context), threads, whole_character) as llama:
            self._compare_tokens(llama)
            self._compare_templates(llama)
            places, gaps_P, bits_P = self._compare_distributions(llama)
            bits = float(np.mean(bits_P))
            allowed, cost = (F16_TOLERANCE, F16_BITS) if quantisation == "f16" else (math.inf, Q8_TOLERANCE)
            over = [index for index, gap in enumerate(gaps_P) if not gap <= allowed]  # also where it is not a number
            beyond = [gaps_P[index] for index in over]
            if len(over) <= UNSTEADY_SHARE * len(gaps_P):
                beyond = self.unexplained([places[index] for index in over], beyond)
            if beyond:
                raise RunError(_stopped(path, f"log-probabilities differ by {beyond[0]:.3g} from ours; {allowed:g} would be rounding"))
            if not bits <= cost and not bits <= 2 * self._rounding_bits(places):
                raise RunError(_stopped(path, f"distributions are {bits:.3g} bits per token from ours; {cost:g} would be rounding to {quantisation}"))
            tokens = self._compare_greedy(llama, 2 * allowed)
        steady = float(np.mean([one for index, one in enumerate(bits_P) if index not in over]))
        return GgufVerdict(max(gaps_P), bits, steady, len(gaps_P), len(over), tokens)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _compare_tokens(self, llama: LlamaCpp) -> None:
        for text in self.texts:
            if llama.tokenize(text) != self._ids(text):
                raise RunError(_stopped(llama.model, f"{text[:80]!r} is read as other tokens than hagane reads"))

    def _compare_templates(self, llama: LlamaCpp) -> None:
        where, remedy = ("transformers", "; set release.gguf = false to release without such files") if self._kept else ("hagane", "")
        for rendering in self._renderings:
            theirs = llama.render(rendering.messages, rendering.thinking)
            if theirs != rendering.text:
                raise RunError(_stopped(llama.model, f"the chat template gives {theirs!r} in llama.cpp and {rendering.text!r} in {where}{remedy}"))

    def _compare_distributions(self, llama: LlamaCpp) -> tuple[list[Place], list[float], list[float]]:
        """The places, and at each the largest gap and the KL divergence in bits."""
        places: list[Place] = []
        gaps, bits = [], []
        for row, ends in self._places():
            for end, ours_V in zip(ends, self._logprobs(self._decoder, row, ends), strict=True):
                theirs_V = llama.logprobs(row[:end], self.config.vocabulary_size)
                places.append((row, end))
                gaps.append(float(np.abs(ours_V - theirs_V).max()))
                bits.append(_divergence(ours_V, theirs_V))
        return places, gaps, bits

    def unexplained(self, places: Sequence[Place], gaps: Sequence[float]) -> list[float]:
        """The gaps of more than twice what our own log-probabilities move at their place, at most, when our weights change by what rounding does to them.

        Changes are tried until all gaps are explained.
        """
        left = list(range(len(places)))
        for pairs in self._changed(places, TIE_PROBES) if places else ():
            left = [index for index in left if not gaps[index] <= 2 * float(np.abs(pairs[index][0] - pairs[index][1]).max())]
            if not left:
                break
        return [gaps[index] for index in left]

    def _rounding_bits(self, places: Sequence[Place]) -> float:
        """Mean KL divergence in bits, at most, of our own distributions after our weights change by what rounding does to them."""
        return max(float(np.mean([_divergence(ours_V, other_V) for ours_V, other_V in pairs])) for pairs in self._changed(places, PROBES))

    def _changed(self, places: Sequence[Place], probes: int) -> Iterator[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
        """For every change of the weights, our log-probabilities (V) at each place as they are and as they become."""
        ours = [self._logprobs(self._decoder, row, [end])[0] for row, end in places]
        for seed in range(probes):
            generator = torch.Generator().manual_seed(seed)
            changed = {name: tensor * (1 + PROBE_SIZE * torch.randn(tensor.shape, generator=generator)) for name, tensor in self._state.items()}
            probe = build_decoder(self.config, changed)
            yield [(ours_V, self._logprobs(probe, row, [end])[0]) for ours_V, (row, end) in zip(ours, places, strict=True)]

    def _places(self) -> list[tuple[list[int], list[int]]]:
        """Rows of ids, and after how many of them the next token is asked for: spread over all texts, so over all languages."""
        first = [number] if (number := self.tokenizer.token_to_id(END_OF_TEXT)) is not None else []
        rows = [[*first, *self._ids(text)][: min(TEXT_TOKENS, self.config.context)] for text in self.texts]
        places = min(PLACES[1], max(PLACES[0], COMPARED_VALUES // self.config.vocabulary_size))
        rows = rows[:: max(1, len(rows) // places)]
        count = max(1, places // len(rows))
        return [(row, sorted({max(1, round(len(row) * (number + 1) / count)) for number in range(count)})) for row in rows if row]

    @torch.inference_mode()
    def _logprobs(self, decoder: Decoder, ids: Sequence[int], ends: Sequence[int]) -> NDArray[np.float64]:
        """A decoder's log-probabilities (P, V) of the token after each of the first `ends` ids."""
        hidden_TD = decoder(torch.tensor([list(ids)]), Placement.plain(1, len(ids))).hidden_BTD[0, [end - 1 for end in ends]]
        logprob_PV: NDArray[np.float64] = decoder.head.logits(hidden_TD).double().log_softmax(-1).numpy()
        return logprob_PV

    def _compare_greedy(self, llama: LlamaCpp, tie: float) -> int:
        """Tokens compared: up to where two likely ones are so close that rounding may decide; the rest of that prompt is left out.

        Eight-bit blocks have no bound on a single place, only one on the mean: there the tokens that are the same are just counted.
        """
        compared = 0
        for prompt in self.prompts:
            ids = self._ids(prompt)
            theirs = llama.greedy(ids, GREEDY_TOKENS)
            ours_PV = self._logprobs(self._decoder, [*ids, *theirs], range(len(ids), len(ids) + len(theirs)))
            for index, (token, ours_V) in enumerate(zip(theirs, ours_PV, strict=True)):
                apart = float(ours_V.max() - ours_V[token])
                if apart > tie and self.unexplained([([*ids, *theirs], len(ids) + index)], [apart]):
                    raise RunError(_stopped(llama.model, f"it goes on from {prompt[:80]!r} with other words than hagane does (token {compared + 1})"))
                if int(ours_V.argmax()) != token:
                    break
                compared += 1
        return compared


def _divergence(ours_V: NDArray[np.float64], theirs_V: NDArray[np.float64]) -> float:
    """KL divergence in bits of their log-probabilities from ours."""
    their_sum = np.logaddexp.reduce(theirs_V)  # of float32 numbers: not quite zero, which would count as a divergence
    return float((np.exp(ours_V) * (ours_V - theirs_V + their_sum)).sum()) / math.log(2)


def _by_us() -> list[Rendering]:
    return [Rendering(messages, thinking, render(messages, thinking)) for messages in conversations() for thinking in (True, False)]


def _by_transformers(tokenizer: Tokenizer, template: str) -> list[Rendering]:
    """What a chat template gives in the Hugging Face folder of the same release."""
    with tempfile.TemporaryDirectory() as folder:
        save_for_transformers(tokenizer, Path(folder), 1, template)
        return renderings(import_transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True), kept=True)


def _stopped(path: Path, finding: str) -> str:
    return f"the release was stopped: {path.name} in llama.cpp: {finding}."
