"""Commands: parse, call one function, print for people, end with one JSON line.

Everything heavy is imported inside the command that needs it: `hagane --help` answers in under 0.3 s.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from hagane.process import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from hagane.folder import Run
    from hagane.recipe.schema import Recipe

    Page = tuple[list[str], dict[str, Any]]  # for people, and for scripts

STARTED = time.monotonic()

app = typer.Typer(
    help="Make a language model from scratch: from a folder of text and a budget to a model that other engines load.",
    epilog="Example: hagane run quickstart --budget 5min",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
recipe_app = typer.Typer(help="Look at recipes, check them, write new ones.", epilog="Example: hagane recipe list", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipe_app, name="recipe")


class _BuildWhereNothingElse(typer.core.TyperGroup):
    """`hagane corpus RUN` means `hagane corpus build RUN`."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        return super().resolve_command(context, arguments if arguments and arguments[0] in self.commands else ["build", *arguments])


corpus_app = typer.Typer(
    help="Read, clean, split and hold out the documents of a run (hagane corpus RUN), or look at what was dropped.",
    epilog="Example: hagane corpus runs/quickstart", cls=_BuildWhereNothingElse, no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(corpus_app, name="corpus")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting of the recipe; may be given again.")]
Corpus = Annotated[list[str] | None, typer.Option("--corpus", metavar="PATH", help="Text to learn from: file, folder, glob or URL; may be given again.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", metavar="B", help="What may be spent: 10min, 8h, 2kWh, 1e17FLOP, 5Mtokens, 40USD.")]


def main() -> None:
    """Entry point: errors meant for users are one sentence on stderr and exit code 2; --debug shows the traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
        os.environ["HAGANE_DEBUG"] = "1"
    try:
        app()
    except KeyboardInterrupt:
        typer.secho("interrupted; what was finished is kept. `hagane resume RUN` goes on.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        from hagane.errors import HaganeError

        if debug or not isinstance(error, HaganeError):
            raise
        typer.secho(str(error), fg="red", err=True)
        raise SystemExit(2) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hagane {version('hagane')}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")] = False) -> None:
    """What can be said before a command."""


def _say(text: str) -> None:
    typer.echo(f"{time.monotonic() - STARTED:6.1f}s  {text}", err=True)


def _last_line(values: dict[str, Any]) -> None:
    typer.echo(json.dumps(values, ensure_ascii=False))


def _prepare_process(recipe: Recipe) -> None:
    """Threads and caches that must be set before torch works; no setting here changes a result."""
    prepare()
    from hagane.cache import cache_folder
    from hagane.measure.machine import cores

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    import torch

    torch.set_num_threads(recipe.execution.threads or cores())


def _with_corpus(settings: list[str], recipe: Recipe, corpus: list[str] | None, budget: str | None) -> tuple[Recipe, list[str]]:
    """Apply --corpus and --budget to a loaded recipe."""
    from hagane.corpus.stores import is_url
    from hagane.errors import RecipeError
    from hagane.recipe.load import one_dial, validate

    values = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values["name"] = recipe.name
    if corpus:
        embedded = [source for source in values.get("corpus", {}).get("sources", []) if all(path.startswith("embedded:") for path in source["path"])]
        paths = [path if is_url(path) else str(Path(path).resolve()) for path in corpus]
        values.setdefault("corpus", {})["sources"] = [{"name": "corpus", "path": paths}, *embedded]
    pinned = [setting.partition("=")[0].strip() for setting in settings]
    if budget and "budget" in pinned and values.get("budget") != budget:
        raise RecipeError(f"--budget {budget} and --set budget={values['budget']} are two budgets; give one of them.")
    if budget:
        values = {**(values if "train.tokens" in pinned else one_dial(values, {"budget": budget})), "budget": budget}
    return validate(values, f"recipe {recipe.name}"), pinned


@app.command(epilog="Example: hagane run nordic --corpus texts/ --budget 20min")
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a .toml file.")],
    corpus: Corpus = None,
    budget: BudgetOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder; runs/NAME where not given.")] = None,
    settings: Settings = None,
    steer: Annotated[bool, typer.Option("--steer/--no-steer", help="Correct the number of steps so that the run ends on time.")] = True,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")] = None,
    start: Annotated[Path | None, typer.Option("--from", metavar="HF_FOLDER", help="Go on from a published checkpoint: its shape, weights, tokenizer.")] = None,
) -> None:
    """Do everything: from text to a released model. Going on with an existing folder skips what has not changed."""
    from hagane.recipe.load import load_recipe

    settings = [*(settings or [])]
    loaded, text = load_recipe(recipe, settings)
    if not steer:
        loaded = loaded.model_copy(update={"execution": loaded.execution.model_copy(update={"steer": False})})
    loaded, pinned = _with_corpus(settings, loaded, corpus, budget)
    if start is not None or loaded.start.from_ is not None:
        place = str(Path(start or loaded.start.from_ or "").resolve())  # a run may be resumed from another folder
        loaded = loaded.model_copy(update={"start": loaded.start.model_copy(update={"from_": place})})
    _prepare_process(loaded)
    from hagane.measure.machine import profile
    from hagane.run import create

    folder = out or Path("runs") / loaded.name
    machine = profile(loaded.execution.device, loaded.execution.threads, say=_say)
    with create(folder, loaded, text, machine, tuple(sorted(pinned)), started=STARTED, say=_say, until=until) as opened:
        _walk(opened, until=until)


@app.command(epilog="Example: hagane resume runs/nordic")
def resume(folder: RunFolder) -> None:
    """Go on with a run that was stopped or killed, bit for bit."""
    with _open(folder) as opened:
        _walk(opened)


def _open(folder: Path) -> Run:
    from hagane.run import open_run

    opened = open_run(folder, started=STARTED, say=_say)
    _prepare_process(opened.recipe)
    return opened


def _walk(opened: Run, *, until: str | None = None, only: str | None = None) -> None:
    from hagane.recipe.types import duration
    from hagane.run import walk

    walk(opened, until=until, only=only)
    spent, budget = opened.clock.spent(), opened.budget
    _say(
        f"done in {duration(spent)}"
        + (f" of {budget}" if budget else "")
        + f". Report: {opened.folder / 'report.html'}. Talk to it: hagane chat {opened.folder}"
    )
    _last_line({"run": str(opened.folder), "budget": opened.recipe.budget, "seconds": round(spent, 1), "report": str(opened.folder / "report.html")})


@app.command(epilog="Example: hagane status runs/nordic")
def status(folder: RunFolder) -> None:
    """Say which stages are done, what is running and what comes next."""
    from hagane.status import status_of

    lines, facts = status_of(folder)
    for line in lines:
        typer.echo(line)
    _last_line(facts)


@app.command(epilog="Example: hagane chat runs/quickstart --prompt 'What is 1234 + 987?'")
def chat(
    folder: RunFolder,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Answer this and exit.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Start without thinking; /think and /plain switch.")] = False,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    drafts: Annotated[bool, typer.Option("--drafts", help="Decode speculatively: the same greedy text, with the model's own drafts.")] = False,
) -> None:
    """Talk to a run's model in the terminal."""
    from hagane.serve.chat import chat as start

    start(folder, prompt=prompt, thinking=not plain, temperature=temperature, seed=seed, drafts=drafts)


@app.command(epilog="Example: hagane report runs/nordic")
def report(folder: RunFolder) -> None:
    """Render report.html again from the facts of the run."""
    from hagane.folder import open_environment
    from hagane.report.page import build_report

    open_environment(folder)
    _last_line({"report": str(build_report(folder))})


@app.command(epilog="Example: hagane plan nordic --corpus texts/ --budget 2h")
def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a .toml file; with --claim those of a claim.")],
    corpus: Corpus = None,
    budget: BudgetOption = None,
    settings: Settings = None,
    machine: Annotated[str | None, typer.Option("--machine", metavar="M", help="Another machine than this one, from the table: 64xH200, 8xA100.")] = None,
    serve_tokens: Annotated[str | None, typer.Option("--serve-tokens", metavar="N", help="The budget pays for serving N tokens, too: 5e9, 1T.")] = None,
    claim: Annotated[bool, typer.Option("--claim", help="Judge the published facts of a model instead: possible, at the edge or impossible.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the plan's numbers, reasons and curve: plan.json.")] = None,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Also write one page for those who decide: plan.html.")] = None,
) -> None:
    """Say what a budget would buy on this machine, from the kept profile, or on one of the table, before anything is read or trained."""
    if claim:
        _judge(recipe, as_json, page, corpus, budget, settings, machine, serve_tokens)
        return
    from hagane.plan.serve import parse_tokens
    from hagane.recipe.load import load_recipe

    settings = [*(settings or [])]
    loaded, _ = load_recipe(recipe, settings)
    loaded, pinned = _with_corpus(settings, loaded, corpus, budget)
    served = parse_tokens(serve_tokens) if serve_tokens else None
    if machine is None and loaded.budget is None and loaded.train.tokens is not None:
        machine = loaded.published.machine
    if machine is not None:
        from hagane.plan.cluster import plan_on

        lines, facts = plan_on(loaded, machine, served or 0.0)
    else:
        from hagane.preview import preview

        lines, facts = preview(loaded, tuple(pinned), served)
    for line in lines:
        typer.echo(line)

    def shown() -> str:
        from hagane.report.plan_page import plan_page

        return plan_page(facts)

    _write_plan(facts, as_json, page, shown)
    _last_line(facts)


