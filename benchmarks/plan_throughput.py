"""Judge `hagane.plan.layout` by published throughput: the error of every row, with constants fitted without that row's system.

Two models are compared: the roofline with its four constants, and one constant utilisation of the bf16 peak. Both are fitted to the
systems other than the one they predict. Beside the published layout stands the one that `hagane plan` would pick for the same model, machine, batch and
precision, at the speed of the same formulas: it may well be faster than the one somebody chose, so its distance from the published speed is the error of the
formulas and that gain together. `--fit` also prints the constants fitted to all rows, which layout.py freezes. Needs numpy
and scipy, no GPU, a few seconds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.optimize import minimize

from common import finish
from hagane.plan.dial import GOODPUT
from hagane.plan.footprint import num_micro_batches
from hagane.plan.layout import FITTED, UNBALANCED, Constants, Units, assemble, check, units
from hagane.plan.machines import Cluster, cluster
from hagane.plan.search import best_layouts, fitting
from hagane.plan.workload import Workload, from_shape
from hagane.recipe.types import Layout

ROWS = Path(__file__).with_name("published_throughput.toml")
DEFAULT_BATCH = 4 * 2**20


@dataclass
class Step:
    """What a step takes at full rates, and its tokens."""

    unit: Units
    tokens: float


@dataclass
class Row:
    """One published number, as tokens per second and device, and what the model needs to predict it."""

    system: str
    name: str
    work: Workload
    machine: Cluster
    batch: float
    layout: Layout
    balanced: bool
    measured: float
    read: bool
    step: Step
    own: Step
    fits: bool

    def predicted(self, constants: Constants) -> float:
        return self.step.tokens / assemble(self.step.unit, constants).total / self.machine.count

    def chosen(self, constants: Constants) -> float:
        """Likewise under the layout of the plan's own choosing."""
        return self.own.tokens / assemble(self.own.unit, constants).total / self.machine.count

    def utilised(self, share: float) -> float:
        """The other model: a share of the bf16 peak on three forward passes."""
        return share * self.machine.accelerator.rate("bf16") / (3 * self.work.forward_flops)


def flops_per_token(work: Workload, definition: str) -> float:
    """FLOPs of training one token by the definition that a source uses."""
    matrices = work.forward_flops - work.attention_flops
    if definition == "6n":
        return 6 * work.num_active_parameters
    full = matrices + 2 * work.attention_flops
    return {"causal": 3 * work.forward_flops, "full": 3 * full, "hardware": 4 * full - work.head_flops}[definition]


def tokens_per_device_second(row: dict[str, Any], work: Workload, machine: Cluster) -> float:
    if "tokens" in row:
        return float(row["tokens"])
    if "hours" in row:
        return float(row["trained"] / (row["hours"] * GOODPUT * 3600))
    if "seconds" in row:
        return float(row["batch"] / row["seconds"] / machine.count)
    rate = row["tflops"] * 1e12 if "tflops" in row else row["mfu"] / 100 * machine.accelerator.rate("bf16")
    return float(rate / flops_per_token(work, row["definition"]))


