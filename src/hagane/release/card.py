"""The card of a release: what it is, what it was made of and with, how good it is. It is the README.md of the Hugging Face folder.

Everything comes from facts of the run; what is not known is left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from hagane.evaluate.accuracy import ALL
from hagane.evaluate.facts import BitsPerByte, Cell, EvaluateFacts
from hagane.recipe.types import Frozen, duration
from hagane.release.gguf import GgufFacts


class CardSource(Frozen):
    """One source in one language, as it was read: documents and bytes kept for training."""

    name: str
    language: str
    licenses: tuple[str, ...] = ()
    documents: int
    bytes: int


class CardFacts(Frozen):
    """What a card says. Seconds are active seconds of the whole run, joules what it drew, by `power_source`.

    `host_active_parameters`: what other engines compute per token, where that is more. `max_logit_gap`: the largest difference of float32 logits from
    transformers, `form_logit_gap` that between the model as trained, whose number of keys adapts, and as released; on `greedy_parted` of the prompts
    text is the same up to two tokens within rounding of each other only.
    """

    name: str
    description: str = ""
    author: str = ""
    license: str = "Apache-2.0"
    country: str = ""
    year: int | None = None
    host: str
    num_parameters: int
    num_active_parameters: int
    host_active_parameters: int | None = None
    vocabulary_size: int
    context: int
    training_tokens: int
    sources: tuple[CardSource, ...] = ()
    hardware: str
    seconds: float
    joules: float | None = None
    power_source: str = ""
    evaluation: EvaluateFacts | None = None
    hagane: str
    max_logit_gap: float
    form_logit_gap: float | None = None
    greedy_parted: int
    prompts_checked: int
    left_out: str = ""
    gguf: GgufFacts = GgufFacts()


def card(facts: CardFacts) -> str:
    """The card as Markdown with the YAML head that model hubs read."""
    parts = [_head(facts), f"# {facts.name}", facts.description or "A language model made from scratch.", _use(facts), "## Facts", _facts_table(facts)]
    if facts.gguf.files:
        parts += ["## GGUF", _gguf_note(facts.gguf), _gguf_table(facts.gguf)]
    if facts.sources:
        parts += ["## Data and licences", _sources_table(facts.sources)]
    if facts.evaluation is not None:
        parts += _scores(facts.evaluation)
    parts.append(_proof(facts))
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _head(facts: CardFacts) -> str:
    languages = sorted({source.language for source in facts.sources if not source.language.startswith("code") and source.language != "und"})
    head: dict[str, object] = {
        "license": facts.license.lower(),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["hagane", facts.host],
    }
    if languages:
        head["language"] = languages
    # JSON values are YAML values
    return "\n".join(["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()), "---"])


def _use(facts: CardFacts) -> str:
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{{"role": "user", "content": "What is 1234 + 987?"}}]
# enable_thinking=False answers at once; a base model that was not tuned to answer only continues text
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={min(256, facts.context)})[0]))
```"""


def _proof(facts: CardFacts) -> str:
    """What was shown of it before it was released."""
    text = f"the same greedy text on {facts.prompts_checked - facts.greedy_parted} of {facts.prompts_checked} prompts"
    if facts.greedy_parted:
        text += f" and on {facts.greedy_parted} up to where two tokens tie"
    edge = "; llama.cpp likewise within the gaps above" if facts.gguf.files else ""
    gap = f"the same logits within rounding (float32, largest difference {facts.max_logit_gap:.2g})"
    return f"Made with hagane {facts.hagane}. Before it was released, transformers was shown to give {gap} and {text}{edge}."


def _facts_table(facts: CardFacts) -> str:
    active = "" if facts.num_active_parameters == facts.num_parameters else f", {facts.num_active_parameters:,} active per token"
    if facts.host_active_parameters is not None:
        active += f" on average in hagane, {facts.host_active_parameters:,} elsewhere: null experts are experts of zeros there"
    energy = "" if facts.joules is None else f"{facts.joules / 3.6e6:.4g} kWh" + (f" ({facts.power_source})" if facts.power_source else "")
    keys = "" if facts.form_logit_gap is None else f"a fixed number here, which moves logits by up to {facts.form_logit_gap:.2g}; in hagane it adapts"
    made = ", ".join(str(part) for part in (facts.author, facts.country, facts.year) if part)
    rows = [
        ("Architecture", facts.host), ("Parameters", f"{facts.num_parameters:,}{active}"), ("Vocabulary", f"{facts.vocabulary_size:,}"),
        ("Context", f"{facts.context:,} tokens"), ("Training tokens", f"{facts.training_tokens:,}"), ("Hardware", facts.hardware),
        ("Time", duration(facts.seconds)), ("Energy", energy), ("Made by", made), ("Licence of the weights", facts.license),
        ("Keys a query reads", keys), ("Left out", facts.left_out),
    ]  # fmt: skip
    return _table(("", ""), [row for row in rows if row[1]])


