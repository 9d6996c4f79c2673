"""Second copies go, whatever is between them and the first; text that is there once is the same object."""

import random

from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.rules.twice import without_copies

WORDS = ["en", "liten", "stuga", "vid", "sjön", "där", "gammal", "man", "bodde", "länge", "skogen", "fåglar", "sjunger", "morgon", "vatten", "över"]


def prose(seed, lines):
    draws = random.Random(seed)
    return "\n".join(" ".join(draws.choices(WORDS, k=12)).capitalize() + "." for _ in range(lines))


@given(st.integers(0, 10**6), st.integers(8, 30), st.integers(0, 2), st.sampled_from(["\n", "\n\n", "\n \n\t\n"]))
def test_a_second_copy_goes(seed, lines, other, between):
    page = prose(seed, lines)
    begin, middle, end = (prose(seed + 1 + place, other) + "\n" * bool(other) for place in range(3))
    assert without_copies(f"{begin}{page}{between}{middle}{page}\n{end}").split() == f"{begin}{page}{between}{middle}{end}".split()


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_text_that_is_there_once_stays(seed, lines):
    page = prose(seed, lines)
    assert without_copies(page) is page


def test_a_page_of_three_copies_keeps_the_first():
    page = prose(1, 12)
    assert without_copies("\n\n".join([page] * 3)).rstrip() == page


def test_every_paragraph_said_twice_in_a_row():
    paragraphs = prose(2, 20).split("\n")
    assert without_copies("\n".join(f"{line}\n{line}" for line in paragraphs)).split("\n") == paragraphs


def test_a_refrain_stays():
    refrain = "Se hur fåglarna flyger över sjön\noch hur skogen blir tyst i kväll igen"
    song = "\n\n".join(f"{prose(verse, 4)}\n{refrain}" for verse in range(8))
    assert without_copies(song) is song


def test_one_line_that_is_the_same_twice():
    line = prose(3, 10).replace("\n", " ")
    assert without_copies(f"{line} {line}\n") == line + "\n"
    wide = "".join(random.Random(4).choices("湖のほとりに小さな家があり老人住んでいました", k=400))
    assert without_copies(wide + wide) == wide
    chant = "Köp nu, köp här, köp billigt hos oss i dag. " * 60
    assert without_copies(chant) is chant


def test_code_is_cut_whole_or_not_at_all():
    about = f"\n*About*:\n\n```\n{prose(5, 8)}\n```\n"
    heads = [f"## {name}\n\n```\nload {name}\n```\n" for name in "abc"]
    tables = [f"\nrow | number\n--- | ---\n{name} | x\n" for name in "abc"]
    parts = [f"{head}{about}{table}" for head, table in zip(heads, tables, strict=True)]
    short = [f"{head}{table}" for head, table in zip(heads, tables, strict=True)]
    assert without_copies("\n".join(parts)).split() == "\n".join([parts[0], *short[1:]]).split()