def published_layout(row: dict[str, Any], work: Workload, machine: Cluster, batch: float, balanced: bool) -> tuple[Layout, bool]:
    """The source's layout with what it leaves out filled in, and whether it fits; the plan's own best where there is none."""
    given = dict(row.get("layout", {}))
    if not given:
        return best_layouts(work, machine, batch, row["precision"], balanced=balanced, count=1)[0].layout, True
    rest = given.get("tensor", 1) * given.get("pipeline", 1) * given.get("context", 1)
    layout = Layout(precision=row["precision"], data=machine.count // rest, **given)
    if "micro_batch" not in given:
        tried = [layout.model_copy(update={"micro_batch": size}) for size in (8, 4, 2, 1)]
        layout = next((found for each in tried if (found := fitting(work, each, machine, batch))), layout)
    if (reason := check(work, layout, machine)) is not None:
        raise SystemExit(f"{row}: {reason}")
    if "checkpointing" in given:
        return layout, fitting(work, layout, machine, batch) is not None
    found = fitting(work, layout, machine, batch)
    return found or layout.model_copy(update={"checkpointing": "full"}), found is not None


def slower_attention(row: dict[str, Any], work: Workload, layout: Layout) -> float:
    """Factor on the matrix products where attention runs `attention_slowdown` times slower than they do."""
    full = layout.checkpointing == "full"
    ratio = 0.5 if layout.precision == "fp8" else 1.0  # attention and head stay in 16 bits
    body = (3 + full) * ratio * (work.matrix_flops + work.expert_flops) + 3 * work.head_flops
    attention = (3.5 + full) * work.attention_flops
    return float((body + row.get("attention_slowdown", 1.0) * attention) / (body + attention))


def step_of(row: dict[str, Any], work: Workload, layout: Layout, machine: Cluster, batch: float, balanced: bool, recompute: float = 0.0) -> Step:
    """`recompute`: share of the forward matrix products made again, beside what the layout's checkpointing does."""
    num_micro = num_micro_batches(work, layout, batch)
    unit = units(work, layout, machine, num_micro, 1.0 if balanced or layout.expert == 1 else UNBALANCED)
    unit = unit._replace(matrices=unit.matrices * (1 + recompute / 3) * slower_attention(row, work, layout))
    return Step(unit, num_micro * layout.micro_batch * work.context * layout.data)


def load(*, own_layouts: bool = True) -> list[Row]:
    """Every published number. `own_layouts`: with the layout that the plan would pick, which takes nine tenths of the time; else that is the published one."""
    table = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    rows = []
    for system in table["system"]:
        for given in system["rows"]:
            row = {**{key: value for key, value in system.items() if key != "rows"}, **given}
            shape = {"context": row["context"], **table["models"][row["model"]]}
            causal, work = from_shape(**shape), from_shape(**shape, fused_attention=row.get("fused_attention", True))
            machine = cluster(row["machine"])
            if changes := row.get("device"):
                machine = machine.model_copy(update={"accelerator": machine.accelerator.model_copy(update=changes)})
            batch, balanced = row.get("batch", DEFAULT_BATCH), row.get("balanced", False)
            layout, fits = published_layout(row, work, machine, batch, balanced)
            step, own = step_of(row, work, layout, machine, batch, balanced, row.get("recompute", 0.0)), None
            if "layout" in row and own_layouts:
                best = best_layouts(work, machine, batch, row["precision"], balanced=balanced, count=1)[0].layout
                own = step_of(row, work, best, machine, batch, balanced)
            name = f"{row['model']} {row['machine']} {row['precision']} {row['context']}" + (f" ({row['note']})" if "note" in row else "")
            measured = tokens_per_device_second(row, causal, machine)
            rows.append(Row(system["name"], name, causal, machine, batch, layout, balanced, measured, row.get("read", True), step, own or step, fits))
    return rows


def fit(rows: list[Row], start: Constants = FITTED) -> Constants:
    """The constants with the least mean of a Cauchy loss of log(predicted / measured); shares stay at most 1."""

    def loss(values: Any) -> float:
        constants = Constants(*(math.exp(value) for value in values))
        over = sum(max(0.0, value) for value in values[:3])
        errors = [abs(math.log(row.predicted(constants) / row.measured)) for row in rows]
        # Cauchy: a row that software held back threefold says nothing about the machine
        return sum(math.log1p((error / 0.15) ** 2) for error in errors) / len(rows) + 10 * over

    found = minimize(loss, [math.log(value) for value in start], method="Nelder-Mead", options={"xatol": 5e-3, "fatol": 1e-5, "maxfev": 250})
    return Constants(*(math.exp(value) for value in found.x))


def utilisation(rows: list[Row]) -> float:
    """The constant utilisation with the least mean size of log error: the median of the rows' own."""
    return statistics.median(row.measured / row.utilised(1.0) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="with the frozen constants, nothing is fitted")
    parser.add_argument("--full", action="store_true", help="what is quoted: constants fitted without the row's system (the default)")
    parser.add_argument("--fit", action="store_true", help="also print the constants fitted to all rows")
    options = parser.parse_args()
    rows = load()
    if options.fit:
        print("fitted to all rows:", fit(rows))
    roofline: list[float] = []
    constant: list[float] = []
    own: list[float] = []
    gains: list[float] = []
    print("tokens/s and device: published, by the formulas under the published layout, its error, the error of one utilisation, that of the plan's own layout")
    for system in dict.fromkeys(row.system for row in rows):
        others = [row for row in rows if row.system != system]
        constants, share = (FITTED if options.quick else fit(others)), utilisation(others)
        print(f"\n{system}" + ("" if options.quick else f"   [{', '.join(f'{n} {v:.3g}' for n, v in zip(constants._fields, constants))}; {share:.1%}]"))
        for row in rows:
            if row.system == system:
                found, other = row.predicted(constants), row.utilised(share)
                roofline.append(found / row.measured - 1)
                constant.append(other / row.measured - 1)
                own.append(row.chosen(constants) / row.measured - 1)
                gains.append(row.chosen(constants) / found - 1)
                print(
                    f"  {row.name:<52} {row.measured:>9,.0f} {found:>9,.0f} {roofline[-1]:>+6.0%} {constant[-1]:>+6.0%} {own[-1]:>+6.0%}  {row.layout}"
                    + ("" if row.fits else "  DOES NOT FIT") + ("" if row.read else "  (from memory)")
                )
    sizes, others_sizes = [abs(value) for value in roofline], [abs(value) for value in constant]
    own_sizes = [abs(value) for value in own]
    figures = {
        "rows": len(rows), "median_error": statistics.median(sizes), "max_error": max(sizes), "rows_over_30_percent": sum(size > 0.3 for size in sizes),
        "constant_median_error": statistics.median(others_sizes), "constant_max_error": max(others_sizes),
        "constant_over_roofline": statistics.median(others_sizes) / statistics.median(sizes), "layouts_that_do_not_fit": sum(not row.fits for row in rows),
        "own_layout_median_error": statistics.median(own_sizes), "own_layout_rows_over_30_percent": sum(size > 0.3 for size in own_sizes),
        "own_layout_median_bias": statistics.median(own), "own_over_published_layout": 1 + statistics.median(gains), "median_bias": statistics.median(roofline),
    }  # fmt: skip
    quartiles = statistics.quantiles(sizes, n=4)
    finish(
        "plan_throughput", "quick" if options.quick else "full", figures, {"median_error": quartiles[2] - quartiles[0]},
        # constants that were fitted to the rows they predict prove nothing
        {} if options.quick else {"median_error": "<= 0.12", "max_error": "<= 0.30", "constant_over_roofline": ">= 1.0"},
    )  # fmt: skip


if __name__ == "__main__":
    main()
