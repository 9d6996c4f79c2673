"""Work over processes: order, progress, and when it is worth it."""

import io
import operator

from hagane.corpus.pool import ConsoleProgress, run_in_order, useful_workers


def test_results_come_in_the_order_of_the_tasks():
    assert list(run_in_order(operator.neg, range(9), 1)) == list(range(0, -9, -1))
    assert list(run_in_order(operator.neg, range(9), 2)) == list(range(0, -9, -1))


def test_little_work_starts_no_process():
    assert useful_workers(8, 1_000_000, 100) == 1
    assert useful_workers(8, 10**9, 3) == 3
    assert useful_workers(2, 10**9, 100) == 2


def test_progress_off_a_terminal_is_one_line_at_the_end(monkeypatch):
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    for done in range(0, 100, 10):
        progress("reading", done, 100_000_000)
    progress("reading", 100_000_000, 100_000_000)
    assert stream.getvalue() == "reading: 100% of 100.0 MB\n"


def test_progress_on_a_terminal_says_how_long_it_will_take(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = ConsoleProgress(stream)
    progress("reading", 50_000_000, 100_000_000)
    assert "reading:  50% of 100.0 MB, 0 s left" in stream.getvalue()
