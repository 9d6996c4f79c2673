"""Answers that need no training: the state of a run, a plan before anything is read, a recipe resolved or checked."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hagane.corpus.stores import is_url
from hagane.errors import RecipeError
from hagane.folder import open_environment, pinned_only, read_json
from hagane.measure.machine import profile
from hagane.model.config import ModelConfig
from hagane.model.count import mtp_parts, num_active_parameters, num_parameters, parts
from hagane.plan.cost import joules, run_memory, tokens_per_second
from hagane.plan.curve import curve_line, loss_curve
from hagane.plan.fitted import fitted
from hagane.plan.found import find_mixture, with_mixture
from hagane.plan.held import refuse_unheld, usual_shape
from hagane.plan.kept import find_law
from hagane.plan.languages import language_lines, language_plans, mixture_reason, text_of, text_point
from hagane.plan.law import usual_bytes_per_token
from hagane.plan.least import refuse_few_steps
from hagane.plan.serve import served_lines, serving_options
from hagane.plan.shapes import experts_of, published
from hagane.plan.sketch import ALIKE, best_shape, sketch
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Budget, Machine, duration
from hagane.run import STAGES, headline, open_run


def status_of(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and facts for scripts about a run folder."""
    opened = open_run(folder)
    lines = [f"{folder}: recipe {opened.recipe.name}, budget {opened.recipe.budget or 'none'}"]
    states: dict[str, str] = {}
    for stage in STAGES:
        record = opened.record(stage.name)
        if record is not None:
            states[stage.name] = "done"
            lines.append(f"  {stage.name:<10} done in {duration(record['seconds'])}: {headline(stage.name, record['facts'])}")
        elif metrics := _last_metrics(opened.path(stage.name)):
            states[stage.name] = "started"
            lines.append(f"  {stage.name:<10} step {metrics['step']:,}, loss {metrics['loss']:.3f}, {metrics['tokens_per_second']:,.0f} tokens/s")
        else:
            states[stage.name] = "pending"
            lines.append(f"  {stage.name:<10} pending")
    clock = read_json(folder / "clock.json") if (folder / "clock.json").exists() else {"seconds": 0.0, "attempts": 0}
    lines.append(f"  active {duration(clock['seconds'])} in {clock['attempts']} attempts")
    if any(state != "done" for state in states.values()):
        lines.append(f"  go on with: hagane resume {folder}")
    return lines, {"run": str(folder), "stages": states, "seconds": clock["seconds"], "attempts": clock["attempts"]}


def _last_metrics(folder: Path) -> dict[str, Any] | None:
    """The newest complete line of a training stage's metrics, its steps included."""
    found = sorted([*folder.glob("metrics.jsonl"), *folder.glob("*/metrics.jsonl")], key=lambda path: path.stat().st_mtime)
    for line in reversed(found[-1].read_text(encoding="utf-8").splitlines() if found else []):
        try:
            values: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line being written now
        return values
    return None