def _gguf_note(gguf: GgufFacts) -> str:
    note = (
        "For llama.cpp and what is built on it. The gap is the largest difference of a log-probability (nat) from the float32 weights, over the whole "
        "vocabulary; the cost is the mean KL divergence from them."
    )
    if gguf.left_out:
        note += f" Left out: {gguf.left_out}."
    for file in gguf.files:
        if file.unsteady:
            rest = f"; elsewhere the cost is {file.steady_kl_bits_per_token:.2g} bits per token" if file.steady_kl_bits_per_token is not None else ""
            note += f" At {file.unsteady} of {file.positions} places {file.file} chooses another of two experts that nearly tie{rest}."
    kept = next((file.kept_f16 for file in gguf.files if file.kept_f16), 0)
    return note + (f" {kept} tensors of the q8_0 file are f16: their rows are no multiple of 32." if kept else "")


def _gguf_table(gguf: GgufFacts) -> str:
    rows = [
        (file.file, f"{file.bytes:,}", f"{file.max_logprob_gap:.2g}", f"{file.kl_bits_per_token:.2g}", f"{file.positions:,}", f"{file.greedy_tokens:,}")
        for file in gguf.files
    ]
    return _table(("File", "Bytes", "Gap", "Cost, bits per token", "Places compared", "Greedy tokens equal"), rows)


def _sources_table(sources: Sequence[CardSource]) -> str:
    rows = [(source.name, source.language, ", ".join(source.licenses) or "not stated", f"{source.documents:,}", f"{source.bytes:,}") for source in sources]
    return _table(("Source", "Language", "Licence", "Documents", "Bytes"), rows)


def _scores(evaluation: EvaluateFacts) -> list[str]:
    parts = []
    if evaluation.bits_per_byte:
        rows = []
        for language, bits in evaluation.bits_per_byte.items():
            parallel = evaluation.parallel.get(language)
            sentence = "" if parallel is None else f"{parallel.bits_per_sentence:.1f} ({parallel.low:.1f}–{parallel.high:.1f})"
            rows.append((language, _bits(bits), f"{bits.bytes:,}", sentence))
        parts += ["## Held-out text", "Intervals are at 95 %. Bits per byte cannot be compared between scripts; bits per parallel sentence can."]
        parts.append(_table(("Language", "Bits per byte", "Bytes scored", "Bits per parallel sentence"), rows))
    if evaluation.accuracy_totals:
        note = (
            "Held-out generated problems, the same in every language, answered greedily; 95 % intervals. The look-up answers with the nearest training problem."
        )
        parts += ["## Right answers", note]
        totals = [*evaluation.accuracy_totals, *evaluation.baseline_totals]
        parts.append(_accuracy_table("Family", [cell for cell in totals if cell.language == ALL], lambda cell: cell.family))
        parts.append(_accuracy_table("Language", [cell for cell in totals if cell.family == ALL and cell.language != ALL], lambda cell: cell.language))
    return parts


def _bits(bits: BitsPerByte) -> str:
    return f"{bits.value:.3f} ({bits.low:.3f}–{bits.high:.3f})"


def _accuracy_table(name: str, cells: Iterable[Cell], row_of: Callable[[Cell], str]) -> str:
    by_row: dict[str, dict[str, str]] = {}
    for cell in cells:
        by_row.setdefault(row_of(cell), {})[cell.mode] = f"{100 * cell.correct / cell.total:.1f} % ({100 * cell.low:.1f}–{100 * cell.high:.1f})"
    modes = list(dict.fromkeys(mode for row in by_row.values() for mode in row))
    return _table((name, *modes), [(row.replace("_", " "), *(values.get(mode, "") for mode in modes)) for row, values in by_row.items()])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(value).replace("|", "\\|").replace("\n", " ") for value in line) + " |" for line in lines)
