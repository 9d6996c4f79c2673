"""What can be had without computing: the answer of the most similar training problem.

Similar means, first, the same template (the statement with its digits masked), then the most character n-grams in common.
A model that only looks up what it has seen gets this far; what it gets beyond is worked out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.embedded import Problem, same_answer
from hagane.evaluate.accuracy import cells
from hagane.evaluate.facts import Cell

MODE = "look-up"
LENGTHS = (1, 2, 3, 4)  # of the character n-grams
BUCKETS = 4096


def template(statement: str) -> str:
    """The statement with every run of digits masked."""
    return re.sub(r"\d+", "#", statement)


def look_up(problems: Sequence[Problem], training: Iterable[Problem]) -> list[str]:
    """The answer of the nearest training problem of the same family and language; empty where there is none. Ties go to the first."""
    known: dict[tuple[str, str], list[Problem]] = {}
    for problem in training:
        known.setdefault((problem.family, problem.language), []).append(problem)
    asked: dict[tuple[str, str], list[int]] = {}
    for index, problem in enumerate(problems):
        asked.setdefault((problem.family, problem.language), []).append(index)
    answers = [""] * len(problems)
    for cell, indices in asked.items():
        candidates = known.get(cell, [])
        if not candidates:
            continue
        similarity = _vectors([problems[index].statement for index in indices]) @ _vectors([one.statement for one in candidates]).T
        templates = np.array([template(one.statement) for one in candidates])
        for row, index in enumerate(indices):
            # cosines are at most 1, so the same template always comes first
            best = int((similarity[row] + 2.0 * (templates == template(problems[index].statement))).argmax())
            answers[index] = candidates[best].answer
    return answers


def baseline(problems: Sequence[Problem], training: Iterable[Problem]) -> tuple[Cell, ...]:
    """The look-up's right answers per family and language, graded as the model's are."""
    answers = look_up(problems, training)
    right = [bool(given) and same_answer(problem.family, problem.language, problem.answer, given) for problem, given in zip(problems, answers, strict=True)]
    return cells(problems, right, MODE)


def _vectors(statements: Sequence[str]) -> NDArray[np.float32]:
    """Counts of hashed character n-grams, length 1."""
    counts = np.zeros((len(statements), BUCKETS), dtype=np.float32)
    for row, statement in enumerate(statements):
        grams = [statement[start : start + size] for size in LENGTHS for start in range(len(statement) - size + 1)]
        np.add.at(counts[row], [zlib.crc32(gram.encode()) % BUCKETS for gram in grams], 1.0)
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    return counts
