"""`data_card.md`: what the manifest says, for people, in the order in which the Open Source AI Definition 1.0 asks for data information.

It asks for the provenance of the data, its scope and characteristics, how it was obtained and selected, labelling, processing and filtering
(https://opensource.org/ai/open-source-ai-definition, "Data Information").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hagane.corpus.reasons import REASONS, in_words
from hagane.folder import read_json, write_atomic

NAME = "data_card.md"


def write_card(folder: Path) -> None:
    """Write the card of a corpus from its manifest."""
    manifest = read_json(folder / "manifest.json")
    parts = [
        "# Data card", "Every number here is from `manifest.json`, with which the corpus can be made again from the files of `files.jsonl`.",
        *_provenance(manifest), *_scope(manifest), *_processing(manifest), *_attribution(manifest),
    ]  # fmt: skip
    write_atomic(folder / NAME, "\n\n".join(parts) + "\n")


def _provenance(manifest: dict[str, Any]) -> list[str]:
    rows = [
        (source["name"], ", ".join(source["path"]), f"{source.get('files', 0):,}", f"{source.get('digests', 0):,}", ", ".join(source["licenses"]))
        for source in manifest["sources"]
    ]
    return ["## Provenance, and how it was obtained", _table(("Source", "Read from", "Files", "With digest", "Licences"), rows)]


def _scope(manifest: dict[str, Any]) -> list[str]:
    rows = []
    for row in manifest["accounts"]:
        dropped = sum(entry["documents"] for entry in row["dropped"].values())
        counts = (row["in"]["documents"], row["kept"]["documents"], row["held_out_documents"], row["repeated"]["documents"], dropped)
        rows.append((row["source"], row["license"], row["language"], *(f"{count:,}" for count in counts), f"{row['kept']['bytes']:,}"))
    head = ("Source", "Licence", "Language", "In", "Kept", "Of these held out", "Repeated", "Dropped", "Bytes kept")
    note = "Whole documents, as they were when they were read; repeated: there before, or nearly. Bytes are counted before boilerplate was cut out."
    labels = [(source, ", ".join(f"{count:,} by {who}" for who, count in own.items())) for source, own in manifest["labels"].items()]
    parts = ["## Scope", note, _table(head, rows), "## Labelling", _table(("Source", "Language of documents said"), labels)]
    if removed := manifest["facts"]["dropped"].get("removed"):
        listed = len(manifest["removed"]["patterns"])
        parts.insert(3, f"{removed['documents']:,} documents were taken out on request; {listed} ids and patterns are on the list.")
    return parts


def _processing(manifest: dict[str, Any]) -> list[str]:
    facts, settings = manifest["facts"], manifest["settings"]
    policy = settings["licenses"]
    stated = [f"{name}: {', '.join(policy[name])}" for name in ("allow", "deny") if policy[name]] or ["every stated licence"]
    parts = ["## Selection", f"Licences: {'; '.join(stated)}; documents without one: {policy['unknown']}."]
    if quality := facts.get("quality"):
        often = ", ".join(f"{value:g}" for value in quality["repeats"])
        parts.append(f"Quality: text most like {', '.join(quality['good'])} is read more often; buckets of equal text, the best first: {often}.")
        parts.append(_table(("Language", "Divided by quality"), [(language, in_words(own)) for language, own in quality["languages"].items()]))
    if settings["sample_bytes"]:
        stretches = f"of {facts['excerpts']:,} long documents a stretch" if facts["excerpts"] else "of whole documents"
        parts.append(f"A sample of about {settings['sample_bytes']:,} bytes, balanced over languages, {stretches} (seed {manifest['seed']}).")
    rows = [(reason, REASONS.get(reason, ""), f"{count['documents']:,}", f"{count['bytes']:,}") for reason, count in facts["dropped"].items()]
    parts += ["## Processing and filtering", _table(("Dropped for", "Meaning", "Documents", "Bytes"), rows)]
    parts.append(_table(("Mended", "Documents"), [(rule, f"{count:,}") for rule, count in facts["repaired"].items()]))
    masked = [(source, kind, f"{count:,}") for source, own in facts["masked"].items() for kind, count in own.items()]
    parts.append(f"Personal data: {settings['personal_data']}.")
    if masked:
        parts.append(_table(("Source", "Masked", "Places"), masked))
    if facts["rules"]:
        fences = [(language, own["taken_from"], f"{own['documents']:,}") for language, own in facts["rules"]["languages"].items()]
        parts += ["Where a language's unusual text begins is measured on its own documents; the values are in the manifest."]
        parts.append(_table(("Language", "Measured on", "Documents"), fences))
    return parts


def _attribution(manifest: dict[str, Any]) -> list[str]:
    rows = [(row["license"], row["origin"], f"{row['documents']:,}") for row in manifest["attribution"]]
    return ["## Attribution", _table(("Licence", "Origin", "Documents"), rows)] if rows else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)]) if rows else "None."
