"""Keys and tokens that give access to something, found by the forms that their issuers publish.

Forms as in detect-secrets 1.5.0 (Yelp, plugins of the same names), which itself takes 59 ms per megabyte, more than all of reading;
here only what is around a run of TOKEN letters and digits, some of them digits, is looked at. Private keys: RFC 7468.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TOKEN = 16  # no form below is without such a run, but for a dash or underscore at a bad place
_TABLE = bytes(97 if chr(byte).isascii() and chr(byte).isalnum() else 32 for byte in range(256))
_RUN = b"a" * TOKEN
_AROUND = 64  # bytes before a run in which a form may begin, and
_BEYOND = 256  # after it in which it ends
_DIGIT = re.compile(rb"[0-9]")
_KEY = b"PRIVATE KEY"
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----[A-Za-z0-9+/=\s\\:,-]{64,20000}?-----END \1-----")
_END = rb"(?![A-Za-z0-9_-])"
_START = rb"(?<![A-Za-z0-9_])"
_FORMS = {
    (b"AKIA", b"ASIA", b"ABIA", b"ACCA"): re.compile(_START + rb"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}" + _END),
    (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"): re.compile(_START + rb"gh[pousr]_[A-Za-z0-9_]{36}" + _END),
    (b"github_pat_",): re.compile(_START + rb"github_pat_[A-Za-z0-9_]{40,100}" + _END),
    (b"glpat-",): re.compile(_START + rb"glpat-[A-Za-z0-9_-]{20,50}" + _END),
    (b"xox",): re.compile(_START + rb"xox[abpors]-(?:[0-9]+-)+[A-Za-z0-9]+" + _END),
    (b"hooks.slack.com",): re.compile(rb"https://hooks\.slack\.com/services/T[A-Za-z0-9_]+/B[A-Za-z0-9_]+/[A-Za-z0-9_]+"),
    (b"k_live_",): re.compile(_START + rb"[rs]k_live_[0-9a-zA-Z]{24,}" + _END),
    (b"npm_",): re.compile(_START + rb"npm_[A-Za-z0-9]{36}" + _END),
    (b"T3BlbkFJ",): re.compile(_START + rb"sk-[A-Za-z0-9_-]*[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    (b"pypi-AgE",): re.compile(_START + rb"pypi-AgE[A-Za-z0-9_-]{70,}"),
    (b"SG.",): re.compile(_START + rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}" + _END),
    (b"AIza",): re.compile(_START + rb"AIza[0-9A-Za-z_-]{35}" + _END),
    (b"AccountKey=",): re.compile(rb"(?<=AccountKey=)[a-zA-Z0-9+/=]{88}"),
    (b"eyJ",): re.compile(_START + rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}"),
}


def secrets(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a secret stands in UTF-8."""
    if _KEY in data:
        for found in _PRIVATE_KEY.finditer(data):
            yield found.span()
    alike = data.translate(_TABLE)
    first = alike.find(_RUN)
    while first >= 0:
        last = alike.find(b" ", first)
        last = last if last >= 0 else len(data)
        if _DIGIT.search(data, first, last):
            window = data[max(0, first - _AROUND) : last + _BEYOND]
            for marks, form in _FORMS.items():
                if any(mark in window for mark in marks):
                    for found in form.finditer(data, max(0, first - _AROUND), last + _BEYOND):
                        yield found.span()
        first = alike.find(_RUN, last)
