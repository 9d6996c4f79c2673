"""What happened: the headline, plan against outcome, loss, router health, speed and energy, from the facts of a run."""

from __future__ import annotations

import math
from typing import Any

from hagane.report import figures, text
from hagane.report.against import BITS, budget_of, compared, energy_of, how_known, latest, machine_of, reached, stage_joules
from hagane.report.figures import Curve
from hagane.report.quality import counted, human_languages, mean_bits
from hagane.report.record import Record, Stage, dig, number, rows, table
from hagane.report.tables import Picture, Table, Tile


def headline(record: Record) -> dict[str, Any]:
    """Name, state, one sentence and the row of tiles."""
    name = str(record.recipe.get("name") or record.name)
    state = "finished" if record.finished else "not finished"
    under_way = next((stage.name for stage in record.stages if stage.state != "done"), None)
    return {
        "name": name,
        "description": str(record.recipe.get("description") or ""),
        "state": state,
        "next": under_way,
        "sentence": _sentence(record),
        "tiles": [tile for tile in (_model(record), _time(record), _quality(record), _answers(record), _energy(record), _proof(record)) if tile is not None],
    }


def _sentence(record: Record) -> str:
    plan, corpus = record.facts("plan"), record.facts("corpus")
    parts = [f"A {_kind(plan)}"]
    shards = [shard for shard in table(corpus.get("shards")).values() if isinstance(shard, dict)]
    if shards:
        names = human_languages(shard.get("language") for shard in shards)
        kept = number(corpus.get("bytes_kept"))
        parts.append(f"made from {text.size(kept)} of text" + (f" in {len(names)} language{'s' if len(names) != 1 else ''}" if names else ""))
    if record.seconds is not None:
        parts.append(f"in {text.seconds(record.seconds)}" + (" so far" if not record.finished else ""))
    machine = machine_of(record)
    if machine.get("name"):
        parts.append(f"on {machine['name']}")
    return " ".join(parts) + "."


def _kind(plan: dict[str, Any]) -> str:
    kinds = {dig(layer, "ffn", "kind") for layer in rows(dig(plan, "model", "layers"))}
    return "mixture-of-experts language model" if "experts" in kinds else "dense language model" if kinds else "language model"


def is_dense(record: Record) -> bool:
    """Whether the plan is known and its model has no experts."""
    return _kind(record.facts("plan")).startswith("dense")


def _model(record: Record) -> Tile | None:
    plan = record.facts("plan")
    if number(plan.get("num_parameters")) is None:
        return Tile("Model", text.UNKNOWN, "not planned yet")
    shape = f"{len(rows(dig(plan, 'model', 'layers')))} layers of width {text.whole(dig(plan, 'model', 'width'))}"
    experts = _experts(record)
    if experts:
        active = text.scaled(plan.get("num_active_parameters"))
        null = f" and {text.plain(experts['null_experts'])} null ones" if experts.get("null_experts") else ""
        shape = f"{active} active, {text.plain(experts.get('num_experts'))} experts{null}, top {text.plain(experts.get('top_k'))}; {shape}"
    return Tile("Parameters", text.scaled(plan["num_parameters"]), shape)


def _experts(record: Record) -> dict[str, Any]:
    """The settings of the first layer with experts; empty for a dense model."""
    layers = rows(dig(record.facts("plan"), "model", "layers"))
    return next((table(layer.get("ffn")) for layer in layers if dig(layer, "ffn", "kind") == "experts"), {})


def _time(record: Record) -> Tile:
    budget = budget_of(record)
    if record.seconds is None:
        return Tile("Time", text.UNKNOWN, "not started")
    if budget is not None and budget.kind == "time":
        return Tile("Time", text.seconds(record.seconds), f"{text.percent(record.seconds / budget.amount)} of the {text.spent(budget)} asked for")
    return Tile("Time", text.seconds(record.seconds), f"budget {text.spent(budget)}" if budget else "active time over all attempts")


def _quality(record: Record) -> Tile:
    bits = mean_bits(record)
    if bits is not None:
        mean, count, worst, value = bits
        code = ", code among them" if len(human_languages(table(record.facts("evaluate").get("bits_per_byte")))) < count else ""
        of = f"mean of {count} languages{code}; weakest {text.language(worst)} {text.fixed(value, 2)}" if count > 1 else text.language(worst)
        return Tile("Bits per byte", text.fixed(mean), f"held-out text, {of}")
    last = next((last for stage in reversed(record.training) if (last := latest(stage, "loss")) is not None), None)
    return Tile("Training loss", text.fixed(last, 2), "nats per token so far") if last is not None else Tile("Bits per byte", text.UNKNOWN, "not evaluated yet")


