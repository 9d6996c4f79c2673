"""Is what a run learns from cleaned text at least as good as what it learns from the text as it was found, after the same wall-clock?

    python benchmarks/cleaning.py                                                            # a few minutes: the Python library's own text
    python benchmarks/cleaning.py --full --corpus DIR --out OUT                              # held-out documents of the same folder
    python benchmarks/cleaning.py --full --corpus PAGES --test DIR --seconds 120 --out OUT   # trained on raw pages, tested on text of the same sources

Both arms are `hagane run RECIPE` on the same documents for the same time, corpus included: once as it ships, and once `as found`, without its rules,
masking, repair of encodings and near-duplicates. Only copies of the tested text are taken out of both (`corpus.exclude`). The tested documents are
chosen by the hash of their text among the languages that are trained on and are scored whole and untouched: no rule has mended them. So some hold
what rules take away, macros of a wiki or second copies, which only the other arm has learned; documents that no rule would mend are counted apart.
Ratios are of bits per byte, cleaned over as found; intervals are 95 %, by bootstrap over documents and seeds together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from common import finish
from equal_time import Bench, report, source_digest
from hagane.corpus.blocks import Trace
from hagane.corpus.inputs import list_inputs
from hagane.corpus.readers import read
from hagane.corpus.records import Record
from hagane.corpus.rules.contents import without_contents
from hagane.corpus.rules.dumps import without_dumps
from hagane.corpus.rules.markup import mend
from hagane.corpus.rules.twice import without_copies
from hagane.recipe.schema import RuleSettings, Source
from peers.contestants import Hagane, Result
from peers.ratios import OVERALL, Ratio, compare
from peers.text import Text, choose_test

AS_FOUND = "as found"
RULES = tuple(name for name, field in RuleSettings.model_fields.items() if field.annotation is bool)
OFF = (*(f"corpus.rules.{name}=false" for name in RULES), "corpus.repair_encoding=false", "corpus.personal_data=keep", "corpus.near_duplicates=0")
HELD_OUT = 20  # one document in so many is never trained on, where the tested text is of the same folder


def records(paths: Iterable[str]) -> Iterable[tuple[Record, str]]:
    """Every document with the language that it or its folder is labelled with."""
    for item in list_inputs([Source(name="text", path=tuple(paths))]).inputs:
        for record in read(item, Trace()):
            if isinstance(record, Record) and (language := record.language or item.language) and record.text.strip():
                yield record, language


def number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def prepare(options: argparse.Namespace, out: Path) -> Text:
    """`train/LANGUAGE.jsonl`, as found, and `test.jsonl`; the documents to train on in the order of their hashes, up to so many bytes of a language."""
    folder = out / "text"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "train").mkdir(parents=True)
    train: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    tested: dict[str, list[str]] = defaultdict(list)
    for record, language in records(options.corpus):
        value = number(record.text)
        if options.test or value % HELD_OUT:
            train[language].append((value, record))
        else:
            tested[language].append(record.text)
    for record, language in records(options.test) if options.test else ():
        if language in train:
            tested[language].append(record.text)
    sizes = {language: _write_train(folder / "train" / f"{language}.jsonl", language, own, options.train_bytes) for language, own in sorted(train.items())}
    test = {language: choose_test(texts, options.test_bytes) for language, texts in sorted(tested.items())}
    if missing := sorted(set(sizes) - set(test)):
        raise SystemExit(f"there is no text to test {', '.join(missing)} on; give --test a folder that has some.")
    lines = [json.dumps({"lang": language, "text": text}, ensure_ascii=False) for language, texts in test.items() for text in texts]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    digest = hashlib.blake2b(b"".join(path.read_bytes() for path in [folder / "test.jsonl", *sorted((folder / "train").iterdir())]), digest_size=8)
    return Text(folder, digest.hexdigest(), {language: [len(text.encode()) for text in texts] for language, texts in test.items()}, sizes)


def _write_train(path: Path, language: str, own: list[tuple[int, Record]], most: int) -> int:
    size = 0
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for _, record in sorted(own, key=lambda item: item[0]):
            if size >= most:
                break
            file.write(json.dumps({"id": record.id, "text": record.text, "lang": language, "source": record.source}, ensure_ascii=False) + "\n")
            size += len(record.text.encode("utf-8", "replace"))
    return size


def without_residue(text: Text) -> dict[str, list[bool]]:
    """Language -> for every tested document whether no rule for single documents would mend it."""
    found: dict[str, list[bool]] = defaultdict(list)
    for line in text.test.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        own = document["text"]
        found[document["lang"]].append(all(rule(own) is own for rule in (mend, without_contents, without_dumps, without_copies)))
    return found


def apart(bench: Bench, results: dict[str, list[Result]], clean: dict[str, list[bool]], which: bool) -> Ratio:
    """Cleaned over as found on the documents without residue, or on the others; mean over the languages that have some."""
    chosen = {language: [number for number, own in enumerate(marks) if own is which] for language, marks in clean.items()}
    chosen = {language: numbers for language, numbers in chosen.items() if numbers}
    sizes = {language: [bench.text.test_bytes[language][number] for number in numbers] for language, numbers in chosen.items()}
    bits = {
        arm: [{language: [scores[language][number] for number in numbers] for language, numbers in chosen.items()} for scores in map(bench.bits, own)]
        for arm, own in results.items()
    }
    return compare(bits["hagane"], {AS_FOUND: bits[AS_FOUND]}, sizes)[OVERALL]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="120 s, three seeds")
    parser.add_argument("--quick", action="store_true", help="the default: 60 s, one seed")
    parser.add_argument("--corpus", nargs="+", default=["embedded:python"], help="files or folders to train on")
    parser.add_argument("--test", nargs="*", default=[], help="files or folders to test on; else one in twenty documents of --corpus")
    parser.add_argument("--out", type=Path, help="results and work; the same command goes on from there")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--recipe", default="nordic")
    parser.add_argument("--train-bytes", type=int, default=4_000_000, help="of every language")
    parser.add_argument("--test-bytes", type=int, default=60_000, help="of every language")
    options = parser.parse_args()
    options.seconds = options.seconds or (120.0 if options.full else 60.0)
    options.seeds = options.seeds or (3 if options.full else 1)
    return options


def main() -> None:
    options = arguments()
    values: dict[str, float] = {}
    spread: dict[str, float] = {}
    goals: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="hagane-cleaning-") as name:
        out = options.out or Path(name)
        text = prepare(options, out)
        print(f"{sum(text.train_bytes.values()) / 1e6:.1f} MB in {', '.join(text.train_bytes)}; ", end="")
        print(f"{sum(map(len, text.test_bytes.values()))} documents of {sum(map(sum, text.test_bytes.values())):,} bytes to test on", flush=True)
        without_copies = f"corpus.exclude={json.dumps([str(text.test.resolve())])}"
        sets = {"hagane": (without_copies,), AS_FOUND: (without_copies, *OFF)}
        arms = {arm: Hagane(text, out, options.recipe, own, warm=True) for arm, own in sets.items()}
        identity = {arm: source_digest(options.recipe, [item for item in own if item != without_copies]) for arm, own in sets.items()}
        bench = Bench(arms, text, out, identity, expected=2 * options.seeds * (options.seconds + 20))
        bench.open()
        results = {arm: [] for arm in arms}
        for seed in range(options.seeds):
            for arm in arms:
                results[arm].append(bench.run(arm, {}, options.seconds, seed))
        report(bench, options.seconds, results, (values, spread, goals))
        clean = without_residue(text)
    for name, which in (("documents without residue", True), ("documents with residue", False)):
        ratio = apart(bench, results, clean, which)
        print(f"{name}: {ratio.ours:.4f} against {ratio.theirs:.4f}, {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
        values[name], spread[name] = ratio.value, ratio.high - ratio.low
    goals = {"documents without residue": "<= 1.0"}
    finish("cleaning", "full" if options.full else "quick", values, spread, goals)


if __name__ == "__main__":
    main()
