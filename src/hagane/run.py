"""The order of the stages, their keys, and the walk that skips what has not changed.

A stage is `(run, folder) -> facts`. Its key is the hash of its result settings, its code version and the digests of what
it reads; it is done when `facts.json`, written last, carries that key. Timings are never part of a key.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from hagane.errors import HaganeError, RunError
from hagane.folder import FORMAT, LAW, MIXTURE, Environment, Run, disk_error, folder_digest, lock, open_environment, read_json, write_atomic
from hagane.hosts.gguf import missing_tools
from hagane.plan.fitted import fitted
from hagane.plan.limits import REPEATS
from hagane.plan.shapes import candidates
from hagane.plan.start import starting_model, starting_settings
from hagane.recipe.load import validate
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Frozen, Machine, duration

if TYPE_CHECKING:
    from hagane.corpus.takeout import Taken
    from hagane.model.config import ModelConfig
    from hagane.plan.found import FoundMixture
    from hagane.plan.law import Law


@dataclass(frozen=True)
class Stage:
    """One step of a run. `sections` are the recipe's tables it depends on, `reads` the stages whose results it reads."""

    name: str
    function: str
    sections: tuple[str, ...]
    reads: tuple[str, ...]
    version: int = 1
    in_place: bool = False  # training stages: the folder holds checkpoints and is resumed, not rewritten
    skip: frozenset[str] = frozenset()  # files that do not count for the digest: logs and timings

    def load(self) -> Callable[[Run, Path], Frozen]:
        module, _, name = self.function.partition(":")
        function: Callable[[Run, Path], Frozen] = getattr(importlib.import_module(module), name)
        return function


_LOGS = frozenset({
    "facts.json", "step.json", "key.json", "deadline.json", "energy.json", "metrics.jsonl", "events.jsonl", "checkpoints", "tensorboard", "dropped.jsonl"
})  # fmt: skip
_ACCOUNTS = frozenset({"manifest.json", "files.jsonl", "inputs.json", "data_card.md", "dropped.jsonl"})  # where the text is from: the text is what counts