def _write_plan(facts: dict[str, Any], as_json: Path | None, page: Path | None, shown: Callable[[], str]) -> None:
    """Write the facts of a plan, and the page that shows them, where the command line says so."""
    from hagane.folder import disk_error, write_atomic

    files = {}
    if as_json is not None:
        files[as_json] = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    if page is not None:
        files[page] = shown()
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text)
        except OSError as error:
            raise disk_error(error, path) from error
        _say(f"written: {path}")


@app.command(epilog="Example: hagane ladder nordic --corpus texts/ --budget 30min")
def ladder(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a .toml file.")],
    corpus: Corpus = None,
    budget: BudgetOption = None,
    target: Annotated[str | None, typer.Option("--target", metavar="B", help="The budget that the law is for; 8 times --budget where not given.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the small runs are kept; runs/NAME-ladder where not given.")] = None,
    settings: Settings = None,
) -> None:
    """Train small models on your own text and fit its loss law, which plan and run then use. After a kill, the same command goes on."""

    def climbed(run: Run, seconds: float | None) -> Page:
        from hagane.measure.ladder import climb
        from hagane.plan.kept import law_page

        return law_page(climb(run, seconds))

    _small_runs("ladder", climbed, recipe, corpus, budget, target, out, settings or [])


@app.command(epilog="Example: hagane mix nordic --corpus texts/ --budget 30min")
def mix(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a .toml file.")],
    corpus: Corpus = None,
    budget: BudgetOption = None,
    target: Annotated[str | None, typer.Option("--target", metavar="B", help="The budget that the mixture is for; 8 times --budget where not given.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the small runs are kept; runs/NAME-mix where not given.")] = None,
    settings: Settings = None,
) -> None:
    """Find how much of each language to read by training small models on many mixtures. After a kill, the same command goes on."""

    def searched(run: Run, seconds: float | None) -> Page:
        from hagane.measure.mix import find
        from hagane.plan.found import mixture_page

        return mixture_page(find(run, seconds))

    _small_runs("mix", searched, recipe, corpus, budget, target, out, settings or [], ["mix.rule=unimax"])


