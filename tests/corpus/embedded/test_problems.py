"""Problems: addressable, deterministic, the same in all languages, and never leaking between the splits."""

import itertools
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.embedded import FAMILIES, LANGUAGES, PRACTICE, fixed_test, is_test, problem, problems
from hagane.corpus.embedded.draws import Draws
from hagane.corpus.embedded.numbers import words
from hagane.corpus.embedded.phrases import PHRASES
from hagane.corpus.embedded.problems import held_out_tasks, render
from hagane.corpus.embedded.tasks import CONVERSIONS, STORIES, draw


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 2**63), split=st.sampled_from(["train", "test"]))
def test_a_problem_is_a_function_of_its_address_and_stays_in_its_split(seed, index, split):
    first = problem(seed, index, split)
    assert first == problem(seed, index, split)
    assert is_test(first.key) == (split == "test")
    assert first.statement and first.thinking and first.answer and "\n" not in first.statement + first.answer
    assert not set("{}") & set(first.statement + first.answer)


def test_the_list_is_the_addressed_problems_in_order():
    assert list(itertools.islice(problems(5), 200)) == [problem(5, index) for index in range(200)]
    assert problem(5, 0) != problem(6, 0)


def test_languages_and_families_take_equal_turns():
    cells = Counter((item.family, item.language) for item in itertools.islice(problems(1), 720))
    assert set(cells.values()) == {10} and len(cells) == 72
    practice = Counter(item.family for item in itertools.islice(problems(1, families=PRACTICE), 18 * 9))
    assert practice["number_words"] == 8 * 9 and set(practice) == set(FAMILIES)


def test_keys_and_answers_to_problems_never_cross_from_test_to_train():
    held_out = {item.key.partition(">")[0] for item in itertools.islice(problems(2, "test"), 3000)}
    trained = {item.key.partition(">")[0] for item in itertools.islice(problems(3), 10_000)}
    assert not held_out & trained


def test_how_a_problem_is_asked_does_not_move_it_to_the_other_split():
    for number in range(500):
        assert is_test(f"number_words:{number}>to_words") == is_test(f"number_words:{number}>to_digits") == is_test(f"number_words:{number}")
    orders = {draw("addition_subtraction", str(index), test=False).key for index in range(2000)}
    assert not [key for key in orders if "+" in key and int(key.split(":")[1].split("+")[0]) < int(key.split("+")[1].split(">")[0])]


def test_about_one_problem_in_twenty_is_held_out():
    share = sum(is_test(f"number_words:{number}") for number in range(10_000)) / 10_000
    assert 0.04 < share < 0.06


def test_the_fixed_test_has_the_same_keys_in_every_language_and_equal_cells():
    items = fixed_test(30)
    assert items == fixed_test(30) and len(items) == 30 * 72
    keys = {language: [item.key for item in items if item.language == language] for language in LANGUAGES}
    assert all(keys[language] == keys["en"] for language in LANGUAGES)
    assert len(set(keys["en"])) == len(keys["en"]) and all(map(is_test, keys["en"]))
    assert set(Counter((item.family, item.language) for item in items).values()) == {30}
    assert items[: 72 * 3] == fixed_test(3)


def test_asking_for_more_held_out_problems_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="number_words"):
        held_out_tasks("number_words", 5000, "too many")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_brings_every_phrase(language):
    """Equal numbers of templates make the same draws choose the same meaning everywhere."""
    phrases, english = PHRASES[language], PHRASES["en"]
    for name, templates in vars(english).items():
        assert len(getattr(phrases, name)) == len(templates) or isinstance(templates, str), name
    assert set(phrases.stories) == set(STORIES) and set(phrases.conversions) == set(CONVERSIONS)
    assert all(len(phrases.stories[story]) == len(english.stories[story]) for story in STORIES)
    wanted = {"addition": {"a", "b"}, "comparison": {"a", "b"}, "days_between": {"date", "later"}, "number_to_words": {"n"}, "words_to_number": {"w"}}
    for name, fields in wanted.items():
        for template in getattr(phrases, name):
            assert {field for _, field, _, _ in string.Formatter().parse(template) if field} == fields, template
    for templates in phrases.stories.values():
        for template in templates:
            fields = {field for _, field, _, _ in string.Formatter().parse(template) if field}
            assert {"a", "b", "c"} <= fields, template


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_numbers_of_a_problem_stand_in_its_statement(language):
    for family in ("comparison", "addition_subtraction", "multiplication", "two_step", "units"):
        for index in range(40):
            item = render(task := draw(family, f"said/{index}", test=False), language, Draws(str(index)))
            assert all(str(number) in item.statement for number in task.numbers), item
    task = draw("number_words", "said", test=False)._replace(numbers=(4372,), variant="to_digits")
    assert words(4372, language) in render(task, language, Draws("")).statement


def test_korean_particles_never_follow_a_digit_or_number_word_that_decides_them():
    for templates in vars(PHRASES["ko"]).values():
        for template in templates if isinstance(templates, tuple) else (templates,) if isinstance(templates, str) else ():
            if isinstance(template, str):
                for field in ("{n}", "{a}", "{b}", "{c}", "{w}", "{date}", "{later}"):
                    after = [part[:1] for part in template.split(field)[1:]]
                    assert not set(after) & set("은는이가을를와과로"), template
