"""What the plan says of languages and their text."""

import pytest

from hagane.run import headline


@pytest.mark.parametrize(("read", "said"), [(4e6, ""), (10e6, "; the text is read 10 times, and more of it would teach more (corpus: 1.0 MB)")])
def test_the_plans_line_says_where_the_text_is_too_little(read, said):
    facts = {
        "model": {"width": 64, "layers": [{}]}, "tokens": 1, "expected_tokens": 1, "num_parameters": 1, "num_active_parameters": 1, "vocabulary_size": 1024,
        "predicted": {"bits_per_byte": 2.0, "low": 1.0, "high": 3.0},
        "languages": {"sv": {"read_bytes": read / 2, "bytes": 4e5}, "fi": {"read_bytes": read / 2, "bytes": 6e5}},
    }  # fmt: skip
    assert headline("plan", facts).endswith(f"(1.00-3.00) bits per byte{said}")
