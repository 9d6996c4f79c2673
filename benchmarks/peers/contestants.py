"""How `equal_time.py` runs each contestant: prepare what is given for free, start the process, stop the clock when it has ended, score.

The clock runs from the start of the process until the trained weights are on disk; what comes after (hagane's report, nanochat's
optimizer state, the end of the interpreter) is nobody's time. A cold run has compiler caches of its own: everybody compiles, and hagane
measures the machine and the step, within its time, as on a machine that has seen none of them. A warm one finds them filled: the
first run of a shape is preceded by one that only compiles.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hagane.folder import TARGET_SHARE
from hagane.plan.sketch import Sketch, evaluate_seconds, release_seconds, smallest_seconds
from hagane.recipe.load import load_recipe
from peers.nanochat_text import prepare_documents, prepare_tokenizer
from peers.process import BENCHMARKS, ContestantError, environment, first_time, run_process
from peers.text import Text
from peers.transformers_text import prepare_tokens

CONTEXT = 256
Settings = dict[str, Any]
Result = dict[str, Any]


@dataclass
class Hagane:
    """`hagane run RECIPE` on the text, up to and including pretraining: corpus, tokenizer, plan, encode and compilation within the time."""

    text: Text
    work: Path
    recipe: str
    sets: tuple[str, ...]
    warm: bool

    TAIL_SECONDS = 1.0  # before hagane's own clock starts, and for the file system

    @property
    def settings(self) -> list[str]:
        """Pretraining on the given text alone: no generated problems, no tuning, and the plan sets aside no time for them."""
        evaluation = ["evaluate.items_per_cell=1", "evaluate.max_bytes=1000", "evaluate.parallel_sentences=1", "release.gguf=false"]
        return ["corpus.sources=[]", "tune.share=0", *evaluation, f"train.context={CONTEXT}", *self.sets]

    def budget(self, seconds: float) -> float:
        """The budget whose pretraining ends in time. A run's budget also pays for evaluation and release, which nobody here is asked for."""
        return (seconds - self.TAIL_SECONDS + self._reserved()) / TARGET_SHARE

    def smallest(self) -> float:
        """The least seconds whose budget `hagane run` accepts."""
        return smallest_seconds() * TARGET_SHARE + self.TAIL_SECONDS - self._reserved()

    def _reserved(self) -> float:
        recipe, _ = load_recipe(self.recipe, self.settings)
        nothing = Sketch(training_seconds=0, tokens=0, sample_bytes=None, tokenizer_bytes=0, items_per_cell=1)
        return evaluate_seconds(recipe, nothing, scored_tokens=0, tokens_per_second=1e4) + release_seconds(recipe)  # a thousand bytes take no time

    def run(self, settings: Settings, seconds: float, seed: int) -> Result:
        folder = self.work / "runs" / f"hagane-{seconds:g}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        run, caches = folder / "run", self.work / "caches" / "hagane" if self.warm else folder
        env = environment(caches)
        command = [sys.executable, "-m", "hagane", "run", self.recipe, "--corpus", str(self.text.train), "--budget", f"{self.budget(seconds):.2f}s"]
        command += [part for value in (*self.settings, f"seed={seed}") for part in ("--set", value)]
        if self.warm and first_time(caches, f"{seconds} {self.settings}"):
            # the plan stage compiles and times the step; that a cold start leaves too little of a short budget does not matter here
            with contextlib.suppress(ContestantError):
                run_process([*command, "--out", str(folder / "plan"), "--until", "plan"], folder / "plan.log", env)
        start = run_process([*command, "--out", str(run), "--until", "pretrain"], folder / "log", env)
        wall = (run / "pretrain" / "facts.json").stat().st_mtime - start
        facts = {stage: json.loads((run / stage / "facts.json").read_text())["facts"] for stage in ("plan", "pretrain")}
        run_process([sys.executable, "-m", "peers.hagane_score", str(run), str(self.text.test), str(folder / "scores.json")], folder / "score.log", env)
        model = facts["plan"]["model"]
        result = {
            "wall": wall, "steps": facts["pretrain"]["steps"], "tokens": facts["pretrain"]["tokens"], "num_parameters": facts["plan"]["num_parameters"],
            "vocabulary": facts["plan"]["vocabulary_size"], "width": model["width"], "layers": len(model["layers"]),
            "scores": json.loads((folder / "scores.json").read_text()),
        }  # fmt: skip
        (folder / "log").replace(self.work / "runs" / f"{folder.name}.log")
        shutil.rmtree(folder)
        return result