def _answers(record: Record) -> Tile | None:
    totals = counted(record, lambda row: str(row.get("mode")))
    if not totals:
        return None
    first = "thinking" if "thinking" in totals else next(iter(totals))
    others = "".join(f"; {mode} {text.percent(count.share)}" for mode, count in totals.items() if mode != first)
    return Tile("Right answers", text.percent(totals[first].share), f"{first}, {text.whole(totals[first].total)} held-out problems{others}")


def _energy(record: Record) -> Tile | None:
    joules, how = energy_of(record)
    if not joules:
        return None
    return Tile("Energy", text.energy(joules), f"{how} by the machine" if how == "counted" else f"{how}: {_power_source(record)}")


def _power_source(record: Record) -> str:
    return str(machine_of(record).get("power_source") or "not stated")


def _proof(record: Record) -> Tile | None:
    release = record.facts("release")
    gap = number(release.get("max_logit_gap"))
    if gap is None:
        return None
    note = f"to the released files loaded by transformers; {_same_text(release)}"
    if (form := number(release.get("form_logit_gap"))) is not None:
        note += f"; with a fixed number of keys {text.small(form)} from our own form"
    return Tile("Logit gap", text.small(gap), f"{note}; {_gguf(table(release.get('gguf')))}")


def _same_text(release: dict[str, Any]) -> str:
    """On how many prompts transformers goes on as we do, and on how many from a tie onwards not."""
    prompts, parted = number(release.get("prompts_checked")) or 0.0, number(release.get("greedy_parted")) or 0.0
    ties = f" and on {text.whole(parted)} up to where two tokens tie" if parted else ""
    return f"the same greedy text on {text.whole(prompts - parted)} of {text.whole(prompts)} prompts{ties}"


def _gguf(facts: dict[str, Any]) -> str:
    """What the GGUF files differ by, with their sizes, or why there are none. The card has the names and more."""
    files = [
        f"{file.get('quantisation')} {text.small(file.get('max_logprob_gap'))} ({text.size(file.get('bytes'))})"
        for file in facts.get("files") or ()
        if isinstance(file, dict)
    ]
    return f"log-probabilities in llama.cpp: {', '.join(files)}" if files else f"no GGUF ({facts.get('skipped') or 'made before there were any'})"


def outcome(record: Record) -> dict[str, Any] | None:
    """Plan against outcome; None before there is a plan."""
    plan = record.facts("plan")
    if not plan:
        return None
    lines = [(one.name, one.show(one.planned), one.show(one.came), one.error if record.finished else "") for one in compared(record)]
    predicted, mean = table(plan.get("predicted")), mean_bits(record)
    low, high = number(predicted.get("low")), number(predicted.get("high"))
    if low is not None and high is not None:
        verdict = "" if mean is None else "inside" if low <= mean[0] <= high else "outside"
        place = next((i for i, line in enumerate(lines) if line[0] == BITS), len(lines) - 1)
        lines.insert(place + 1, ("80 % interval", f"{text.fixed(low, 2)} to {text.fixed(high, 2)}", verdict, ""))
    planned = {str(name): number(dig(stage, "seconds")) for name, stage in table(plan.get("stages")).items()}
    names = [stage.name for stage in record.stages if stage.name in planned or stage.seconds is not None]
    spent = {name: record.stage(name).seconds for name in names}
    return {
        "table": Table("What the plan said, and what came", ("", "planned", "outcome", "error"), tuple(lines), frozenset({1, 2, 3})),
        "picture": figures.stage_times("stages", {name: planned.get(name) for name in names}, spent) if any(spent.values()) or any(planned.values()) else None,
        "reasons": [(str(name).replace("_", " "), str(reason)) for name, reason in table(plan.get("reasons")).items()],
        "law": str(plan.get("law") or ""),
    }


