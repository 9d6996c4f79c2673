"""The corpus on a real Ray cluster on this machine: two workers, one of which is killed half-way, and two nodes, one of which is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from hagane.corpus import gather, on_ray, pool
from hagane.corpus.build import build_corpus
from hagane.errors import DataError, RunError
from hagane.recipe.schema import CorpusSettings, Source

needs_ray = pytest.mark.skipif(on_ray.find_spec("ray") is None, reason="ray is not installed: pip install 'hagane[ray]'")
SETTINGS = {"near_duplicates": 0.75, "held_out_overlap": 0.5}
NAMES = "år ö björk skog sjö väg sten hus bro dal by äng vik lada grind stig ås kulle bäck mosse".split()  # noqa: SIM905


@pytest.fixture(scope="module", autouse=True)
def environment():
    """What Ray and its token leave in the environment goes with these tests: in a process the token stays the same."""
    with mock.patch.dict(os.environ):
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            os.environ.pop(name, None)
        yield


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"execution\.ray needs the package ray, .* pip install 'hagane\[ray\]'"), on_ray.joined("local"):
        pass


@needs_ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_said_at_once(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RunError, match=rf'execution\.ray = "{address}" cannot be reached \(.*\)\. Is the cluster up'), on_ray.joined(address):
            pass
        assert time.monotonic() - started < 9


@needs_ray
def test_no_cluster_on_this_machine(monkeypatch):
    def init(**settings):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.init", init)
    sentence = r'execution\.ray = "auto": no Ray cluster runs on this machine\. Start one with `ray start --head`'
    with pytest.raises(RunError, match=sentence), on_ray.joined("auto"):
        pass


@pytest.fixture
def folder(make, tmp_path):
    """Eight files of about 2 MB in two languages, with copies and near-copies across files."""
    for number in range(8):
        records = []
        for place in range(700):
            own = 1000 * number + place if place % 20 else place
            words = " ".join(f"{NAMES[own * step % 19]}{own * step % 7919}" for step in range(1, 200))
            records.append({"id": f"{number}-{place}", "text": words + (f" {number}" if place % 40 else ""), "lang": "sv" if place % 3 else "en"})
        make.write_jsonl(tmp_path / "in" / f"{number}.jsonl.gz", records)
    return tmp_path / "in"


def killing(work, begun: Path, kill, here=lambda task: task.index == 2):
    """`work`, but in the first task for which `here(task)`, `kill()` is called as soon as something of it was written."""

    def watch(task) -> None:
        while not any(path.stat().st_size for path in task.folder.glob(f"{task.index:06d}.*")):
            time.sleep(0.0005)
        kill()

    def first() -> bool:
        with contextlib.suppress(FileExistsError), (begun.parent / "killed").open("x"):
            return True
        return False

    def once(task):
        with (begun / f"{task.index}.{pool.attempt()}.{os.getpid()}").open("x"):
            pass
        if pool.attempt() == 0 and here(task) and first():
            threading.Thread(target=watch, args=(task,), daemon=True).start()
        return work(task)

    return once


def same_files(one: Path, two: Path) -> int:
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert files == {path.relative_to(two) for path in two.rglob("*") if path.is_file()}
    assert [str(name) for name in sorted(files) if (one / name).read_bytes() != (two / name).read_bytes()] == []
    return len(files)


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_half_way_changes_no_byte(folder, build, tmp_path, monkeypatch, spread):
    one = build(folder, out="one", workers=1, **SETTINGS)
    begun, said, seen = tmp_path / "begun", [], []
    begun.mkdir()
    monkeypatch.setattr("hagane.corpus.build.gather", killing(gather.gather, begun, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    before = signal.getsignal(signal.SIGTERM)
    with on_ray.joined("local", 2, said.append) as cluster:
        assert signal.getsignal(signal.SIGTERM) is before
        (tmp_path / "two").mkdir()
        source = Source(name="text", path=(str(folder),))
        two = build_corpus([source], CorpusSettings(**SETTINGS), tmp_path / "two", workers=cluster, progress=lambda *values: seen.append(values))
        monkeypatch.setattr("hagane.corpus.build.gather", gather.gather)
        (folder / "8.jsonl").write_text('{"titel": "x"}\n')
        with pytest.raises(DataError, match=r"8\.jsonl, line 1 has no \"text\""):
            build(folder, out="three", workers=cluster)
        assert not (tmp_path / "three" / ".parts").exists()
    assert two.dropped["duplicate"].documents > 0 and two.dropped["near_duplicate"].documents > 0
    assert one.model_copy(update={"seconds": 0}) == two.model_copy(update={"seconds": 0})
    assert same_files(tmp_path / "one", tmp_path / "two") == 8
    starts = sorted(path.name.split(".") for path in begun.iterdir())
    assert {(index, attempt) for index, attempt, _ in starts} >= {(str(index), "0") for index in range(8)} | {("2", "1")}
    assert {os.getpid()} & {int(pid) for *_, pid in starts} == set() and len({pid for *_, pid in starts}) >= 3  # two, and one in the place of the killed
    assert any("corpus: reading: a worker was lost" in sentence for sentence in said)
    reading = [(done, total) for what, done, total in seen if what == "corpus: reading"]
    assert any(0 < done < total for done, total in reading) and reading[-1][0] == reading[-1][1] > 0
    assert list(home.rglob("*")) == []


@needs_ray
@pytest.mark.slow
def test_a_node_killed_half_way_changes_no_byte(folder, build, tmp_path, monkeypatch, spread):
    from ray.cluster_utils import Cluster

    one = build(folder, out="one", workers=1, **SETTINGS)
    begun, said = tmp_path / "begun", []
    begun.mkdir()
    monkeypatch.setattr("ray._private.utils.write_ray_address", lambda *given: None)  # into /tmp/ray, as the cluster that this machine is part of
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as short:  # the path of a socket has room for 107 characters
        nodes = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20, "temp_dir": short})
        try:
            second = nodes.add_node(num_cpus=1, object_store_memory=100 << 20).all_processes["raylet"][0].process.pid
            dying = killing(gather.gather, begun, lambda: os.kill(second, signal.SIGKILL), lambda task: os.getppid() == second)
            monkeypatch.setattr("hagane.corpus.build.gather", dying)
            with on_ray.joined(nodes.address, say=said.append) as cluster:
                two = build(folder, out="two", workers=cluster, **SETTINGS)
        finally:
            nodes.shutdown()
    assert one.model_copy(update={"seconds": 0}) == two.model_copy(update={"seconds": 0})
    assert same_files(tmp_path / "one", tmp_path / "two") == 8
    assert any("a worker was lost" in sentence for sentence in said)
    assert (tmp_path / "killed").exists()
    assert {path.name.split(".")[0] for path in begun.iterdir()} == set("01234567") and any(path.name.split(".")[1] != "0" for path in begun.iterdir())
