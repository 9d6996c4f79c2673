from hagane.evaluate.accuracy import cells, totals
from hagane.evaluate.facts import BitsPerByte, BitsPerSentence, EvaluateFacts
from hagane.release.card import CardFacts, CardSource, card
from hagane.release.gguf import GgufFacts, GgufFile

BASE = {
    "name": "toy", "host": "qwen3_moe", "num_parameters": 1_234_567, "num_active_parameters": 345_678, "vocabulary_size": 320, "context": 64,
    "training_tokens": 1_000_000, "hardware": "2-core x86_64 CPU", "seconds": 290.0, "hagane": "0.1.0",
    "max_logit_gap": 1.23e-5, "greedy_parted": 0, "prompts_checked": 16,
}  # fmt: skip


class FakeProblem:
    family, language = "units", "sv"


def test_everything_known_is_on_the_card():
    found = cells([FakeProblem] * 4, [True, True, True, False], "thinking")
    evaluation = EvaluateFacts(
        bits_per_byte={"sv": BitsPerByte(value=1.5, low=1.4, high=1.6, bytes=5000, tokens=1500, documents=9)},
        parallel={"sv": BitsPerSentence(bits_per_sentence=80.25, low=78, high=83, sentences=200)},
        accuracy=found, accuracy_totals=totals(found),
    )  # fmt: skip
    sources = (
        CardSource(name="stdlib", language="code-python", licenses=("PSF-2.0",), documents=900, bytes=5_000_000),
        CardSource(name="my|text", language="sv", documents=10, bytes=2000),
    )
    text = card(CardFacts(**BASE, joules=9000.0, power_source="stated model", country="Sweden", year=2026, sources=sources, evaluation=evaluation))
    for part in (
        "1,234,567, 345,678 active per token", "0.0025 kWh (stated model)", "4min 50s", "Sweden, 2026", "| stdlib | code-python | PSF-2.0 | 900 | 5,000,000 |",
        "my\\|text", "not stated", "1.500 (1.400–1.600)", "80.2 (78.0–83.0)", "| units | 75.0 %", 'language: ["sv"]', "license: \"apache-2.0\"",
    ):  # fmt: skip
        assert part in text, part
    assert text.startswith("---\n") and text.count("---\n") >= 2


def test_what_is_not_known_is_left_out():
    text = card(CardFacts(**BASE))
    for part in ("Energy", "Made by", "Data and licences", "Held-out", "Right answers", "language:", "None"):
        assert part not in text, part


def test_what_was_shown_is_told_in_numbers():
    assert "largest difference 1.2e-05) and the same greedy text on 16 of 16 prompts." in card(CardFacts(**BASE))
    parted = card(CardFacts(**{**BASE, "greedy_parted": 2}))
    assert "the same greedy text on 14 of 16 prompts and on 2 up to where two tokens tie." in parted


def test_a_form_that_other_engines_do_not_know_is_told():
    told = card(CardFacts(**BASE, form_logit_gap=0.321))
    assert "| Keys a query reads | a fixed number here, which moves logits by up to 0.32; in hagane it adapts |" in told
    assert "fixed number" not in card(CardFacts(**BASE))


def test_a_dense_model_has_no_active_count():
    assert "active" not in card(CardFacts(**{**BASE, "num_active_parameters": BASE["num_parameters"]}))


def test_gguf_files_are_listed_with_size_gap_and_cost():
    half = GgufFile(file="toy-f16.gguf", quantisation="f16", bytes=3_666_656, max_logprob_gap=0.0126, kl_bits_per_token=1e-7, positions=160, greedy_tokens=236)
    eight = half.model_copy(update={"file": "toy-q8_0.gguf", "quantisation": "q8_0", "kl_bits_per_token": 4.2e-4, "kept_f16": 3, "unsteady": 0})
    text = card(CardFacts(**BASE, gguf=GgufFacts(files=(half, eight), architecture="qwen3moe", left_out="no place for modules")))
    assert "Left out: no place for modules." in text
    for part in ("| toy-f16.gguf | 3,666,656 | 0.013 | 1e-07 | 160 | 236 |", "| toy-q8_0.gguf |", "3 tensors of the q8_0 file are f16", "llama.cpp likewise"):
        assert part in text, part
    assert "nearly tie" not in text
    tied = half.model_copy(update={"unsteady": 2, "steady_kl_bits_per_token": 1.6e-6})
    told = "At 2 of 160 places toy-f16.gguf chooses another of two experts that nearly tie; elsewhere the cost is 1.6e-06 bits per token."
    assert told in card(CardFacts(**BASE, gguf=GgufFacts(files=(tied, eight), architecture="qwen3moe")))
    assert "GGUF" not in card(CardFacts(**BASE)) and "llama.cpp" not in card(CardFacts(**BASE))
