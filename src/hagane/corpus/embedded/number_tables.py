"""The words numbers are made of, one table per language. Written by hand from the standard grammar of each language."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Ready parts: index = digit for `thousands` and `hundreds` (0 unused), the number itself for the two lists to 99."""

    below_100: tuple[str, ...]
    hundreds: tuple[str, ...]
    thousands: tuple[str, ...]
    rest_after_hundreds: tuple[str, ...]
    hundred: str  # patterns of the words in squashed text, for the parser
    thousand: str
    joiner: str = ""
    rest_joiner: str = ""  # before the part below 100 ("og" in Norwegian)
    last_joiner: str = ""  # before the last part, whichever it is (Icelandic)
    zero_mark: str = ""  # spoken for a gap of zeros (Chinese)
    multipliers: tuple[str, ...] = ()
    joiners_read: tuple[str, ...] = ()
    variants: dict[str, str] = field(default_factory=dict)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _tens_then_ones(first: tuple[str, ...], tens: tuple[str, ...], joiner: str, ones: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """0..19 given, then tens joined with ones: twenty-one, tjugoett, tuttugu og einn."""
    last = ones or first[:10]
    return first + tuple(tens[n // 10 - 2] + (joiner + last[n % 10] if n % 10 else "") for n in range(20, 100))


def _english() -> Table:
    first = _split(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    )
    below = _tens_then_ones(first, _split("twenty thirty forty fifty sixty seventy eighty ninety"), "-")
    hundreds, thousands = (tuple(f"{one} {unit}" for one in first[:10]) for unit in ("hundred", "thousand"))
    return Table(below, hundreds, thousands, below, "hundred", "thousand", joiner=" ", joiners_read=("and",))


def _swedish() -> Table:
    first = _split("noll ett två tre fyra fem sex sju åtta nio tio elva tolv tretton fjorton femton sexton sjutton arton nitton")
    below = _tens_then_ones(first, _split("tjugo trettio fyrtio femtio sextio sjuttio åttio nittio"), "")
    hundreds = tuple(one + "hundra" for one in first[:10])
    thousands = ("", "ettusen", *(one + "tusen" for one in first[2:10]))  # ett + tusen: never three equal consonants
    return Table(below, hundreds, thousands, below, "hundra", "tusen", multipliers=("", "et"), joiners_read=("och",), variants={"en": "ett"})


def _norwegian() -> Table:
    first = _split("null en to tre fire fem seks sju åtte ni ti elleve tolv tretten fjorten femten seksten sytten atten nitten")
    below = _tens_then_ones(first, _split("tjue tretti førti femti seksti sytti åtti nitti"), "")
    neuter = ("", "ett", *first[2:10])  # hundre and tusen are neuter: ett hundre
    hundreds, thousands = (tuple(f"{one} {unit}" for one in neuter) for unit in ("hundre", "tusen"))
    return Table(below, hundreds, thousands, below, "hundre", "tusen", joiner=" ", rest_joiner=" og ", multipliers=neuter, joiners_read=("og",),
                 variants={"én": "en", "ett": "en", "et": "en", "syv": "sju"})  # fmt: skip


def _icelandic() -> Table:
    first = _split("núll einn tveir þrír fjórir fimm sex sjö átta níu tíu ellefu tólf þrettán fjórtán fimmtán sextán sautján átján nítján")
    below = _tens_then_ones(first, _split("tuttugu þrjátíu fjörutíu fimmtíu sextíu sjötíu áttatíu níutíu"), " og ")
    neuter = ("", "eitt", "tvö", "þrjú", "fjögur", *first[5:10])
    hundreds = tuple(f"{one} {'hundrað' if one == 'eitt' else 'hundruð'}" for one in neuter)
    thousands = tuple(f"{one} þúsund" for one in neuter)
    return Table(below, hundreds, thousands, below, "hundr[au]ð", "þúsund", last_joiner=" og ", multipliers=neuter, joiners_read=("og",),
                 variants={"ein": "einn", "eitt": "einn", "tvær": "tveir", "tvö": "tveir", "þrjár": "þrír", "þrjú": "þrír", "fjórar": "fjórir", "fjögur": "fjórir"})  # fmt: skip


def _finnish() -> Table:
    ones = _split("nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän")
    first = (*ones, "kymmenen", *(one + "toista" for one in ones[1:]))
    below = _tens_then_ones(first, tuple(one + "kymmentä" for one in ones[2:]), "")
    hundreds = ("", "sata", *(one + "sataa" for one in ones[2:]))
    thousands = ("", "tuhat", *(one + "tuhatta" for one in ones[2:]))
    return Table(below, hundreds, thousands, below, "sataa?", "tuhat(?:ta)?")


def _german() -> Table:
    ones = _split("null eins zwei drei vier fünf sechs sieben acht neun")
    first = (*ones, *_split("zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn"))
    tens = _split("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
    inside = ("", "ein", *ones[2:])  # eins loses its s before und, hundert, tausend
    below = first + tuple((inside[n % 10] + "und" if n % 10 else "") + tens[n // 10 - 2] for n in range(20, 100))
    hundreds, thousands = (tuple(one + unit for one in inside) for unit in ("hundert", "tausend"))
    return Table(below, hundreds, thousands, below, "hundert", "tausend", multipliers=inside, joiners_read=("und",), variants={"zwo": "zwei"})


def _sino(ones: tuple[str, ...], ten: str, hundred: str, thousand: str) -> Table:
    """Japanese and Korean: digit + place, the digit one unspoken before a place."""
    digit = ("", "", *ones[2:])
    below = tuple(ones[n] if n < 10 else digit[n // 10] + ten + (ones[n % 10] if n % 10 else "") for n in range(100))
    return Table(below, *(tuple(one + place for one in digit) for place in (hundred, thousand)), below, hundred, thousand)


def _chinese() -> Table:
    ones = tuple("零一二三四五六七八九")
    tens = tuple(ones[n // 10] + "十" + (ones[n % 10] if n % 10 else "") for n in range(100))
    below = tuple(ones[n] if n < 10 else tens[n].removeprefix("一") if n < 20 else tens[n] for n in range(100))
    # after a hundred the ten keeps its one: 一百一十二, but 十二 alone
    rest = tuple(ones[n] if n < 10 else tens[n] for n in range(100))
    return Table(below, tuple(one + "百" for one in ones), ("", "一千", "两千", *(one + "千" for one in ones[3:])), ("", *rest[1:]), "百", "千",
                 zero_mark="零", multipliers=("", "一", "两", *ones[3:]), joiners_read=("零", "〇"), variants={"〇": "零"})  # fmt: skip


def _with_variants(table: Table, variants: dict[str, str]) -> Table:
    return Table(**{**vars(table), "variants": variants})


TABLES: dict[str, Table] = {
    "en": _english(),
    "ja": _with_variants(_sino(tuple("零一二三四五六七八九"), "十", "百", "千"), {"〇": "零", "ゼロ": "零"}),
    "ko": _with_variants(_sino(tuple("영일이삼사오육칠팔구"), "십", "백", "천"), {"공": "영"}),
    "zh": _chinese(),
    "sv": _swedish(),
    "nb": _norwegian(),
    "is": _icelandic(),
    "fi": _finnish(),
    "de": _german(),
}
