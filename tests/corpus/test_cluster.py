"""Work over the nodes of a cluster that loses workers, played by a fake: order, repetition, errors, progress, and what a node must have."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus import cluster, pool
from hagane.corpus.cluster import ATTEMPTS, Cluster, WorkerLostError
from hagane.errors import DataError, RunError


@pytest.fixture(autouse=True, scope="module")
def impatient():
    """No pause before a lost task is begun again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "PAUSES", (0.0,) * (ATTEMPTS - 1))
        patch.setattr(cluster.time, "sleep", lambda seconds: None)
        yield


class FakeNodes:
    """Two nodes in this process. Tasks finish in a random order; `loses(task, attempt)` says when a worker dies, after its work or before."""

    def __init__(self, loses: Callable[[Any, int], bool] = lambda task, attempt: False, seed: int = 0) -> None:
        self.loses, self.random = loses, random.Random(seed)
        self.most, self.begun, self.stopped = 0, [], []
        self._under_way: dict[int, Callable[[], Any]] = {}
        self._told: dict[int, int] = {}
        self._next = 0

    def slots(self):
        return 2

    def names(self):
        return ["one", "two"]

    def keep(self, call):
        return call

    def start(self, kept, number, task, attempt):
        self.begun.append((task, attempt))

        def do():
            if self.loses(task, attempt):
                if self.random.random() < 0.5:
                    kept(task, attempt, lambda done: None)
                raise WorkerLostError("killed")
            return kept(task, attempt, lambda done: self._told.update({number: done}))

        return self._add(do)

    def ask(self, node, invitation):
        return self._add(lambda: cluster.accept(invitation, node))

    def _add(self, do):
        self._next += 1
        self._under_way[self._next] = do
        self.most = max(self.most, len(self._under_way))
        return self._next

    def wait(self, handles, seconds):
        return self.random.sample(handles, 1) if handles else []

    def take(self, handle):
        return self._under_way.pop(handle)()

    def stop(self, handles):
        self.stopped += handles

    def bytes_of(self, numbers):
        return sum(self._told.get(number, 0) for number in numbers)


def run(nodes, work, tasks, **more):
    said = []
    arguments = {"what": "reading", "total": 0, "progress": pool.silent, "initialise": None, "arguments": ()} | more
    return list(Cluster(nodes, say=said.append).run_in_order(work, tasks, **arguments)), said


