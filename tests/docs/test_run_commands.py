"""Every command line of the documentation, and the example of every `--help`, is executed at toy size.

`WAYS` says how, `NOT_HAGANE` what is no command of ours. A line that neither knows fails, and so does an entry that no line needs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest
import torch

from documented import COMMANDS, EXAMPLES, PAGES, blocks
from hagane import cli
from hagane.plan.claim import shipped_claims

BUDGET = "204800tokens"  # the smallest that is allowed
SMALL = {
    "corpus.sample_bytes": "100000", "tokenizer.candidates": "[384]", "tokenizer.sample_bytes": "50000",
    "model.size.width": "16", "model.size.num_layers": "1", "model.pattern.head_dim": "8",
    "train.context": "128", "train.rows": "16", "train.dtype": "float32", "tune.languages": '["en", "sv"]',
    "evaluate.items_per_cell": "1", "evaluate.max_new_tokens": "8", "evaluate.max_bytes": "1000", "evaluate.parallel_sentences": "2",
    "execution.device": "cpu", "execution.compile": "false", "execution.threads": "1", "execution.tensorboard": "false",
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a documented command is executed. As it stands where nothing else is said, in the folder with `texts/`, `mine.toml` and the finished runs."""

    says: str = ""  # an expression found in what it prints
    small: bool = False  # with the budget replaced by BUDGET, and with the settings in SMALL
    fresh: bool = False  # in a new folder that holds only `texts/`
    damaged: bool = False  # and one of the texts is damaged
    without: tuple[str, ...] = ()  # stages that are taken out of the run before
    typed: str = ""  # standard input
    code: int = 0