def _small_runs(
    name: str,
    train: Callable[[Run, float | None], Page],
    recipe: str,
    corpus: list[str] | None,
    budget: str | None,
    target: str | None,
    out: Path | None,
    settings: list[str],
    fixed: list[str] | None = None,
) -> None:
    """Open the folder `runs/RECIPE-NAME` of a command that trains many small models, and print what they found. `fixed`: settings of the command's own."""
    from hagane.recipe.load import load_recipe

    loaded, text = load_recipe(recipe, [*settings, *(fixed or [])])
    loaded, pinned = _with_corpus(settings, loaded, corpus, budget)
    _prepare_process(loaded)
    from hagane.folder import pinned_only
    from hagane.measure.machine import profile
    from hagane.measure.small_runs import refuse_unbounded
    from hagane.plan.sketch import target_seconds
    from hagane.recipe.types import Budget
    from hagane.run import create

    machine = profile(loaded.execution.device, loaded.execution.threads, say=_say)
    refuse_unbounded(loaded, machine, name)
    seconds = target_seconds(loaded, pinned_only(loaded, pinned), machine, Budget.parse(target)) if target else None
    folder = out or Path("runs") / f"{loaded.name}-{name}"
    with create(folder, loaded, text, machine, tuple(sorted(pinned)), started=STARTED, say=_say, until="tokenizer") as opened:
        lines, facts = train(opened, seconds)
        for line in lines:
            typer.echo(line)
        _last_line({"run": str(folder), "seconds": round(opened.clock.spent(), 1), **facts})


