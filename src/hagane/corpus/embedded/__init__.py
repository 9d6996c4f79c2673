"""Text and problems that need no download: a generator in nine languages, and the running interpreter's own library."""

from hagane.corpus.embedded.documents import documents, parallel_sentences
from hagane.corpus.embedded.grading import same_answer
from hagane.corpus.embedded.hidden import filler, hidden
from hagane.corpus.embedded.problems import PRACTICE, Problem, fixed_test, problem, problems
from hagane.corpus.embedded.python_stdlib import python_documents
from hagane.corpus.embedded.tasks import FAMILIES, LANGUAGES, is_test

__all__ = [
    "FAMILIES",
    "LANGUAGES",
    "PRACTICE",
    "Problem",
    "documents",
    "filler",
    "fixed_test",
    "hidden",
    "is_test",
    "parallel_sentences",
    "problem",
    "problems",
    "python_documents",
    "same_answer",
]
