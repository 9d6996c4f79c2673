"""What the plan says of languages and their text."""

import pytest

from hagane.plan.languages import GENERATED_EASE, difficulty, shards_of
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