RUN = r"hagane run (quickstart|nordic --corpus texts/) --budget \S+"
STAGES = ("corpus", "tokenizer", "encode", "pretrain", "midtrain", "extend", "converse", "tune", "evaluate", "release")
WAYS = {
    r"hagane --help": Way("Example: hagane run"),
    rf"{RUN}( --out runs/nordic)?": Way(r"(?s)(unchanged.*){9}", small=True),  # the fixture did it first: that is the claim of resume.md
    rf"{RUN} --until encode": Way(r"encode  .* tokens(?!(?s:.*)pretrain)", small=True, fresh=True),
    rf"{RUN} --set corpus.on_damage=keep": Way(r" [1-9]\d* dropped", small=True, fresh=True, damaged=True),
    # starting Ray takes ten seconds: here only that it looks for a cluster; tests/corpus/test_on_ray.py makes a corpus on one
    rf"{RUN} --set execution.ray=auto": Way("execution.ray = .* cannot be reached", small=True, fresh=True, code=2),
    rf"{RUN} --no-steer": Way("transformers agrees", small=True, fresh=True),
    rf"{RUN} --set model.pattern.ffn=experts --set seed=1": Way("qwen3_moe: transformers agrees", small=True, fresh=True),
    rf"{RUN} --set model.pattern.mtp_layers=1 --out runs/drafting": Way(r"(?s)(unchanged.*){9}", small=True),
    r"hagane chat runs/drafting --drafts --prompt .*": Way("drafts accepted so far"),
    r"hagane run nordic --from runs/quickstart/release/huggingface .*": Way("qwen3: transformers agrees", small=True),
    r"hagane resume runs/nordic": Way(r"(?s)(unchanged.*){7}evaluate .* bits.*transformers agrees", without=("evaluate", "release")),
    r"hagane corpus show runs/(quickstart|nordic)": Way("documents kept"),
    r"hagane corpus rebuild runs/(quickstart|nordic) --out \S+": Way("the same: .* files read, .* shards equal to the byte"),
    # it changes a run that other commands find unchanged: here only that it looks for one; tests/corpus/test_removal.py takes out
    r"hagane corpus remove runs/(quickstart|nordic) .*": Way("runs/(quickstart|nordic)", fresh=True, code=2),
    **{rf"hagane {stage}( build)? runs/(quickstart|nordic)": Way(rf"{stage}  +(?!unchanged)\S", without=(stage,)) for stage in STAGES},
    r"hagane status runs/nordic": Way(r"release +done"),
    r"hagane report runs/nordic": Way("report.html"),
    r"hagane chat runs/quickstart": Way(r"(?s)thinking mode.*plain mode", typed="What is 1 + 1?\n/plain\nVad är 1 + 1?\n/quit\n"),
    r"hagane chat runs/quickstart( --plain)? --prompt .*": Way(r"\S"),
    r"hagane plan nordic --corpus texts/ --budget 2h": Way("bits per byte"),
    r"hagane plan nordic --corpus texts/ --budget 2h --json plan.json --page plan.html": Way("written: plan.html"),
    r"hagane plan nordic --corpus texts/ --budget 2h --serve-tokens 2M": Way("(?s)serving .* for training.*bits per byte"),
    r"hagane plan mine.toml --budget 20min": Way("bits per byte"),
    # at toy size the budget is one of tokens: that a ladder says what it needs is the claim here, tests/measure climbs one
    r"hagane ladder nordic --corpus texts/ --budget 30min( --target 8h)?": Way("hagane ladder is bounded by time", small=True, fresh=True, code=2),
    # likewise: tests/measure searches
    r"hagane mix nordic --corpus texts/ --budget 30min( --target 8h)?": Way("hagane mix is bounded by time", small=True, fresh=True, code=2),
    r"hagane plan ax-k1": Way(r"(?s)ax-k1 on 1024xH200.*518,983,052,288 parameters, 32,779,332,608 active.*pipeline 16"),
    r"hagane plan llm-jp-4-32b-a3b --machine 64xH200 --budget 21d": Way(r"(?s)32,139,028,992 parameters.*3\. data .*bottleneck"),
    r"hagane plan nordic --machine 8xH100 --budget 2d": Way(r"(?s)\d+ experts.*3\. data .*bottleneck.*  vocabulary +16,384"),
    r"hagane plan ax-k1 --machine 1024xH200 --budget 30d --set '.*'": Way(r"1\. data \d+, .*expert 8, pipeline 16 "),
    r"hagane plan neurosynth-9 --claim": Way("(?s)= 14.5B tokens.*verdict: impossible.*nearest possible plan"),
    r"hagane plan neurosynth-7 --claim": Way("(?s)verdict: at the edge.*at most 18.1B active parameters"),
    r"hagane plan ax-k1 --claim": Way("verdict: possible"),
    r"hagane card runs/quickstart": Way(r"(?s)country +unknown.*energy modelled, not counted"),
    r"hagane card runs/quickstart --country Sweden": Way(r"country +Sweden"),
    r"hagane card runs/quickstart --toml card.toml": Way(r"written: card.toml"),
    r"hagane plan card.toml --claim": Way("verdict: "),  # the file is a claim of the fixture's: whichever worker runs this may not have run the line above
    r"hagane measure( --device cpu)?": Way("GFLOP/s"),
    r"hagane measure --device cuda": Way("GFLOP/s") if torch.cuda.is_available() else Way("^PyTorch finds no CUDA GPU here[^\n]*$", code=2),
    r"hagane recipe list": Way("quickstart"),
    r"hagane recipe show quickstart --budget 5min": Way("budget = '5min'"),
    r"hagane recipe show runs/quickstart": Way("(?s)derived:.*tokens"),
    r"hagane recipe new mine.toml": Way("Budget", fresh=True, typed='mine\nFor "our" letters\ntexts/\nsv\n\n30min\ndense\n'),
    r"hagane recipe check mine.toml": Way("every setting is known"),
}
NOT_HAGANE = (  # the ways to install, which `.ci/run` goes, and make's targets, which `test_commands` compares with the Makefile
    r"(PIP_NO_INDEX=1 PIP_FIND_LINKS=\$PWD/wheels )?make [a-z-]+",
    r"source \.venv/bin/activate",
    r"python3\.11 -m venv \.venv|uv venv --python 3\.11 \.venv",
    r"\.venv/bin/pip (install|wheel) .*",
    r"uv pip install .*",
    r"ray start --head",
)
LINES = sorted({*COMMANDS, *EXAMPLES})


def ways_of(line: str) -> list[Way]:
    return [way for pattern, way in WAYS.items() if re.fullmatch(pattern, line)]