def losses(record: Record) -> list[Picture]:
    """One loss curve per training stage: their losses are not comparable with each other."""
    pictures = []
    for i, stage in enumerate(record.training):
        curve = Curve.of([number(line.get("tokens")) for line in stage.metrics], [number(line.get("loss")) for line in stage.metrics])
        if curve.drawable:
            tokens = {number(line.get("step")): number(line.get("tokens")) for line in stage.metrics}
            resumed = [number(event.get("step")) for event in stage.events if event.get("event") == "resume"]
            steps = [step for step in tokens if step is not None]
            nearest = [tokens[min(steps, key=lambda other: abs(other - step))] for step in resumed if step is not None]
            pictures.append(figures.loss(f"loss-{i}", stage.name, curve, [x for x in nearest if x is not None]))
    further = along(record, "mtp_loss")
    if further.drawable:
        note = "Nats per target of the modules that predict the tokens after the next one: means over modules."
        pictures.append(figures.course("mtp", "Loss of further tokens", [("loss of further tokens", further)], _marks(record), caption=note))
    return pictures


def along(record: Record, *path: str) -> Curve:
    """A metric over active training seconds, all training stages one after the other."""
    seconds: list[float | None] = []
    values: list[float | None] = []
    for start, stage in _starts(record):
        for line in stage.metrics:
            at = number(line.get("seconds"))
            seconds.append(None if at is None else start + at)
            values.append(number(dig(line, *path)))
    return Curve.of(seconds, values)


def _starts(record: Record) -> list[tuple[float, Stage]]:
    """Training stages that have metrics, with the training seconds before each."""
    starts, at = [], 0.0
    for stage in record.training:
        if stage.metrics:
            starts.append((at, stage))
            at += latest(stage, "seconds") or 0.0
    return starts


def _marks(record: Record) -> list[tuple[str, float]]:
    return [(stage.name, start) for start, stage in _starts(record)]


def router(record: Record) -> dict[str, Any] | None:
    """Router health; None for a dense model."""
    effective, violation, dead = (along(record, "router", name) for name in ("effective_experts", "max_violation", "dead_share"))
    if not any(curve.drawable for curve in (effective, violation, dead)):
        return None
    experts = number(_experts(record).get("num_experts"))
    pictures = []
    if effective.drawable:
        goal = ("all experts", experts) if experts else None
        note = "exp of the entropy of the load: as many experts as share the work evenly. Mean over layers."
        pictures.append(figures.course("effective", "Effective experts", [("effective experts", effective)], _marks(record), caption=note, goal=goal))
    loads = [(label, curve) for label, curve in (("load violation", violation), ("dead share", dead)) if curve.drawable]
    if loads:
        note = "Load violation: how far the busiest expert is above the mean load. Dead share: experts that saw no token in a step."
        pictures.append(figures.course("load", "Load of the experts", loads, _marks(record), caption=note, share=True))
    lines = []
    for stage in record.training:
        last = table(stage.facts.get("router")) or next((table(line.get("router")) for line in reversed(stage.metrics) if line.get("router")), {})
        if last:
            shares = (text.percent(last.get("max_violation")), text.percent(last.get("dead_share")))
            entropies = (text.fixed(last.get("conditional_entropy"), 2), text.fixed(last.get("marginal_entropy"), 2))
            lines.append((stage.name, text.fixed(last.get("effective_experts"), 2), *shares, *entropies))
    columns = ("stage", "effective experts", "load violation", "dead share", "conditional entropy", "marginal entropy")
    state = Table("At the end of each training stage", columns, tuple(lines), frozenset(range(1, 6)))
    return {"pictures": pictures + _more_routing(record), "table": state, "tables": [*_used_experts(record), *_clamping(record)]}


def _more_routing(record: Record) -> list[Any]:
    """Pictures of null experts and of clamping, where there are any."""
    pictures = []
    used = along(record, "router", "mean_experts")
    if used.drawable:
        budget = number(_experts(record).get("mean_experts"))
        note = "Experts that are not null, per token; mean over layers."
        goal = ("budget", budget) if budget else None
        pictures.append(figures.course("experts-used", "Experts used per token", [("experts used", used)], _marks(record), caption=note, goal=goal))
    names = ("marginal_low", "conditional_low", "conditional_high")
    multipliers = [(name.replace("_", " "), along(record, "router", f"multiplier_{name}")) for name in names]
    if any(curve.drawable for _, curve in multipliers):
        note = "How hard entropies are pulled back into their bands; each grows outside and shrinks inside, where nothing is pulled. Largest over layers."
        pictures.append(figures.course("clamp", "Multipliers of entropy clamping", multipliers, _marks(record), caption=note))
    return pictures


def _ends(record: Record, name: str) -> list[tuple[str, dict[str, Any]]]:
    """(stage, router health at its end) of the stages whose health has this figure."""
    found = []
    for stage in record.training:
        health = table(stage.facts.get("router")) or next((table(line.get("router")) for line in reversed(stage.metrics) if line.get("router")), {})
        if number(health.get(name)) is not None:
            found.append((stage.name, health))
    return found


