"""Personal data, masked: e-mail addresses, telephone numbers, numbers of cards and accounts, national numbers; and secrets (`secrets.py`).

What may be one is found cheaply, in one pass over the bytes with every digit alike. Whether it is one is said by libraries: phonenumbers
(Google's libphonenumber) and python-stdnum with its check digits. Where check digits are weak and order numbers look alike,
a word before the number must say what it is. Placeholders have the form of StarCoder's (Li et al. 2023, arXiv 2305.06161, section 4.2).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import NamedTuple

from hagane.corpus.secrets import secrets

KINDS = ("email", "phone", "card", "iban", "national_number", "secret")

_SEPARATORS = b" -.()/+"
_TABLE = bytes(
    48 if 48 <= byte < 58 else 65 if 65 <= byte < 91 else 45 if byte in _SEPARATORS else 97 if 97 <= byte < 123 or byte == 95 else 120 for byte in range(256)
)
_NUMBER = re.compile(rb"0(?:-{0,2}0){6,24}")
_WITH_LETTER = re.compile(rb"000000(?:[-A]000[0A]|0?0-?A)")  # a literal beginning is found fast
_ACCOUNT_MARK = re.compile(rb"AA00")
_ACCOUNT = re.compile(rb"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_LOCAL = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?\Z")
_DOMAIN = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
_RESERVED = re.compile(rb"(?:\A|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local)\Z", re.IGNORECASE)  # RFC 2606, RFC 6762
_NO_PERSON = (b"git", b"noreply", b"no-reply")
_FILES = (b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp", b"js", b"css", b"py", b"md", b"html")  # logo@2x.png is a file

# Issuers by first digits and lengths (ISO/IEC 7812 register, as on the networks' own pages).
_ISSUERS = re.compile(
    rb"(?:4\d{15}|4\d{18}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14})\Z"
)
_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)}
_BEFORE = 32  # bytes before a number in which a word may say what it is
_PHONE_WORD = re.compile(
    r"(?:\b(?:tel|telephone|phone|call|mobile|fax|tlf|telefon|mobil|puh|puhelin|sími|farsími|telefón|tél|téléphone|teléfono|móvil|handy|rufnummer|ring|ringe)"
    r"|電話|携帯|电话|手机|전화|휴대폰|☎|📞)[^\w]{0,4}(?:\w{0,8}[.:]?\s{0,2})?\Z",
    re.IGNORECASE,
)
_REGIONS = {
    "nb": "NO", "nn": "NO", "no": "NO", "se": "NO", "smj": "NO", "sma": "NO", "smn": "FI", "sms": "FI", "sv": "SE", "da": "DK", "fi": "FI", "fo": "FO",
    "is": "IS", "de": "DE", "fr": "FR", "es": "ES", "it": "IT", "nl": "NL", "pt": "PT", "pl": "PL", "et": "EE", "lv": "LV", "lt": "LT", "ja": "JP", "ko": "KR",
    "zh": "CN", "en": "US", "sw": "KE", "zu": "ZA", "gv": "IM",
}  # fmt: skip


class _National(NamedTuple):
    """A number of stdnum: `form` what it must look like, `word` what must be said before it where the form alone is too common."""

    module: str
    form: re.Pattern[str]
    word: re.Pattern[str] | None = None


def _number(module: str, form: str, word: str | None = None) -> _National:
    return _National(f"stdnum.{module}", re.compile(rf"(?:{form})\Z"), re.compile(word, re.IGNORECASE) if word else None)


_NATIONAL = (
    _number("no.fodselsnummer", r"\d{6} ?\d{5}"),
    _number("se.personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}"),
    _number("dk.cpr", r"\d{6}-\d{4}", r"cpr|person"),
    _number("fi.hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]"),
    _number("is_.kennitala", r"\d{6}-\d{4}"),
    _number("ee.ik", r"[1-8]\d{10}", r"isikukood"),
    _number("lt.asmens", r"[1-8]\d{10}", r"asmens kod"),
    _number("kr.rrn", r"\d{6}-\d{7}"),
    _number("jp.in_", r"\d{12}|\d{4}[ -]\d{4}[ -]\d{4}", r"マイナンバー|個人番号|my number"),
    _number("cn.ric", r"\d{17}[0-9X]"),
    _number("fr.nir", r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}"),
    _number("es.dni", r"\d{8}-?[A-Z]", r"\b(?:dni|nif)\b"),
    _number("es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    _number("de.idnr", r"\d{11}|\d{2} \d{3} \d{3} \d{3}", r"steuer"),
    _number("us.ssn", r"\d{3}-\d{2}-\d{4}", r"\bssn\b|social security"),
    _number("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    _number("nl.bsn", r"\d{9}", r"\bbsn\b|burgerservicenummer"),
    _number("za.idnr", r"\d{13}", r"\bid\b|identity"),
)
_SHORTEST, _LONGEST = 9, 22  # bytes of one of these, separators included


def mask(text: str, language: str, data: bytes | None = None) -> tuple[str, Counter[str]]:
    """The text with placeholders such as `<EMAIL>`, and how many of each kind; the same object where there is nothing.

    `data` is the text in UTF-8 where that is known. A text with half a surrogate pair is left as it is.
    """
    try:
        data = text.encode() if data is None else data
    except UnicodeEncodeError:
        return text, Counter()
    found = sorted(_found(data, language))
    if not found:
        return text, Counter()
    counts: Counter[str] = Counter()
    parts, end = [], 0
    for first, last, kind in found:
        if first >= end:
            parts += [data[end:first], f"<{kind.upper()}>".encode()]
            counts[kind] += 1
            end = last
    return b"".join([*parts, data[end:]]).decode("utf-8", "surrogatepass"), counts


def _found(data: bytes, language: str) -> Iterator[tuple[int, int, str]]:
    yield from ((first, last, "secret") for first, last in secrets(data))
    yield from ((first, last, "email") for first, last in _emails(data))
    alike = data.translate(_TABLE)
    for mark in _ACCOUNT_MARK.finditer(alike):
        account = _ACCOUNT.match(data, mark.start())
        if account and _valid("stdnum.iban", account[0].decode()):
            yield *account.span(), "iban"
    for number in _WITH_LETTER.finditer(alike):
        first, last = number.span()
        if alike[first - 1 : first] == b"A":  # a Spanish number of foreigners begins with a letter
            first -= 1
        if _stands_alone(data, first, last) and _is_national(data, first, last):
            yield first, last, "national_number"
    for number in _NUMBER.finditer(alike):
        yield from _judged(data, number.start(), number.end(), language)


def _judged(data: bytes, first: int, last: int, language: str) -> Iterator[tuple[int, int, str]]:
    """A run of digits and signs between them: as a whole, then in the parts that two signs or more leave."""
    if last < len(data) and data[last : last + 1] == b"X" and last - first == 17:  # the last place of a Chinese number may be X
        last += 1
    spans = [(first, last)]
    if cuts := list(re.finditer(rb"[ -.()/+]{2}", data[first:last])):
        edges = [first, *(first + cut.end() for cut in cuts)]
        spans += list(zip(edges, [*(first + cut.start() for cut in cuts), last], strict=True))
    for start, end in spans:
        if not _stands_alone(data, start, end):
            continue
        kind = "card" if _is_card(data[start:end]) else "national_number" if _is_national(data, start, end) else None
        if kind:
            yield start, end, kind
            return
        while start and data[start - 1] in b"+(" and first - start < 2:  # a plus or a bracket before the first digit
            start -= 1
        if _is_phone(data, start, end, language):
            yield start, end, "phone"
            return


def _stands_alone(data: bytes, first: int, last: int) -> bool:
    """Whether it is no part of a longer name, number, path or address."""
    before, after = data[first - 1 : first], data[last : last + 1]
    if after.isalnum() or after == b"_" or (after in (b".", b",", b":", b"-", b"/") and data[last + 1 : last + 2].isdigit()):
        return False
    return not (before.isalnum() or (before and before in b"_.,/=#%&?$-" and data[max(0, first - 4) : first].lower() != b"tel:"))


def _emails(data: bytes) -> Iterator[tuple[int, int]]:
    place = data.find(b"@")
    while place >= 0:
        local = _LOCAL.search(data[max(0, place - 64) : place])
        domain = _DOMAIN.match(data, place + 1)
        if local and domain and not _RESERVED.search(domain[0]) and local[0].lower() not in _NO_PERSON:
            first = place - len(local[0])
            if domain[0].rpartition(b".")[2].lower() not in _FILES and data[first - 1 : first] != b"/":
                yield first, domain.end()
        place = data.find(b"@", place + 1)


def _is_card(number: bytes) -> bool:
    groups = re.split(rb"[ -]", number)
    digits = b"".join(groups)
    if not digits.isdigit() or not _ISSUERS.match(digits) or (len(groups) > 1 and tuple(map(len, groups)) not in _GROUPS):
        return False
    return _valid("stdnum.luhn", digits.decode()) and len(set(digits)) > 2  # 4444 4444 4444 4448 is nobody's


def _is_national(data: bytes, first: int, last: int) -> bool:
    if not _SHORTEST <= last - first <= _LONGEST:
        return False
    number, before = data[first:last].decode(), _words_before(data, first)
    return any(own.form.match(number) and (own.word is None or own.word.search(before)) and _valid(own.module, number) for own in _NATIONAL)


def _words_before(data: bytes, first: int) -> str:
    return data[max(0, first - _BEFORE) : first].decode("utf-8", "ignore")


@cache
def _check(module: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = import_module(module).is_valid
    return check


def _valid(module: str, number: str) -> bool:
    return _check(module)(number)


def _is_phone(data: bytes, first: int, last: int, language: str) -> bool:
    number = data[first:last].decode()
    if sum(map(str.isdigit, number)) > 15:  # ITU-T E.164
        return False
    import phonenumbers as library

    plus = number.lstrip("(").startswith("+")
    region = _REGIONS.get(language.partition("-")[0])
    if not plus and region is None:
        return False
    said = not plus and _PHONE_WORD.search(_words_before(data, first)) is not None
    # in one run of digits, or not begun with a zero, only a word makes it a telephone number
    if not (plus or said or (number.lstrip("(").startswith("0") and not number.isdigit())):
        return False
    try:
        parsed = library.parse(number, None if plus else region)
    except library.NumberParseException:
        return False
    if not library.is_valid_number(parsed):
        return False
    if plus or said:
        return True
    # no word says it: then it must be written as numbers of the country are, and not in one run of digits
    groups = re.findall(r"\d+", number)
    return len(groups) > 1 and groups == re.findall(r"\d+", library.format_number(parsed, library.PhoneNumberFormat.NATIONAL))
