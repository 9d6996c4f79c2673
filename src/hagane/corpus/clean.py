"""What a document must be to be kept, its identity, and the cutting of long ones. Text that is kept is not changed, but for two things.

Line ends become `\\n`, so that the same text from two systems is the same document; and characters that came from reading one encoding as
another are put right where it is certain what they were.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache
from typing import Any

from hagane.tokenizer.special import SPECIAL_TOKENS

# Searched in UTF-8, where one pass over bytes is many times faster than one of a pattern over characters.
_CONTROLS = bytes([*range(9), 0x0B, *range(0x0E, 0x20), 0x7F])  # C0 but tab, line feed, form feed and carriage return; DEL
_C1 = re.compile(rb"\xc2[\x80-\x9f]")  # U+0080 to U+009F: the mark of Latin-1 read as UTF-8
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
_REPLACEMENT = "\ufffd".encode()
# What UTF-8 or Windows-1252 looks like when it was read as Latin-1 or Windows-1252; only such texts are looked at closely.
_MISREAD = re.compile("[\x80-\x9f]|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")
_MISREAD_BYTES = ("\u00c3".encode() + b"\xc2", "\u00c2".encode() + b"\xc2", "\u00e2\u20ac".encode())
_SPECIAL = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
ENDS = ("\n\n", "\n", "。", ". ", " ")  # best place to cut first

HASH_BYTES = 16  # 128 bits: two of 10^12 different documents share a hash with probability 10^-15


def normalise_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


@cache
def _only_encodings() -> Any:
    """ftfy's repairs of encodings, and none of its others: quotes, ligatures, widths and HTML are the author's business."""
    import ftfy

    return ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, replace_lossy_sequences=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False, normalization=None,
    )  # fmt: skip


def repair_encoding(text: str, data: bytes | None = None) -> str:
    """Misread characters put right (`gewÃ¶hnlich`, `Abelbálkka\\x9aupmi`); the same object where there are none.

    By ftfy (Speer 2019), which leaves alone what might be meant. `data` is the text in UTF-8 where that is known, here and below.
    """
    if text.isascii():
        return text
    data = text.encode("utf-8", "surrogatepass") if data is None else data
    if not (any(mark in data for mark in _MISREAD_BYTES) or _C1.search(data)):
        return text
    import ftfy

    lines = text.split("\n")  # ftfy looks at one line at a time, too
    fixed = "\n".join(ftfy.fix_text(line, _only_encodings()) if _MISREAD.search(line) else line for line in lines)
    return text if fixed == text else fixed


def _num_damaged(data: bytes) -> int:
    """Control and replacement characters."""
    c1 = len(_C1.findall(data)) if b"\xc2" in data else 0
    return len(data) - len(data.translate(None, _CONTROLS)) + data.count(_REPLACEMENT) + c1


def drop_reason(text: str, min_characters: int, max_damage: float, data: bytes | None = None) -> str | None:
    """Why a document is not kept: `empty`, `too_short`, `encoding_damage`, `special_token`; None where it is kept."""
    length = len(text.strip())
    if length == 0:
        return "empty"
    data = text.encode("utf-8", "surrogatepass") if data is None else data
    if not text.isascii() and _SURROGATE.search(data):  # JSON may hold half of a surrogate pair; UTF-8 cannot
        return "encoding_damage"
    if _num_damaged(data) > max_damage * len(text):
        return "encoding_damage"
    if length < min_characters:
        return "too_short"
    if "<" in text and _SPECIAL.search(text):
        return "special_token"
    return None


def document_hash(text: str, data: bytes | None = None) -> bytes:
    """Identity of a document, 16 bytes: blake2b of its stripped text in Unicode normal form C."""
    stripped = text.strip()
    text, data = stripped, data if len(stripped) == len(text) else None
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text, data = unicodedata.normalize("NFC", text), None
    return hashlib.blake2b(text.encode() if data is None else data, digest_size=HASH_BYTES).digest()


def split_long(text: str, max_characters: int) -> list[str]:
    """Cut a text into pieces of at most `max_characters`, at a paragraph end where there is one, else at the best smaller end.

    The pieces joined are the text: nothing is lost.
    """
    pieces, start = [], 0
    while len(text) - start > max_characters:
        end = start + max_characters
        for mark in ENDS:
            # not in the first half: a cut there would leave a stub and force another cut soon
            found = text.rfind(mark, start + max_characters // 2, end)
            if found >= 0:
                end = min(end, found + len(mark))
                while end < start + max_characters and text[end] == "\n":
                    end += 1
                break
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return pieces
