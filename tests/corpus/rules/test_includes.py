"""An included name is read from the file beside the page, and from nowhere else."""

from hagane.corpus.documents import read_documents


def texts(corpus, facts):
    return {row["id"]: row["text"] for name in facts.shards for split in ("train", "held_out") for row in read_documents(corpus, split, name)}


def test_names_of_included_files_stand_in_the_text(build, tmp_path):
    source, pages = tmp_path / "in" / "sv", tmp_path / "in" / "sv" / "pages"
    (pages / "includes").mkdir(parents=True)
    (tmp_path / "in" / "secret.md").write_text("Outside")
    (source / "name.md").write_text("---\nms.service: x\n---\nBusiness Central\n")
    (pages / "includes" / "long.md").write_text("En rad.\n\nEn rad till.\n")
    lines = [f"Med [!INCLUDE [{name}]({path})] kan du arbeta." for name, path in (
        ("prod_short", "../name.md"), ("long", "includes/long.md"), ("gone", "gone.md"), ("secret", "../../secret.md"),
    )]  # fmt: skip
    (pages / "a.md").write_text("\n\n".join(lines))
    facts = build(source)
    found = texts(tmp_path / "corpus", facts)["pages/a.md"].split("\n\n")
    assert found == [f"Med {name} kan du arbeta." for name in ("Business Central", "long", "gone", "secret")]