def preview(recipe: Recipe, pinned: tuple[str, ...], serve_tokens: float | None = None) -> tuple[list[str], dict[str, Any]]:
    """What a budget would buy: numbers before the corpus is read, from the kept profile and the kept law of the text, or the published one.

    With `serve_tokens` the budget pays for serving that many tokens, too, and the shape is chosen for both. Raises RecipeError for what a run would refuse.
    """
    recipe = with_mixture(recipe, find_mixture(recipe))
    size = pinned_only(recipe, pinned)
    if serve_tokens and (recipe.budget is None or Budget.parse(recipe.budget).kind not in ("time", "energy", "money")):
        raise RecipeError("--serve-tokens divides a budget between training and serving. Give --budget as time, energy or money, for example 2h.")
    exact = published(recipe.model, recipe.train.context)
    if recipe.budget is None and recipe.train.tokens is None and exact is not None:
        return _count(recipe, exact)
    machine = profile(recipe.execution.device, recipe.execution.threads)
    recipe = fitted(recipe, pinned, machine)
    law = find_law(recipe)
    plan = sketch(recipe, size, machine, law)
    refuse_few_steps(recipe, size, machine, law)
    vocabulary = size.vocabulary_size or recipe.tokenizer.candidates[len(recipe.tokenizer.candidates) // 2]
    config = alone = best_shape(recipe, size, machine, vocabulary, plan.training_seconds, law)
    refuse_unheld(recipe, config)
    serving = serving_options(recipe, size, machine, vocabulary, plan.training_seconds, law, serve_tokens)[0] if serve_tokens else None
    if serving is not None:
        config, tokens = serving.config, round(serving.training_seconds * tokens_per_second(serving.config, recipe.train.context, machine))
        plan = plan.model_copy(update={"training_seconds": serving.training_seconds, "tokens": tokens})
    each = usual_bytes_per_token(vocabulary)
    text_bytes = plan.tokens * (1 - recipe.tune.share) * each
    shards = text_of(law)
    languages = language_plans(recipe, law, config, shards, text_bytes) if shards else {}
    value, low, high = law.predict(text_point(recipe, config, shards, text_bytes))
    curve = loss_curve(recipe, size, machine, law, plan.training_seconds, vocabulary, each * (1 - recipe.tune.share))
    rows = max(1, 4096 // recipe.train.context)
    facts: dict[str, Any] = {
        "recipe": recipe.name, "budget": recipe.budget, "machine": machine.name, "width": config.width, "num_layers": config.num_layers,
        "num_experts": experts_of(config), "vocabulary_size": vocabulary, "num_parameters": num_parameters(config),
        "num_active_parameters": num_active_parameters(config),
        "tokens": plan.tokens, "training_seconds": round(plan.training_seconds, 1), "sample_bytes": plan.sample_bytes,
        "bits_per_byte": round(value, 3), "low": round(low, 3), "high": round(high, 3),
        "memory_bytes": run_memory(config, rows, recipe.train.context, machine.device),
        "joules": round(joules(plan.training_seconds, machine)), "law": law.source, "mixture": mixture_reason(recipe),
        "languages": {language: item.model_dump(mode="json") for language, item in languages.items()},
        "curve": [item.model_dump(mode="json") for item in curve], "price_per_hour": recipe.execution.price_per_hour,
    }  # fmt: skip
    facts["reasons"] = _reasons(recipe, machine, facts)
    if serving is not None:
        facts |= {"serve_tokens": serve_tokens, "serving_seconds": round(serving.serving_seconds, 1), "width_without_serving": alone.width}
    lines = [
        f"{recipe.name} with {recipe.budget or f'{recipe.train.tokens:,} tokens'} on {machine.name} ({machine.matmul_flops / 1e9:,.0f} GFLOP/s bf16 measured)",
        f"  model      width {config.width}, {config.num_layers} layers{f', {experts_of(config)} experts' * (experts_of(config) > 0)}, "
        f"{num_parameters(config) / 1e6:.2f}M parameters "
        f"({num_active_parameters(config) / 1e6:.2f}M active), "
        f"vocabulary about {vocabulary:,}",
        f"  training   {plan.tokens / 1e6:.2f}M tokens in {duration(plan.training_seconds)} "
        f"at about {tokens_per_second(config, recipe.train.context, machine):,.0f} tokens/s",
        *(served_lines(serving, serve_tokens or 0.0, alone) if serving is not None else []),
        f"  text       a sample of {(plan.sample_bytes or 0) / 1e6:.1f} MB",
        f"  loss       {value:.2f} bits per byte ({low:.2f}-{high:.2f}); {law.source}",
        f"  mixture    {facts['mixture']}",
        f"  memory     {facts['memory_bytes'] / 2**20:,.0f} MiB; energy {facts['joules'] / 3600:.1f} Wh ({machine.power_source})",
        *language_lines(languages),
        "  budgets    " + curve_line(curve),
        "How the numbers follow:",
        *(f"  {name:<20} {text}" for name, text in facts["reasons"].items()),
        "The run times a real step of its shape before it freezes its plan; these are estimates.",
    ]
    return lines, facts


def _count(recipe: Recipe, config: ModelConfig) -> tuple[list[str], dict[str, Any]]:
    refuse_unheld(recipe, config)
    counted = parts(config)
    lines = [f"{recipe.name}: {num_parameters(config):,} parameters, {num_active_parameters(config):,} active"]
    lines += [f"  {name:<10} {count:,}" for name, count in counted.items() if count]
    further = sum(mtp_parts(config).values())
    if further:
        lines.append(f"  and {further:,} in training, to predict further tokens")
    return lines, {
        "recipe": recipe.name, "num_parameters": num_parameters(config), "num_active_parameters": num_active_parameters(config), "parts": counted,
        "mtp_parameters": further,
    }  # fmt: skip


def show_recipe(name: str, budget: str | None, settings: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Every setting with its value; for a run folder also what the plan derived, each value with its reason."""
    folder = Path(name)
    reasons: dict[str, str] = {}
    if (folder / "environment.json").exists():
        environment = open_environment(folder)
        recipe = validate(environment.settings, str(folder))
        if (folder / "plan" / "facts.json").exists():
            reasons = read_json(folder / "plan" / "facts.json")["facts"]["reasons"]
    else:
        recipe, _ = load_recipe(name, settings)
        if budget:
            recipe = validate({**recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True), "name": recipe.name, "budget": budget}, name)
        reasons = _preview_reasons(recipe, tuple(setting.partition("=")[0] for setting in settings))
    lines = _flat(recipe)
    lines += ["", "derived:", *(f"  {key}: {value}" for key, value in reasons.items())] if reasons else []
    return lines, {"recipe": recipe.model_dump(mode="json", by_alias=True), "derived": reasons}


def _preview_reasons(recipe: Recipe, pinned: tuple[str, ...]) -> dict[str, str]:
    try:
        _, facts = preview(recipe, pinned)
    except RecipeError as error:
        return {"plan": str(error)}
    if "tokens" not in facts:
        return {"model": f"{facts['num_parameters']:,} parameters, {facts['num_active_parameters']:,} active: the size that the recipe gives"}
    reasons: dict[str, str] = facts["reasons"]
    return reasons


def _reasons(recipe: Recipe, machine: Machine, facts: dict[str, Any]) -> dict[str, str]:
    """How each number of a preview follows, by the name of the setting that overrides it where there is one."""
    seconds, count = duration(facts["training_seconds"]), facts["num_experts"]
    experts = f", {count} experts" if count else ""
    return {
        "model": f"width {facts['width']}, {facts['num_layers']} layers{experts}: the largest of the ladder within {ALIKE:.1%} of the lowest expected loss "
        f"in {seconds}; model.size.width, model.size.num_layers{', model.pattern.num_experts' * (count > 0)} override it",
        "vocabulary": f"about {facts['vocabulary_size']:,}: the plan picks one of tokenizer.candidates once bytes per token are measured; "
        "model.size.vocabulary_size overrides it",
        "mixture": facts["mixture"],
        "tokens": f"{facts['tokens']:,}: training time x the speed expected from the measured matrix rate; train.tokens without a budget overrides it",
        "training_seconds": f"{seconds}: the budget less start, planning, evaluation and release, less 8 % for corpus and tokenizer",
        "corpus.sample_bytes": f"{facts['sample_bytes']:,}: text for these tokens with a margin of 30 %",
        "bits_per_byte": f"{facts['bits_per_byte']:.2f}, 80 % of outcomes from {facts['low']:.2f} to {facts['high']:.2f}: {facts['law']}",
        "memory_bytes": f"{facts['memory_bytes']:,}: weights, gradients, masters and moments, activations of a micro-step, and the process beside them",
        "joules": f"{facts['joules']:,}: {seconds} x {machine.power_watts:g} W, {machine.power_source}",
    }


def _flat(value: BaseModel, prefix: str = "") -> list[str]:
    lines = []
    for name, field in type(value).model_fields.items():
        item, path = getattr(value, name), f"{prefix}{field.alias or name}"
        if isinstance(item, BaseModel):
            lines += _flat(item, f"{path}.")
        elif isinstance(item, tuple) and item and isinstance(item[0], BaseModel):
            for index, entry in enumerate(item):
                lines += _flat(entry, f"{path}[{index}].")
        else:
            lines.append(f"{path} = {item!r}" + (f"   # {field.description}" if field.description else ""))
    return lines


def check_recipe_file(file: str, settings: list[str]) -> list[str]:
    """Notes on a recipe that loads; raises RecipeError for one that cannot work."""
    recipe, _ = load_recipe(file, settings)
    notes = [f"{file}: {recipe.name}: every setting is known and none contradict"]
    for source in recipe.corpus.sources:
        for path in source.path:
            if is_url(path):
                notes.append(f"{path}: what is there is looked at when the run starts")
            elif not path.startswith("embedded:") and not glob.glob(path, recursive=True):  # noqa: PTH207 - patterns may be absolute
                raise RecipeError(f"corpus source {source.name}: {path} matches no file. Correct the path, or give the text with --corpus.")
    if not recipe.corpus.sources:
        notes.append("it names no corpus: give --corpus PATH when you run it")
    if recipe.budget is None and recipe.train.tokens is None:
        notes.append("it names no budget: give --budget when you run it")
    refuse_unheld(recipe, usual_shape(recipe, SizeSettings()))
    return notes
