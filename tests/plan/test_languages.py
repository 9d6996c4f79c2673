"""What the plan says of languages and their text."""

import pytest

from hagane.plan.languages import EASY_BYTES, GENERATED_EASE, TUNED, difficulty, generated_ease, shards_of
from hagane.recipe.load import load_recipe
from hagane.run import headline


@pytest.mark.parametrize(("read", "said"), [(4e6, ""), (10e6, "; the text is read 10 times, and more of it would teach more (corpus: 1.0 MB)")])
def test_the_plans_line_says_where_the_text_is_too_little(read, said):
    facts = {
        "model": {"width": 64, "layers": [{}]}, "tokens": 1, "expected_tokens": 1, "num_parameters": 1, "num_active_parameters": 1, "vocabulary_size": 1024,
        "predicted": {"bits_per_byte": 2.0, "low": 1.0, "high": 3.0},
        "languages": {"sv": {"read_bytes": read / 2, "bytes": 4e5}, "fi": {"read_bytes": read / 2, "bytes": 6e5}},
    }  # fmt: skip
    assert headline("plan", facts).endswith(f"(1.00-3.00) bits per byte{said}")


def test_generated_problems_are_easier_than_text_in_as_many_tokens():
    recipe, _ = load_recipe("quickstart")
    sizes = {"problems.sv": 3e5, "problems.en": 1e5, "python.en": 3e5}
    shards = shards_of(sizes, {name: name.split(".")[0] for name in sizes}, {name: name.split(".")[1] for name in sizes}, {})
    found = difficulty(recipe, shards, {"sv": 3.0, "en": 1.5, "is": 3.0})  # of Icelandic nothing was kept
    assert found == pytest.approx({"sv": 2 / 3 * GENERATED_EASE, "en": 4 / 3 * (0.75 + 0.25 * GENERATED_EASE), "is": 2 / 3})


def test_problems_are_the_easier_the_more_of_them_is_read():
    """From as hard as people's text in as many tokens to what quickstarts reach, and never harder with more."""
    eases = [generated_ease(1000 * 2**k) for k in range(14)]
    assert eases == sorted(eases, reverse=True)
    assert eases[0] == pytest.approx(1, abs=1e-3) and eases[-1] == pytest.approx(GENERATED_EASE, abs=1e-3)
    assert generated_ease(EASY_BYTES) == pytest.approx((1 + GENERATED_EASE) / 2)


def test_what_is_read_of_problems_is_text_and_tuning_together():
    """Of 1 MB of text under `nordic` a tenth is problems, in two languages here; a share of 0.15 is tuning, 0.6 of it problems in all nine languages."""
    recipe, _ = load_recipe("nordic")
    sizes = {"problems.sv": 3e5, "problems.is": 3e5, "corpus.sv": 9e5}
    shards = shards_of(sizes, {name: name.split(".")[0] for name in sizes}, {name: name.split(".")[1] for name in sizes}, {})
    read = 1e6 * (0.1 / 2 + TUNED * 0.15 * 0.6 / (1 - 0.15 * 0.6) / 9)
    found = difficulty(recipe, shards, {"sv": 2.0, "is": 2.0}, 1e6)
    assert found == pytest.approx({"sv": 0.75 + 0.25 * generated_ease(read), "is": generated_ease(read)})
    everything = difficulty(recipe, shards, {"sv": 2.0, "is": 2.0})
    assert everything["is"] == GENERATED_EASE < found["is"] < difficulty(recipe, shards, {"sv": 2.0, "is": 2.0}, 1e5)["is"]
