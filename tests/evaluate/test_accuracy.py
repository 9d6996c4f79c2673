import itertools

import pytest

from hagane.corpus.embedded import FAMILIES, LANGUAGES, fixed_test, problems
from hagane.engine import generate as engine
from hagane.evaluate import accuracy as module
from hagane.evaluate.accuracy import accuracy, cells, totals
from hagane.evaluate.baseline import baseline, look_up, template
from hagane.tokenizer.bpe import plain, special_ids
from toy_models import toy_decoder, toy_tokenizer


@pytest.fixture
def scripted(monkeypatch):
    """scripted(answer) -> the model says what `answer(problem)` returns, through real tokens."""

    def script(asked, answer):
        tokenizer = toy_tokenizer()
        special, encoder = special_ids(tokenizer), plain(tokenizer)

        def speak(text):
            for part in ("</think>", "<|im_end|>", None):
                if part is None:
                    return encoder.encode(text).ids
                if part in text:
                    before, _, after = text.partition(part)
                    return [*speak(before), special[part], *(speak(after) if after else [])]

        monkeypatch.setattr(module, "generate", lambda decoder, prompts, *_, **__: [speak(answer(problem)) for problem in asked])

    return script


@pytest.mark.parametrize("mode", ("thinking", "plain"))
def test_a_perfect_model_is_right_everywhere(mode, scripted):
    asked = fixed_test(2)
    scripted(asked, lambda problem: (f"{problem.thinking}\n</think>\n\n" if mode == "thinking" else "") + f"{problem.answer}<|im_end|>")
    result = accuracy(toy_decoder(), toy_tokenizer(), asked, mode)
    assert all(result.right) and len(result.cells) == len(FAMILIES) * len(LANGUAGES)
    assert all(cell.correct == cell.total == 2 and cell.high == 1 and cell.mode == mode for cell in result.cells)
    assert (result.unanswered.thinking_open, result.unanswered.unfinished) == (0, 0)


def test_thinking_that_never_ends_is_wrong_and_counted(scripted):
    asked = fixed_test(1)
    scripted(asked, lambda problem: f"{problem.answer}<|im_end|>" if problem.language == "sv" else f"x</think>\n\n{problem.answer}")
    result = accuracy(toy_decoder(), toy_tokenizer(), asked, "thinking")
    assert not any(result.right)
    assert result.unanswered.thinking_open == len(FAMILIES)
    assert result.unanswered.unfinished == len(FAMILIES) * (len(LANGUAGES) - 1)


def test_a_random_model_is_asked_and_fails():
    asked = fixed_test(1)[:12]
    result = accuracy(toy_decoder(), toy_tokenizer(), asked, "plain", max_new_tokens=4, batch_size=5)
    assert sum(result.right) == 0 and 12 <= result.generated_tokens <= 48
    assert engine.generate is module.generate


def test_samples_show_one_problem_per_family_in_different_languages(scripted):
    asked = fixed_test(2)
    scripted(asked, lambda problem: "1<|im_end|>")
    chosen = {mode: accuracy(toy_decoder(), toy_tokenizer(), asked, mode).samples for mode in ("thinking", "plain")}
    for samples in chosen.values():
        assert [sample.family for sample in samples] == list(FAMILIES)
        assert len({sample.language for sample in samples}) == len(FAMILIES)
    assert all(one.language != two.language for one, two in zip(chosen["thinking"], chosen["plain"]))
    assert chosen["thinking"][0].output.startswith("<think>\n")


def test_totals_are_sums():
    asked = fixed_test(3)
    right = [index % 3 == 0 for index in range(len(asked))]
    found = cells(asked, right, "plain")
    summed = totals(found)
    assert (summed[0].family, summed[0].language, summed[0].correct, summed[0].total) == ("all", "all", sum(right), len(asked))
    by_family = [cell for cell in summed if cell.language == "all" and cell.family != "all"]
    by_language = [cell for cell in summed if cell.family == "all" and cell.language != "all"]
    assert len(by_family) == len(FAMILIES) and len(by_language) == len(LANGUAGES)
    assert sum(cell.correct for cell in by_family) == sum(cell.correct for cell in by_language) == sum(right)


def test_the_look_up_finds_what_it_has_seen_and_does_not_compute():
    seen = list(itertools.islice(problems(0), 144))
    assert look_up(seen[:40], seen) == [problem.answer for problem in seen[:40]]
    asked = fixed_test(4)
    found = {cell.family: cell for cell in totals(baseline(asked, itertools.islice(problems(0), 1440))) if cell.language == "all"}
    assert found["addition_subtraction"].correct / found["addition_subtraction"].total < 0.1
    assert look_up(asked[:3], []) == ["", "", ""]


def test_the_nearest_has_the_same_template():
    assert template("1234 + 9 is 1,243") == "# + # is #,#"
    english = list(itertools.islice(problems(3, families=("comparison", "units"), languages=("en",)), 400))
    asked = [problem for problem in fixed_test(6) if problem.language == "en" and problem.family in ("comparison", "units")]
    by_answer = {(problem.family, problem.answer): template(problem.statement) for problem in english}
    known = {template(problem.statement) for problem in english}
    same = [
        by_answer[problem.family, answer] == template(problem.statement)
        for problem, answer in zip(asked, look_up(asked, english))
        if template(problem.statement) in known
    ]
    assert same and sum(same) / len(same) > 0.5  # answers are not unique, so not all