STAGES: tuple[Stage, ...] = (
    Stage("corpus", "hagane.corpus.stage:run_stage", ("corpus", "seed"), (), skip=_ACCOUNTS),
    Stage("tokenizer", "hagane.tokenizer.stage:run_stage", ("tokenizer", "corpus.max_repeats", "seed"), ("corpus",)),
    Stage(
        "plan",
        "hagane.measure.stage:run_stage",
        ("budget", "model", "train", "midtrain", "extend", "tune", "corpus.max_repeats", "seed"),
        ("corpus", "tokenizer"),
    ),
    Stage("encode", "hagane.data.stage:run_stage", ("train.context", "seed"), ("corpus", "tokenizer", "plan")),
    Stage("pretrain", "hagane.train.stage:run_pretrain", ("train", "seed"), ("plan", "encode"), in_place=True, skip=_LOGS),
    Stage("midtrain", "hagane.train.stage:run_midtrain", ("train", "midtrain", "seed"), ("plan", "encode", "pretrain"), in_place=True, skip=_LOGS),
    Stage("extend", "hagane.train.stage:run_extend", ("train", "extend", "seed"), ("plan", "encode", "pretrain", "midtrain"), in_place=True, skip=_LOGS),
    Stage("converse", "hagane.tune.converse:run_stage", ("tune", "seed"), ("plan", "encode")),
    Stage(
        "tune", "hagane.tune.stage:run_stage", ("tune", "train", "seed"),
        ("plan", "encode", "pretrain", "midtrain", "extend", "converse"), in_place=True, skip=_LOGS,
    ),
    Stage("evaluate", "hagane.evaluate.stage:run_stage", ("evaluate", "tune", "seed"), ("corpus", "encode", "plan", "pretrain", "midtrain", "extend", "tune")),
    Stage(
        "release", "hagane.release.stage:run_stage", ("release", "name", "description"),
        ("encode", "plan", "pretrain", "midtrain", "extend", "tune", "evaluate"),
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def result_settings(value: Any) -> Any:
    """A settings value as plain data without its execution fields."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: result_settings(getattr(value, name)) for name, field in fields.items() if (_extra(field) or {}).get("role") != "execution"}
    if isinstance(value, tuple | list):
        return [result_settings(item) for item in value]
    if isinstance(value, dict):
        return {name: result_settings(item) for name, item in value.items()}
    return value


def _extra(field: Any) -> dict[str, Any] | None:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else None


def stage_key(run: Run, stage: Stage, extra: dict[str, Any]) -> str:
    """Hash of the stage's result settings, its code version and the digests of what it reads."""
    settings = {}
    for section in stage.sections:
        value: Any = run.recipe
        for part in section.split("."):
            value = getattr(value, part)
        settings[section] = result_settings(value)
    digests = {}
    for name in stage.reads:
        record = run.record(name)
        if record is None:
            raise RunError(f"{run.folder}: stage {stage.name} reads {name}, which is not done yet. `hagane resume {run.folder}` does both.")
        digests[name] = record["digest"]
    payload = {"stage": stage.name, "version": stage.version, "settings": settings, "reads": digests, **extra}
    return hashlib.blake2b(json.dumps(payload, sort_keys=True).encode(), digest_size=16).hexdigest()


def create(
    folder: Path, recipe: Recipe, text: str, machine: Machine, pinned: tuple[str, ...], *, started: float, say: Callable[[str], None], until: str | None = None
) -> Run:
    """Make a run folder, or open it with a changed recipe, for a walk up to `until`. The machine's profile is frozen with the folder's first recipe.

    What can be refused before a stage works is refused before anything is written: no folder is made, and one that is there stays as it was.
    """
    earlier = (folder / "environment.json").exists()
    if earlier:
        machine = open_environment(folder).machine
    elif folder.exists() and not _is_empty(folder):
        raise RunError(f"{folder} is not empty and not a run folder. Choose another one with --out.")
    recipe, mixture = _with_mixture(folder, recipe, earlier)
    recipe = fitted(recipe, pinned, machine)
    environment = Environment(
        format=FORMAT, hagane=importlib.metadata.version("hagane"), versions=_versions(), machine=machine, commit=_commit(), seed=recipe.seed,
        settings=recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True), pinned=pinned,
    )  # fmt: skip
    run, law = Run(folder, recipe, environment, started=started, say=say), _new_law(folder, recipe, earlier)
    if law is not None:
        run.law = law
    check(run, until)
    check_text(run)
    run.checked = True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from None
    with lock(folder):  # a second `hagane run` must change nothing of a running one
        if mixture is not None:
            write_atomic(folder / MIXTURE, mixture.model_dump_json(indent=1))
        if law is not None and law.corpus is not None:
            write_atomic(folder / LAW, law.model_dump_json())
        elif law is not None:
            (folder / LAW).unlink(missing_ok=True)
        write_atomic(folder / "recipe.toml", text)
        write_atomic(folder / "environment.json", environment.model_dump_json(indent=1))
    return run


def _is_empty(folder: Path) -> bool:
    """Whether nothing but a lock is there."""
    try:
        return all(item.name == "lock" for item in folder.iterdir())
    except OSError as error:
        raise disk_error(error, folder) from None


def _new_law(folder: Path, recipe: Recipe, earlier: bool) -> Law | None:
    """The law of the recipe's text for a new folder, or for one that is given other text; None where it stays: a plan is made with it."""
    from hagane.plan.kept import corpus_paths, find_law, read_law

    path = folder / LAW
    if earlier and (not path.exists() or read_law(path).paths == corpus_paths(recipe)):
        return None
    return find_law(recipe)


def _with_mixture(folder: Path, recipe: Recipe, earlier: bool) -> tuple[Recipe, FoundMixture | None]:
    """The recipe with the mixture that was found for its text, and what is to be written of it; a folder that was made before keeps what it was made with."""
    from hagane.plan.found import find_mixture, read_mixture, with_mixture
    from hagane.plan.kept import corpus_paths

    path = folder / MIXTURE
    if recipe.mix.rule != "found" or recipe.mix.weights:
        return recipe, None
    if earlier and path.exists() and (kept := read_mixture(path)).paths == corpus_paths(recipe) and kept.objective == recipe.mix.objective:
        return with_mixture(recipe, kept), None
    if earlier and not path.exists():
        return recipe, None
    found = find_mixture(recipe)
    return with_mixture(recipe, found), found


def _likely_shape(run: Run) -> ModelConfig:
    """A model of the recipe's pattern, before the plan has chosen its size."""
    start, pattern = starting_model(run.recipe), run.recipe.model.pattern
    return start or candidates(pattern, run.pinned_size, vocabulary_size=1024, context=run.recipe.train.context)[0]


def open_run(folder: Path, *, started: float | None = None, say: Callable[[str], None] | None = None) -> Run:
    """Open an existing run folder with its own settings."""
    environment = open_environment(folder)
    recipe = validate(environment.settings, f"{folder}/environment.json")
    return Run(folder, recipe, environment, started=started, say=say)


def walk(run: Run, *, until: str | None = None, only: str | None = None, report: bool = True) -> None:
    """Do every stage whose key changed, in order, up to `until` (or just `only`). The caller holds the run (`with run:`)."""
    if not run.checked:
        check(run, only or until)
    if only is None and _plan_is_remade(run):
        run.clock.restart()
    getting_ready = None
    if only is None and until not in ("corpus", "tokenizer") and run.record("pretrain") is None:
        from hagane.train.ahead import begin

        likely = _likely_shape(run) if run.recipe.execution.compile else None
        getting_ready = begin(likely, device=run.machine.device, dtype=run.recipe.train.dtype)
    for stage in STAGES:
        if only is not None and stage.name != only:
            continue
        if getting_ready is not None and stage.name not in ("corpus", "tokenizer"):
            getting_ready.join()  # torch's modules import each other in circles: of two threads one may see the other's half of them
        _do(run, stage)
        if stage.name == until:
            break
    if report:
        write_report(run)


def check(run: Run, until: str | None) -> None:
    """Refuse what cannot work before anything is spent on a walk up to `until`."""
    if until is not None and until not in BY_NAME:
        raise RunError(f"there is no stage {until!r}. Stages: {', '.join(BY_NAME)}.")
    check_recipe(run)
    if until in (None, "release"):
        check_release(run.recipe)


def check_text(run: Run) -> None:
    """Refuse a corpus whose files are not there, while none of it was read."""
    from hagane.corpus.stage import inputs_digest

    if run.record("corpus") is None:
        inputs_digest(run)


def check_recipe(run: Run) -> None:
    """Refuse what cannot work before anything is spent: a budget that is too small, a model that no host can hold."""
    from hagane.corpus.embedded import LANGUAGES
    from hagane.plan.held import refuse_unheld, usual_shape
    from hagane.plan.least import refuse_few_steps
    from hagane.plan.start import refuse_conflicts, starting_folder, starting_model

    if not run.recipe.corpus.sources:
        raise RunError(f"recipe {run.recipe.name} names no corpus. Give --corpus PATH, or [[corpus.sources]] in the recipe.")
    refuse_conflicts(run.recipe, run.environment.pinned)
    unknown = [language for language in run.recipe.evaluate.retrieval.languages if language not in LANGUAGES]
    if unknown:
        raise RunError(f"evaluate.retrieval.languages names {unknown[0]!r}; numbers are hidden in: {', '.join(LANGUAGES)}.")
    if run.recipe.tune.languages or run.recipe.tune.families:
        from hagane.tune.conversations import known_problems

        known_problems(run.recipe.tune)
    _ = run.sketch  # refuses a budget that is too small
    if run.record("plan") is None:
        refuse_few_steps(run.recipe, run.pinned_size, run.machine, run.law)
    refuse_unheld(run.recipe, starting_model(run.recipe) or usual_shape(run.recipe, run.pinned_size))
    start = starting_folder(run.recipe)
    if start is not None and run.record("pretrain") is None:
        from hagane.hosts.checkpoint import read_published
        from hagane.hosts.vocabulary import starting_tokenizer
        from hagane.tokenizer.bpe import pre_tokenizer_is_ours

        grown = starting_tokenizer(start)
        if run.recipe.release.gguf is True and not pre_tokenizer_is_ours(grown.tokenizer):
            raise RunError(f"release.gguf = true cannot be done: the tokenizer of {start} splits text as none that hagane knows by a name of llama.cpp's.")
        found = read_published(start)  # every tensor, now: a damaged file must not be found out after the corpus was read
        if found.left:
            run.say(f"start      {len(found.left)} tensors of {start} are not read ({found.left[0]}, ...): hagane has no place for them in a {found.host.name}")


def check_release(recipe: Recipe) -> None:
    """Refuse a run whose release could not be proven, before anything is trained."""
    if importlib.util.find_spec("transformers") is None:
        raise RunError("a release is proven with transformers, which is not installed. Run `pip install 'hagane[hf]'`, or stop earlier with --until evaluate.")
    if recipe.release.gguf is True and (missing := missing_tools()) is not None:
        raise RunError(f"release.gguf = true, but {missing}. Or set it to false.")


def _plan_is_remade(run: Run) -> bool:
    """Whether an earlier plan is about to be replaced: then a new account of the budget begins, and cached stages cost nothing."""
    if run.record("plan") is None:
        return False
    for name in ("corpus", "tokenizer", "plan"):
        record = run.record(name)
        if record is None or record["key"] != stage_key(run, BY_NAME[name], derived(run, name)):
            return True
    return False


def derived(run: Run, stage: str) -> dict[str, Any]:
    """Derived settings that belong to a stage's key: the sizes of the samples, and the identity of the text that is read."""
    if stage == "corpus":
        from hagane.corpus import removal
        from hagane.corpus.stage import derived as of_corpus
        from hagane.corpus.stage import inputs_digest

        removed = removal.load(run.folder)
        return {**of_corpus(run), "inputs": inputs_digest(run)} | ({"removed": removed.digest()} if removed else {})
    if stage == "tokenizer":
        return {"tokenizer_bytes": run.sketch.tokenizer_bytes, **starting_settings(run.recipe, "languages", "new_tokens", "replay_share")}
    if stage == "plan":
        learning = starting_settings(run.recipe, "languages", "replay_share", "learning_rate_ratio", "rewarm_share")
        weights = run.recipe.mix.weights  # without any a plan is what it was before there were weights
        return {"pinned": run.pinned_size.model_dump(exclude_none=True), **learning} | ({"weights": weights} if weights else {})
    if stage == "pretrain":
        return starting_settings(run.recipe)
    if stage == "evaluate":
        return {"items_per_cell": run.sketch.items_per_cell, **starting_settings(run.recipe, "languages")}
    if stage == "release":
        # GGUF files that were left out for want of a package are made once it is there; made ones stay where it is missing
        record = run.record(stage)
        made = record is not None and bool(record["facts"].get("gguf", {}).get("files"))
        return {"gguf": made or missing_tools() is None} if run.recipe.release.gguf == "auto" else {}
    return {}


def _do(run: Run, stage: Stage) -> None:
    start = time.monotonic()
    key = stage_key(run, stage, derived(run, stage.name))
    record = run.record(stage.name)
    if record is not None and record["key"] == key:
        run.say(f"{stage.name:<10} unchanged")
        return
    if stage.in_place:
        started = run.path(stage.name) / "key.json"
        if record is not None or (started.exists() and read_json(started)["key"] != key):
            run.supersede(stage.name)
        folder = run.path(stage.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(started, json.dumps({"key": key}))
            _finish(run, stage, folder, key, stage.load()(run, folder), start)
        except OSError as error:
            raise disk_error(error, folder) from error
    else:
        run.supersede(stage.name)
        with run.writing(stage.name) as folder:
            _finish(run, stage, folder, key, stage.load()(run, folder), start)


def _finish(run: Run, stage: Stage, folder: Path, key: str, facts: Frozen, start: float) -> None:
    seconds, dumped = time.monotonic() - start, facts.model_dump(mode="json")
    record = {
        "stage": stage.name, "key": key, "digest": result_digest(stage, folder, dumped), "seconds": round(seconds, 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "facts": dumped,
    }  # fmt: skip
    write_atomic(folder / "facts.json", json.dumps(record, indent=1, ensure_ascii=False))
    run.say(f"{stage.name:<10} {headline(stage.name, dumped)} ({duration(seconds) if seconds >= 1 else '<1s'})")


def result_digest(stage: Stage, folder: Path, facts: dict[str, Any]) -> str:
    """What later stages read of this one: its files, and its facts without timings. Of a training stage only the weights count."""
    digest = folder_digest(folder, stage.skip | {"facts.json"})
    if stage.in_place:
        return digest
    return hashlib.blake2b(f"{digest} {json.dumps(_without_seconds(facts), sort_keys=True)}".encode(), digest_size=16).hexdigest()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(item) for name, item in value.items() if name != "seconds"}
    return [_without_seconds(item) for item in value] if isinstance(value, list) else value


def remove_documents(run: Run, patterns: Sequence[str]) -> Taken:
    """Take documents out of a run's corpus, for good. What was made from them is made again by the next walk. The caller holds the run.

    The list is written first: where this is interrupted, the next walk reads the corpus again and leaves them out.
    """
    from hagane.corpus.takeout import take_out

    stage, record = BY_NAME["corpus"], run.record("corpus")
    current = record is not None and record["key"] == stage_key(run, stage, derived(run, "corpus"))
    taken = take_out(run.folder, patterns)
    if record is not None and current:  # else it would be read again in any case
        facts = taken.facts or record["facts"]
        digest = result_digest(stage, run.path("corpus"), facts)
        record |= {"key": stage_key(run, stage, derived(run, "corpus")), "digest": digest, "facts": facts}
        write_atomic(run.path("corpus") / "facts.json", json.dumps(record, indent=1, ensure_ascii=False))
    return taken


def headline(stage: str, facts: dict[str, Any]) -> str:
    """One line for people about what a stage did."""
    match stage:
        case "corpus":
            dropped = sum(reason["documents"] for reason in facts["dropped"].values())
            return f"{facts['documents_kept']:,} documents, {facts['bytes_kept'] / 1e6:.1f} MB kept; {dropped:,} dropped"
        case "tokenizer":
            return f"{max(map(int, facts['bytes_per_token'])):,} tokens trained on {facts['sample_bytes'] / 1e6:.1f} MB"
        case "plan":
            model = facts["model"]
            promise = f", at least {facts['tokens'] / 1e6:.2f}M" if facts["tokens"] < facts["expected_tokens"] else ""
            return (
                f"{facts['num_parameters'] / 1e6:.2f}M parameters ({facts['num_active_parameters'] / 1e6:.2f}M active), "
                f"width {model['width']}, {len(model['layers'])} layers, "
                f"vocabulary {facts['vocabulary_size']:,}, {facts['expected_tokens'] / 1e6:.2f}M tokens{promise}; "
                f"expect {facts['predicted']['bits_per_byte']:.2f} ({facts['predicted']['low']:.2f}-{facts['predicted']['high']:.2f}) bits per byte"
                f"{_text_ends(facts.get('unused_seconds', 0.0)) or _often(facts['languages'])}"
            )
        case "encode" | "converse":
            return ", ".join(f"{name}: {collection['tokens'] / 1e6:.2f}M tokens" for name, collection in facts["collections"].items()) or "off"
        case "pretrain" | "midtrain" | "extend":
            return f"{facts['steps']:,} steps, {facts['tokens'] / 1e6:.2f}M tokens, loss {facts['final_loss']:.3f}" if facts["steps"] else "off"
        case "tune":
            return "; ".join(f"{name}: {step['steps']:,} steps, loss {step['final_loss']:.3f}" for name, step in facts["steps"].items()) or "off"
        case "evaluate":
            values = [row["value"] for row in facts["bits_per_byte"].values()]
            modes = {
                mode: _mean([row["correct"] / row["total"] for row in facts["accuracy"] if row["mode"] == mode and row["total"]])
                for mode in ("thinking", "plain")
            }
            accuracy = ", ".join(f"{mode} {share:.0%}" for mode, share in modes.items() if share is not None)
            code = ", code among them" if any(tag.startswith("code") for tag in facts["bits_per_byte"]) else ""
            return f"{_mean(values) or float('nan'):.3f} bits per byte (mean of {len(values)} languages{code}){_forgetting(facts.get('start'))}; {accuracy}"
        case "release":
            others = f"{_form_headline(facts.get('form_logit_gap'))}{_gguf_headline(facts.get('gguf', {}))}"
            return f"{facts['host']}: transformers agrees within {facts['max_logit_gap']:.1e}{others}"
    return ""


def _text_ends(unused_seconds: float) -> str:
    """Said where text is used up before the budget."""
    return f"; then all text was read corpus.max_repeats times, and {duration(unused_seconds)} of the budget are left" if unused_seconds else ""


def _often(languages: dict[str, dict[str, float]]) -> str:
    """Said where there is so little text that reading it again teaches little."""
    read, unique = (sum(plan[name] for plan in languages.values()) for name in ("read_bytes", "bytes"))
    if not unique or read <= REPEATS.usual * unique:
        return ""
    return f"; the text is read {read / unique:.0f} times, and more of it would teach more (corpus: {unique / 1e6:.1f} MB)"


def _forgetting(start: dict[str, Any] | None) -> str:
    """Mean change by kind of language of a run that went on from a checkpoint, each with its interval."""
    means = {"known": "languages it knew", "new": "new languages"}
    parts = [f"{means[name]} {change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})" for name in means if start and (change := start[name])]
    return f"; against the start: {', '.join(parts)}" if parts else ""


def _form_headline(gap: float | None) -> str:
    """How far the released form of a model is from its own, where the number of keys adapts."""
    return "" if gap is None else f"; with a fixed number of keys {gap:.1e} from our own form"


def _gguf_headline(facts: dict[str, Any]) -> str:
    if facts.get("skipped"):
        return f"; no GGUF: {facts['skipped']}"
    parts = [
        f"within {file['max_logprob_gap']:.1e} ({file['file']}, {file['bytes'] / 1e6:.1f} MB)"
        if file["quantisation"] == "f16"
        else f"{file['kl_bits_per_token']:.1e} bits per token away ({file['file']}, {file['bytes'] / 1e6:.1f} MB)"
        for file in facts.get("files", ())
    ]
    return f"; llama.cpp {', '.join(parts)}" if parts else ""


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def write_report(run: Run) -> Path | None:
    """Render report.html. A report that cannot be made is said, not fatal: every fact it shows is in the folder."""
    from hagane.report.page import build_report

    try:
        return build_report(run.folder)
    except HaganeError as error:
        run.say(f"report: {error}")
    except Exception:
        run.say(f"report: could not be made; everything it shows is in {run.folder}. `hagane report {run.folder} --debug` shows why.")
        if os.environ.get("HAGANE_DEBUG"):
            traceback.print_exc(file=sys.stderr)
    return None


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "tokenizers", "transformers", "safetensors", "gguf", "xllamacpp")
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of a source checkout that hagane runs from, or None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