@dataclass
class Transformers:
    """`transformers_train.py`: LlamaForCausalLM. Its tokenizer, encoding and mixture are made before the clock starts."""

    text: Text
    work: Path
    warm: bool

    def run(self, settings: Settings, seconds: float, seed: int) -> Result:
        tokens = prepare_tokens(self.text.stream, settings["vocabulary"], self.text.folder)
        folder = self.work / "runs" / f"transformers-{seconds:g}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        caches = self.work / "caches" / "transformers" if self.warm else folder
        env = environment(caches)
        command = [sys.executable, "-m", "peers.transformers_train", "--tokens", str(tokens), "--out", str(folder / "model")]
        command += [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command += ["--context", str(CONTEXT), "--seed", str(seed)]
        shape = json.dumps({name: value for name, value in settings.items() if name != "learning_rate"}, sort_keys=True)
        if self.warm and first_time(caches, shape):  # a deadline that has passed: it compiles, and trains nothing
            run_process([*command, "--deadline", "0"], folder / "warm.log", env)
        start = run_process([*command, "--deadline", f"{time.time() + seconds:.3f}"], folder / "log", env)
        wall = (folder / "model" / "facts.json").stat().st_mtime - start
        facts = json.loads((folder / "model" / "facts.json").read_text())
        score = ["-m", "peers.transformers_score", str(folder / "model"), str(tokens / "tokenizer.json"), str(self.text.test), str(folder / "scores.json")]
        run_process([sys.executable, *score, str(CONTEXT)], folder / "score.log", env)
        given = json.loads((tokens / "facts.json").read_text())
        facts |= {"wall": wall, "given_seconds": given["trained_seconds"] + given["encoded_seconds"]}
        facts["scores"] = json.loads((folder / "scores.json").read_text())
        (folder / "log").replace(self.work / "runs" / f"{folder.name}.log")
        shutil.rmtree(folder)
        return facts


@dataclass
class Nanochat:
    """nanochat's own `scripts.base_train` in its own checkout, driven by its command line only.

    Its tokenizer and its parquet files are made before the clock starts: the same stream cut into pieces of at most 600 bytes,
    because its loader crops what does not fit a row, in an order by seed (its weights always start from the same seed). It counts
    steps, not seconds: a short run is timed first, for free, and a run that ends early is done again with more steps.
    """

    text: Text
    work: Path
    checkout: Path
    warm: bool
    pace: dict[str, tuple[float, float]]  # settings -> (seconds besides steps, seconds of a step), from the latest run

    VOCABULARY = 8192
    CALIBRATION_STEPS = 30
    EARLY = 0.98  # of the time: a run that ends before this has been cheated of steps

    @property
    def python(self) -> str:
        own = self.checkout / ".venv" / "bin" / "python"
        return os.environ.get("HAGANE_NANOCHAT_PYTHON") or (str(own) if own.exists() else sys.executable)

    def run(self, settings: Settings, seconds: float, seed: int) -> Result:
        tokenizer = prepare_tokenizer(self)
        base = self.text.folder / "nanochat" / f"seed-{seed}"
        prepare_documents(self.text.stream, tokenizer, base, seed)
        key = json.dumps(settings, sort_keys=True)
        if self.warm and first_time(self.work / "caches" / "nanochat", key):
            self._train(settings, base, 2)
        if key not in self.pace:
            self.pace[key] = self._train(settings, base, self.CALIBRATION_STEPS)[1:]
        for _ in range(3):
            fixed, step = self.pace[key]
            steps = max(1, round((seconds - fixed) / step))
            wall, *pace = self._train(settings, base, steps)
            self.pace[key] = (pace[0], pace[1])
            if wall >= self.EARLY * seconds:
                break
        folder = base / "scored"
        folder.mkdir(exist_ok=True)
        env = self.environment(base, NANOCHAT_DTYPE="float32")
        command = [self.python, "-m", "peers.nanochat_score", "contest", str(self.text.test), str(folder / "scores.json"), str(CONTEXT)]
        run_process(command, folder / "log", env, cwd=self.checkout)
        shutil.rmtree(base / "base_checkpoints")
        return {
            "wall": wall, "steps": steps, "tokens": steps * settings["batch"], "pace": self.pace[key],
            "scores": json.loads((folder / "scores.json").read_text()),
        }  # fmt: skip

    def environment(self, base: Path, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.checkout), str(BENCHMARKS)])
        caches = self.work / "caches" / "nanochat" if self.warm else base / "caches"
        return environment(caches, **{"NANOCHAT_BASE_DIR": str(base), "NANOCHAT_DTYPE": "bfloat16", "PYTHONPATH": path, "WANDB_MODE": "disabled", **more})

    def _train(self, settings: Settings, base: Path, steps: int) -> tuple[float, float, float]:
        """(seconds in all, seconds besides steps, seconds of a step) of `base_train`; leaves its checkpoint."""
        for name in ("caches", "base_checkpoints"):
            shutil.rmtree(base / name, ignore_errors=True)
        command = [self.python, "-m", "scripts.base_train", "--model-tag=contest", f"--depth={settings['depth']}", f"--num-iterations={steps}"]
        command += [f"--total-batch-size={settings['batch']}", f"--device-batch-size={min(32, settings['batch'] // CONTEXT)}", f"--max-seq-len={CONTEXT}"]
        # as its own example for a CPU has it; everything that only measures is off
        command += ["--head-dim=64", "--window-pattern=L", "--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1"]
        log = self.work / "runs" / f"nanochat-{settings['depth']}-{settings['batch']}-{steps}.log"
        start = run_process(command, log, self.environment(base), cwd=self.checkout)
        wall = (base / "base_checkpoints" / "contest" / f"model_{steps:06d}.pt").stat().st_mtime - start
        taken = [float(value) / 1e3 for value in re.findall(r"\bdt: ([0-9.]+)ms", log.read_text(errors="replace"))]
        if len(taken) != steps:
            raise ContestantError(f"{log} tells of {len(taken)} steps instead of {steps}: its format is not the one known here.")
        settled = statistics.fmean(taken[5:] or taken)  # the first ones compile
        return wall, max(0.0, wall - steps * settled), settled
