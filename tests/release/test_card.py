from hagane.evaluate.accuracy import cells, totals
from hagane.evaluate.facts import BitsPerByte, BitsPerSentence, EvaluateFacts
from hagane.release.card import CardFacts, CardSource, card

BASE = {
    "name": "toy", "host": "qwen3_moe", "num_parameters": 1_234_567, "num_active_parameters": 345_678, "vocabulary_size": 320, "context": 64,
    "training_tokens": 1_000_000, "hardware": "2-core x86_64 CPU", "seconds": 290.0, "hagane": "0.1.0",
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


def test_a_dense_model_has_no_active_count():
    assert "active" not in card(CardFacts(**{**BASE, "num_active_parameters": BASE["num_parameters"]}))
