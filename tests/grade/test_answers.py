from hagane.corpus.embedded import fixed_test
from hagane.engine.reply import parse
from hagane.grade.answers import is_right


def test_problems_are_graded_strictly():
    for problem in fixed_test(1):
        assert is_right(problem, parse(f"{problem.thinking}\n</think>\n\n{problem.answer}<|im_end|>", thinking=True))
        assert is_right(problem, parse(f"{problem.answer}<|im_end|>", thinking=False))
        wrong = [
            f"{problem.thinking}\n{problem.answer}<|im_end|>",
            f"x</think>\n\n{problem.answer}",
            f"x</think>\n\n{problem.answer} {problem.answer}<|im_end|>",
        ]
        assert not any(is_right(problem, parse(output, thinking=True)) for output in [*wrong, "x</think>\n\n<|im_end|>"])
        assert not is_right(problem, parse(problem.answer, thinking=False)), "the turn did not end"