@given(st.integers(0, 30), st.sets(st.tuples(st.integers(0, 29), st.integers(0, ATTEMPTS - 2))), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_results_are_those_of_one_process_whatever_is_lost(count, lost, seed):
    nodes = FakeNodes(lambda task, attempt: (task, attempt) in lost, seed)
    results, said = run(nodes, lambda task: task * task, range(count))
    assert results == [task * task for task in range(count)]
    assert len(nodes.begun) == count + len(said) == len(set(nodes.begun))
    assert nodes.most <= 4 and not nodes.stopped


def test_every_attempt_has_its_own_number_for_names_of_files(tmp_path):
    def work(task):
        with (tmp_path / f"{task}.{pool.attempt()}").open("x") as file:
            file.write(str(task))
        return pool.attempt()

    results, said = run(FakeNodes(lambda task, attempt: task == 3 and attempt < 2), work, range(6))
    assert results == [0, 0, 0, 2, 0, 0]
    assert said == ["reading: a worker was lost (killed); task 4 of 6 is done again."] * 2
    assert pool.attempt() == 0


def test_a_task_that_kills_every_worker_ends_the_run_and_the_rest():
    nodes = FakeNodes(lambda task, attempt: task == 1)
    with pytest.raises(RunError, match=rf"reading: task 2 of 9 lost {ATTEMPTS} workers in a row \(killed\), most likely because memory .* corpus\.workers"):
        run(nodes, lambda task: task, range(9))
    assert [attempt for task, attempt in nodes.begun if task == 1] == list(range(ATTEMPTS))


def test_a_lost_task_waits_before_it_is_begun_again_and_the_others_do_not(monkeypatch):
    monkeypatch.setattr(cluster, "PAUSES", (0.3, 0.3, 0.3, 0.3))
    nodes = FakeNodes(lambda task, attempt: (task, attempt) == (0, 0))
    assert run(nodes, lambda task: task, range(9))[0] == list(range(9))
    assert nodes.begun == [*((task, 0) for task in range(9)), (0, 1)]


def test_the_first_error_in_order_is_told_and_nothing_new_begins():
    def work(task):
        if task in (2, 3):
            raise DataError(f"{task} is damaged.")
        return task

    for seed in range(10):
        nodes = FakeNodes(seed=seed)
        with pytest.raises(DataError, match="2 is damaged"):
            run(nodes, work, range(99))
        assert len(nodes.begun) < 20
    with pytest.raises(ZeroDivisionError):
        run(FakeNodes(), lambda task: 1 // task, range(9))


def test_each_process_is_prepared_once_for_a_call():
    calls = []
    for number in range(2):
        run(FakeNodes(), lambda task: task, range(5), initialise=lambda *given: calls.append(given), arguments=("model", number))
    assert calls == [("model", 0), ("model", 1)]


def test_progress_counts_a_repeated_task_once():
    def work(task):
        pool.count(100)
        return task

    seen = []
    run(FakeNodes(lambda task, attempt: attempt == 0), work, range(8), total=800, progress=lambda *values: seen.append(values))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("reading", 800, 800) and max(done for _, done, _ in seen) == 800


def test_fewer_workers_than_the_cluster_has():
    nodes = FakeNodes()
    found = Cluster(nodes, 1).run_in_order(str, range(9), what="", total=0, progress=pool.silent, initialise=None, arguments=())
    assert "".join(found) == "012345678"
    assert nodes.most == 1


def test_little_work_stays_here_and_much_goes_to_the_cluster():
    made = Cluster(FakeNodes())
    assert pool.useful_workers(made, 1 << 20, 100) == 1
    assert pool.useful_workers(made, 1 << 30, 1) == 1
    assert pool.useful_workers(made, 1 << 30, 100) is made


def test_nodes_that_share_folder_and_files_are_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("x")
    nodes = FakeNodes()
    Cluster(nodes).share(tmp_path, ["in.txt"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "probe", "probe.one", "probe.two"]


def accepting(change: Callable[[cluster.Invitation], cluster.Invitation]):
    """Nodes that are asked with something changed, as if they saw it so."""

    class Nodes(FakeNodes):
        def ask(self, node, invitation):
            return super().ask(node, change(invitation))

    return Nodes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folder": Path("/nowhere")}, r"node (one|two) does not see /nowhere; the run folder must lie on storage that all nodes share"),
        ({"files": ("/nowhere/in.txt",)}, r"does not see /nowhere/in\.txt; sources must lie on storage that all nodes share"),
        ({"versions": cluster.versions() | {"ftfy": "0.1"}}, r"has ftfy \S+ instead of 0\.1, which could change the text; install the same versions"),
    ],
)
def test_a_node_that_cannot_take_part_is_named_with_the_remedy(change, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SEEN_SECONDS", 0.2)
    with pytest.raises(RunError, match="execution.ray: .*" + sentence):
        Cluster(accepting(lambda invitation: replace(invitation, **change))).share(tmp_path, [])


def test_a_node_with_another_folder_of_the_same_name_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SEEN_SECONDS", 0.2)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()

    def elsewhere(invitation):
        (tmp_path / "there" / "probe").write_text(invitation.token)
        return replace(invitation, folder=tmp_path / "there")

    with pytest.raises(RunError, match=r"execution.ray: node (one|two) writes into another \S+/here than this one"):
        Cluster(accepting(elsewhere)).share(tmp_path / "here", [])


def test_a_process_that_comes_later_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SEEN_SECONDS", 0.2)
    made = Cluster(FakeNodes())
    made.share(tmp_path, [])
    (tmp_path / "probe").unlink()
    with pytest.raises(RunError, match=r"execution.ray: a node does not see \S+; the run folder must lie"):
        list(made.run_in_order(str, range(3), what="", total=0, progress=pool.silent, initialise=None, arguments=()))


def test_a_corpus_made_by_a_cluster_that_loses_workers_is_the_same(build, make, tmp_path, spread):
    for number in range(6):
        records = [make.record(language, 100 * number + place) for place in range(40) for language in ("sv", "en", "ja")]
        make.write_jsonl(tmp_path / "in" / f"{number}.jsonl", records + [{"text": record["text"] + " x"} for record in records[:9]])
    one = build(tmp_path / "in", out="one", workers=1)
    two = build(tmp_path / "in", out="two", workers=Cluster(FakeNodes(lambda task, attempt: attempt < 2, seed=1)))
    assert one.model_copy(update={"seconds": 0, "identified": None}) == two.model_copy(update={"seconds": 0, "identified": None})
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()} and len(files) > 8
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
