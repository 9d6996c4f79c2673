"""How each language asks: templates, names and things, one module of plain data per language."""

from __future__ import annotations

from hagane.corpus.embedded.phrases import de, en, fi, ja, ko, nb, sv, zh
from hagane.corpus.embedded.phrases import is_ as icelandic
from hagane.corpus.embedded.phrases.form import Phrases

PHRASES: dict[str, Phrases] = {
    "en": en.PHRASES,
    "ja": ja.PHRASES,
    "ko": ko.PHRASES,
    "zh": zh.PHRASES,
    "sv": sv.PHRASES,
    "nb": nb.PHRASES,
    "is": icelandic.PHRASES,
    "fi": fi.PHRASES,
    "de": de.PHRASES,
}

__all__ = ["PHRASES", "Phrases"]
