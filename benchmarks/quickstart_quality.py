"""How good is a run's model? The fixed test of 28 problems per family, language and mode (2,016 per mode), against the goals of the quickstart.

    hagane run quickstart --out runs/quickstart && python benchmarks/quickstart_quality.py runs/quickstart --full

The template look-up baseline (the answer of the nearest training problem) stands beside the model's share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import finish
from hagane.evaluate.facts import Cell
from hagane.evaluate.stage import evaluate
from hagane.run import open_run
from hagane.tune.stage import trained_folder

FIRST = ("number_words", "comparison", "addition_subtraction")


def share(cells: tuple[Cell, ...], mode: str, families: tuple[str, ...], language: str | None = None) -> float:
    """Right answers of a mode over some families, in one language or all."""
    chosen = [cell for cell in cells if cell.mode == mode and cell.family in families and language in (None, cell.language)]
    return sum(cell.correct for cell in chosen) / max(1, sum(cell.total for cell in chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--quick", action="store_true", help="two problems per cell")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    run = open_run(options.run)
    facts = evaluate(run, trained_folder(run), 2 if options.quick else 28)
    families = tuple(dict.fromkeys(cell.family for cell in facts.accuracy))
    languages = tuple(dict.fromkeys(cell.language for cell in facts.accuracy))
    print(f"{'family':<22}{'thinking':>10}{'plain':>8}{'look-up':>9}   by language, thinking")
    for family in families:
        row = [
            share(facts.accuracy, "thinking", (family,)),
            share(facts.accuracy, "plain", (family,)),
            share(facts.baseline, facts.baseline[0].mode, (family,)),
        ]
        by_language = " ".join(f"{language}:{share(facts.accuracy, 'thinking', (family,), language):.0%}" for language in languages)
        print(f"{family:<22}{row[0]:>10.1%}{row[1]:>8.1%}{row[2]:>9.1%}   {by_language}")
    items = sum(cell.total for cell in facts.accuracy if cell.mode == "thinking")
    print(f"{items} problems per mode; bits per byte: {', '.join(f'{name} {value.value:.3f}' for name, value in facts.bits_per_byte.items())}")
    thinking = {family: share(facts.accuracy, "thinking", (family,)) for family in families}
    figures = {f"{family} thinking": value for family, value in thinking.items()}
    first_four = (*FIRST, "two_step")
    figures["worst language, first four families"] = min(share(facts.accuracy, "thinking", first_four, language) for language in languages)
    figures["gain of thinking, addition_subtraction"] = thinking["addition_subtraction"] - share(facts.accuracy, "plain", ("addition_subtraction",))
    goals = {f"{family} thinking": ">= 0.95" for family in FIRST} | {"two_step thinking": ">= 0.80", "worst language, first four families": ">= 0.90"}
    goals["gain of thinking, addition_subtraction"] = ">= 0.40"
    widest = {
        f"{cell.family} thinking": (cell.high - cell.low) / 2
        for cell in facts.accuracy_totals
        if cell.mode == "thinking" and cell.language == "all" and cell.family != "all"
    }
    finish("quickstart_quality", "quick" if options.quick else "full", figures, widest, goals)


if __name__ == "__main__":
    main()