def hagane(line: str, folder: Path, typed: str = "") -> tuple[int, str, str]:
    """Execute a command line in `folder` as the shell would, but in this process: exit code, standard output, standard error."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, RAY_ADDRESS="127.0.0.1:1"),  # whatever cluster runs here is not for tests
        mock.patch.object(sys, "argv", shlex.split(line)),
        mock.patch.object(sys, "stdin", io.StringIO(typed)),
        mock.patch.object(cli, "STARTED", time.monotonic()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def small(line: str) -> str:
    # shape and tokenizer of a run that starts from a checkpoint are the checkpoint's
    given = {name: value for name, value in SMALL.items() if "--from" not in line or not name.startswith(("model.", "tokenizer."))}
    settings = " ".join(f"--set {shlex.quote(f'{name}={value}')}" for name, value in given.items())
    return re.sub(r"--budget \S+", f"--budget {BUDGET}", line) + f" {settings}"


def write_texts(folder: Path, damaged: bool = False) -> Path:
    for language, text in (("sv", "Det var en gång en liten stuga vid sjön, och den hade nummer {}. "), ("fo", "Eg eri í Føroyum, og talið er {}. ")):
        (folder / "texts" / language).mkdir(parents=True)
        for number in range(60):
            (folder / "texts" / language / f"{number}.txt").write_text(text.format(number) * (3 + number % 7), encoding="utf-8")
    if damaged:
        (folder / "texts" / "sv" / "web.jsonl").write_text('{"text": "En hel rad, som blev kvar när resten var borta."}\n{"text": "En h', encoding="utf-8")
    return folder


class Place:
    """The folder a reader of the documentation would have: each run in it is made when a command first names it."""

    MADE: ClassVar = {"nordic": "nordic --corpus texts/", "drafting": "quickstart --set model.pattern.mtp_layers=1 --out runs/drafting"}

    def __init__(self, folder: Path) -> None:
        self.folder = write_texts(folder)
        assert hagane("hagane recipe new mine.toml --yes", folder)[0] == 0
        (folder / "card.toml").write_text(shipped_claims()["tinyllama-1.1b"], encoding="utf-8")

    def with_run(self, name: str) -> Path:
        if not (self.folder / "runs" / name / "release").exists():
            code, _, err = hagane(small(f"hagane run {self.MADE.get(name, name)} --budget 20min"), self.folder)
            assert code == 0, err
        return self.folder / "runs" / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    threads = torch.get_num_threads()
    yield Place(tmp_path_factory.mktemp("reader"))
    torch.set_num_threads(threads)


def test_every_line_is_known_and_every_entry_needed() -> None:
    assert [line for line in LINES if len(ways_of(line)) + any(re.fullmatch(pattern, line) for pattern in NOT_HAGANE) != 1] == []
    assert [pattern for pattern in (*WAYS, *NOT_HAGANE) if not any(re.fullmatch(pattern, line) for line in LINES)] == []


@pytest.mark.parametrize("line", [line for line in LINES if ways_of(line)])
def test_documented_commands_run(line: str, place: Place, tmp_path: Path) -> None:
    (way,) = ways_of(line)
    folder = write_texts(tmp_path, way.damaged) if way.fresh else place.folder
    if not way.fresh and (named := re.search(rf"--out runs/({'|'.join(Place.MADE)})", line) or re.search(r"runs/(\w+)|run (\w+)", line)):
        for source in re.findall(r"--from runs/(\w+)", line):
            place.with_run(source)
        run = place.with_run(next(name for name in named.groups() if name))
        for stage in way.without:
            shutil.rmtree(run / stage)
    code, out, err = hagane(small(line) if way.small else line, folder, way.typed)
    assert code == way.code, err
    assert re.search(way.says, out + err), out + err
    if code == 0 and not re.match(r"hagane (chat|--help)", line):
        assert isinstance(json.loads(out.splitlines()[-1]), dict), "the last line is for scripts"


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "python")])
def test_documented_python_runs(code: str, place: Place) -> None:
    for name in re.findall(r"runs/(\w+)", code):
        place.with_run(name)
    with contextlib.chdir(place.folder), contextlib.redirect_stdout(io.StringIO()):
        exec(code, {})