def _judge(name: str, as_json: Path | None, page: Path | None, *others: object) -> None:
    """Print the verdict on a claim, and write it where the command line says so."""
    from hagane.errors import RecipeError
    from hagane.plan.claim import load_claim
    from hagane.plan.claim_page import verdict_facts, verdict_lines
    from hagane.plan.judge import judge

    if any(others):
        raise RecipeError("--claim judges published facts as they are; leave out --corpus, --budget, --set, --machine and --serve-tokens.")
    verdict = judge(load_claim(name))
    for line in verdict_lines(verdict):
        typer.echo(line)
    facts = verdict_facts(verdict)

    def shown() -> str:
        from hagane.report.verdict_page import verdict_page

        return verdict_page(verdict)

    _write_plan(facts, as_json, page, shown)
    _last_line(facts)


@app.command(epilog="Example: hagane card runs/quickstart")
def card(
    folder: RunFolder,
    country: Annotated[str | None, typer.Option("--country", help="Where it was trained; the recipe's release.country where not given.")] = None,
    toml: Annotated[Path | None, typer.Option("--toml", metavar="FILE", help="Also write the facts as a claim, for `hagane plan FILE --claim`.")] = None,
) -> None:
    """Say of a trained model what others publish: parameters, hardware, training time, country, year, tokens, utilisation, energy."""
    from hagane.folder import write_atomic
    from hagane.plan.claim_page import claim_toml, fact_lines, note_lines
    from hagane.report.claim import claim_of_run

    claim = claim_of_run(folder, country)
    for line in [*fact_lines(claim), *note_lines(claim)]:
        typer.echo(line)
    if toml is not None:
        write_atomic(toml, claim_toml(claim))
        _say(f"written: {toml}. Judge it: hagane plan {toml} --claim")
    _last_line(claim.model_dump(mode="json"))


@app.command(epilog="Example: hagane measure --device cpu")
def measure(
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1)] = None,
) -> None:
    """Measure this machine again: matrix rate, bandwidth and a training step. Steps measured before are forgotten."""
    from hagane.measure.stage import time_usual
    from hagane.recipe.load import load_recipe

    recipe, _ = load_recipe("quickstart", [f"execution.device={device}", *([f"execution.threads={threads}"] if threads else [])])
    _prepare_process(recipe)
    machine = time_usual(recipe, _say)
    typer.echo(
        f"{machine.name}: {machine.matmul_flops / 1e9:,.0f} GFLOP/s bf16, {machine.bandwidth / 1e9:.1f} GB/s, {machine.power_watts:.0f} W "
        f"({machine.power_source}); a step has {machine.overhead:.2g} times the usual overhead"
    )
    _last_line(machine.model_dump(mode="json"))


def _stage_command(name: str, text: str) -> None:
    def command(folder: RunFolder) -> None:
        with _open(folder) as opened:
            _walk(opened, only=name)

    command.__doc__ = text
    place, own = (corpus_app, "build") if name == "corpus" else (app, name)
    place.command(own, epilog=f"Example: hagane {name}{' build' if name == 'corpus' else ''} runs/quickstart")(command)


for _name, _text in {
    "corpus": "Read, clean, split and hold out the documents of a run.",
    "tokenizer": "Train the largest candidate vocabulary and measure its prefixes.",
    "encode": "Cut the vocabulary and write the shards.",
    "pretrain": "Train on the text of the corpus.",
    "midtrain": "Train on with the second mixture, if the recipe has one.",
    "extend": "Train on with interpolated positions and longer rows, if the recipe asks for it.",
    "converse": "Make the conversations that tuning learns from.",
    "tune": "Tune to answer, with and without thinking.",
    "evaluate": "Measure bits per byte and accuracy.",
    "release": "Write the Hugging Face folder and prove that transformers agrees.",
}.items():
    _stage_command(_name, _text)


@corpus_app.command("show", epilog="Example: hagane corpus show runs/quickstart")
def corpus_show(
    folder: RunFolder,
    dropped: Annotated[str | None, typer.Option("--dropped", metavar="REASON", help="All examples of this reason; a few of each where not given.")] = None,
) -> None:
    """What was left out of a run's corpus and why, with documents to look at."""
    from hagane.corpus.reasons import show
    from hagane.folder import open_environment

    open_environment(folder)
    lines, facts = show(folder / "corpus", dropped)
    for line in lines:
        typer.echo(line)
    _last_line(facts)