def _used_experts(record: Record) -> list[Table]:
    """How many experts tokens used, where some are null."""
    ends = _ends(record, "mean_experts")
    if not ends:
        return []
    shares = {stage: list(health.get("experts_used") or ()) for stage, health in ends}
    width = max(map(len, shares.values()))
    columns = ("stage", "mean", *(str(count) for count in range(width)), "correlation with the token's loss")
    lines = []
    for stage, health in ends:
        told = [text.percent(share) for share in shares[stage]] + [text.UNKNOWN] * (width - len(shares[stage]))
        lines.append((stage, text.fixed(health.get("mean_experts"), 2), *told, text.fixed(health.get("loss_correlation"), 2)))
    return [Table("Tokens by number of experts used", columns, tuple(lines), frozenset(range(1, width + 3)))]


def _clamping(record: Record) -> list[Table]:
    names = ("clamped_share", "multiplier_marginal_low", "multiplier_conditional_low", "multiplier_conditional_high")
    lines = [
        (stage, text.percent(health.get(names[0])), *(text.fixed(health.get(name), 4) for name in names[1:])) for stage, health in _ends(record, names[0])
    ]
    columns = ("stage", "bounds outside", "marginal low", "conditional low", "conditional high")
    return [Table("Multipliers of entropy clamping", columns, tuple(lines), frozenset(range(1, 5)))] if lines else []


def speed(record: Record) -> dict[str, Any] | None:
    """Tokens per second and utilisation; None before training."""
    rate, used = along(record, "tokens_per_second"), along(record, "flop_utilisation")
    pictures = []
    if rate.drawable:
        note = "Training tokens per second of active time."
        pictures.append(figures.course("rate", "Tokens per second", [("tokens per second", rate)], _marks(record), caption=note))
    if used.drawable:
        measured = number(machine_of(record).get("matmul_flops"))
        against = f" ({text.scaled(measured, 'FLOP/s')})" if measured else ""
        note = f"Useful floating-point work as a share of the best matrix rate measured on this machine{against}."
        pictures.append(figures.course("used", "FLOP utilisation", [("utilisation", used)], _marks(record), caption=note, share=True))
    lines = [
        (
            stage.name, text.whole(reached(stage, "steps", "step")), text.scaled(reached(stage, "tokens", "tokens")), text.seconds(stage.seconds),
            text.scaled(reached(stage, "tokens_per_second", "tokens_per_second")), text.percent(reached(stage, "mean_utilisation", "flop_utilisation")),
            text.size(reached(stage, "peak_memory_bytes", "memory_bytes")), text.whole(stage.facts.get("attempts")),
        )
        for stage in record.training
    ]  # fmt: skip
    if not lines:
        return None
    columns = ("stage", "steps", "tokens", "time", "tokens/s", "utilisation", "peak memory", "attempts")
    return {"pictures": pictures, "table": Table("Training stages", columns, tuple(lines), frozenset(range(1, 8)))}


def energy(record: Record) -> dict[str, Any] | None:
    """Energy per stage, each counted or modelled, and of the run; None where neither a counter nor the power of the machine is known."""
    spent = [(stage, joules) for stage in record.stages if (joules := stage_joules(record, stage)) is not None]
    total, (whole, how) = sum(joules for _, joules in spent), energy_of(record)
    if not total:
        return None
    lines = [
        (stage.name, text.seconds(stage.seconds), text.energy(joules), text.percent(joules / total), how_known([stage.facts.get("counted")]))
        for stage, joules in spent
    ]
    foot = ("the run", text.seconds(sum(stage.seconds or 0.0 for stage, _ in spent)), text.energy(whole), "", how)
    trained = sum(reached(stage, "tokens", "tokens") or 0.0 for stage in record.training)
    meters = [(stage.facts.get("counted"), joules) for stage, joules in spent if stage in record.training and joules]
    training = sum(joules for _, joules in meters)
    return {
        "table": Table("Energy by stage", ("stage", "time", "energy", "share", "known by"), tuple(lines), frozenset({1, 2, 3}), foot),
        "per_token": f"{training / trained * 1e3:.3g} mJ" if trained and math.isfinite(training / trained) else None,
        "how": how_known([counted for counted, _ in meters]),
        "watts": text.scaled(machine_of(record).get("power_watts"), "W"),
        "source": _power_source(record),
    }
