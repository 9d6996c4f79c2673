"""Strict rules for answers: the thinking and the turn must have ended, and nothing may stand beside the answer.

How a thing may be written (digit grouping, letter case, a final full stop) is for `same_answer` of the generator to say.
"""

from __future__ import annotations

from hagane.corpus.embedded import Problem, same_answer
from hagane.engine.reply import Reply


def is_right(problem: Problem, reply: Reply) -> bool:
    """Whether a reply answers a problem of the generator: its thinking and its turn have ended, and the rest is the answer."""
    if reply.answer is None or not reply.finished:
        return False
    return bool(same_answer(problem.family, problem.language, problem.answer, reply.answer))
