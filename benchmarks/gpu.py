"""Everything that only a GPU shows, in under ten minutes, into one JSON file: `make gpu` runs it.

    python benchmarks/gpu.py --out gpu.json          # tests marked gpu, speed of steps, bits per byte after equal time
    python benchmarks/gpu.py --quick                 # on any machine: small shapes, no tests, no contest

Three parts, each a process of its own: `pytest -m gpu`; `train_step.py` (a dense model of 1B parameters and experts, share of the GPU's own bf16
matrix rate, memory); `equal_time.py` beside `transformers`. A part that fails is in the file with what it said, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from common import commit, finish, machine

BENCHMARKS = Path(__file__).resolve().parent
CONTEST_SECONDS = 100  # of each contestant: with set-up and scoring of both about five minutes
LIMIT_SECONDS = 300  # of a part
GOALS = {"dense 1B share": ">= 0.50", "experts 1B of 4B share": ">= 0.35", "equal time, hagane over transformers": "<= 0.97"}


def run(command: list[str], limit: float) -> dict[str, Any]:
    """Run one part; what it printed is shown. Exit code, seconds, the last lines, and the JSON of its last line where it has any."""
    print(f"\n$ {' '.join(command)}", flush=True)
    begun = time.monotonic()
    lines: list[str] = []
    code: int | None = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=BENCHMARKS.parent) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip("\n"))
                if time.monotonic() - begun > limit:
                    process.kill()
                    lines.append(f"stopped after {limit:.0f} s")
            code = process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise
    last = next((line for line in reversed(lines) if line), "")
    return {
        "command": command[1:], "code": code, "seconds": round(time.monotonic() - begun, 1), "tail": lines[-20:],
        "result": json.loads(last) if last.startswith('{"benchmark"') else None,
    }  # fmt: skip


def tests(part: dict[str, Any]) -> dict[str, float]:
    """How many tests passed, failed and were skipped, from pytest's last line."""
    said = " ".join(part["tail"][-3:])
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    return {f"gpu tests {word}": float(found.get(word, 0)) for word in ("passed", "failed", "error", "skipped")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--quick", action="store_true", help="small shapes only, on whatever is there")
    parser.add_argument("--corpus", type=Path, help="text for the contest, one folder per language; the Python library's own where not given")
    options = parser.parse_args()
    if not options.quick and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device that torch can use. See docs/install.md for its packages, or give --quick.")
    python = sys.executable
    commands = {"speed": [python, str(BENCHMARKS / "train_step.py"), "--quick" if options.quick else "--full"]}
    if not options.quick:
        corpus = ["--corpus", str(options.corpus)] if options.corpus else []
        commands = {
            "tests": [python, "-m", "pytest", "-q", "-m", "gpu"],
            **commands,
            "contest": [python, str(BENCHMARKS / "equal_time.py"), "--seconds", str(CONTEST_SECONDS), "--contestants", "transformers", *corpus],
        }
    begun = time.monotonic()
    parts = {name: run(command, LIMIT_SECONDS) for name, command in commands.items()}
    figures: dict[str, float] = tests(parts["tests"]) if "tests" in parts else {}
    if parts["speed"]["result"]:
        figures |= parts["speed"]["result"]["figures"]
    if "contest" in parts and parts["contest"]["result"]:
        overall = parts["contest"]["result"]["figures"]
        figures |= {f"equal time, {name}": value for name, value in overall.items()}
        figures["equal time, hagane over transformers"] = overall[f"{CONTEST_SECONDS}s overall"]
    figures["seconds"] = round(time.monotonic() - begun, 1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {"commit": commit(), "machine": machine(), "device": device, "figures": figures, "parts": parts}
    options.out.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(f"\n{options.out}: {figures['seconds']:.0f} s")
    finish("gpu", "quick" if options.quick else "full", figures, {}, {name: goal for name, goal in GOALS.items() if name in figures})
    failed = [name for name, part in parts.items() if part["code"]]
    if failed:
        raise SystemExit(f"these parts failed: {', '.join(failed)}. What they said is in {options.out}.")


if __name__ == "__main__":
    main()