@corpus_app.command("remove", epilog="Example: hagane corpus remove runs/quickstart --document 'books-17' --document 'news/2019/*'")
def corpus_remove(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    document: Annotated[list[str], typer.Option("--document", metavar="ID", help="Id of a document, or a glob; may be given again.")],
) -> None:
    """Take documents out of the corpus of runs, for good, and say which models were trained on them."""
    from hagane.folder import open_environment
    from hagane.run import open_run, remove_documents

    for folder in folders:  # before anything is changed
        open_environment(folder)
    trained: dict[str, list[str]] = {}
    count = 0
    for folder in folders:
        with open_run(folder, say=_say) as opened:
            taken = remove_documents(opened, document)
        count += len(taken.documents)
        typer.echo(f"{folder}: {len(taken.documents):,} documents taken out; on its list, they stay out")
        for name in taken.documents[:20]:
            typer.echo(f"  {name}")
        if taken.trained:
            trained[str(folder)] = taken.trained
            typer.echo(f"  trained on them: {', '.join(taken.trained)}. `hagane resume {folder}` makes again what depends on them.")
    _last_line({"documents": count, "trained": trained})


@corpus_app.command("rebuild", epilog="Example: hagane corpus rebuild runs/quickstart --out rebuilt")
def corpus_rebuild(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest.json with its files.jsonl beside it, or the run they are from.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that is not there yet, for the corpus to be made in.")],
    moved: Annotated[list[str] | None, typer.Option("--moved", metavar="OLD=NEW", help="Where texts are now that were under OLD; may be given again.")] = None,
) -> None:
    """Make a corpus again from its manifest alone, and say whether it is the same to the byte; exit code 1 where it is not."""
    from hagane.corpus.pool import ConsoleProgress
    from hagane.corpus.rebuild import rebuild
    from hagane.errors import RecipeError

    pairs = [one.partition("=") for one in moved or []]
    if odd := next((old for old, sign, new in pairs if not (old and sign and new)), None):
        raise RecipeError(f"--moved {odd} is not of the form OLD=NEW.")
    again = rebuild(manifest, out, {old: new for old, _, new in pairs}, progress=ConsoleProgress())
    for line in again.lines():
        typer.echo(line)
    _last_line({"out": str(out), "same": again.same, **dataclasses.asdict(again)})
    if not again.same:
        raise typer.Exit(1)


@recipe_app.command("list", epilog="Example: hagane recipe list")
def recipe_list() -> None:
    """The shipped recipes."""
    from hagane.recipe.load import load_recipe, shipped_recipes

    rows = {name: load_recipe(name)[0].description for name in shipped_recipes()}
    for name, text in rows.items():
        typer.echo(f"{name:<18} {text}")
    _last_line({"recipes": list(rows)})


@recipe_app.command("show", epilog="Example: hagane recipe show quickstart --budget 5min")
def recipe_show(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, a .toml file or a run folder.")],
    budget: BudgetOption = None,
    settings: Settings = None,
) -> None:
    """The resolved recipe: every setting, and for each derived value its reason."""
    from hagane.status import show_recipe

    lines, facts = show_recipe(name, budget, [*(settings or [])])
    for line in lines:
        typer.echo(line)
    _last_line(facts)


@recipe_app.command("check", epilog="Example: hagane recipe check mine.toml")
def recipe_check(file: Annotated[str, typer.Argument(metavar="FILE")], settings: Settings = None) -> None:
    """Check a recipe: unknown settings, contradictions, paths that do not exist, a model that no host can hold."""
    from hagane.status import check_recipe_file

    for line in (lines := check_recipe_file(file, [*(settings or [])])):
        typer.echo(line)
    _last_line({"recipe": file, "ok": True, "notes": lines})


@recipe_app.command("new", epilog="Example: hagane recipe new mine.toml")
def recipe_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("recipe.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Take the default answer to every question.")] = False,
) -> None:
    """Ask a few questions and write a commented recipe."""
    from hagane.recipe.new import write_recipe

    ask = (lambda question, default: default) if yes else (lambda question, default: typer.prompt(question, default=default, err=True))
    write_recipe(file, ask)
    _last_line({"recipe": str(file)})
