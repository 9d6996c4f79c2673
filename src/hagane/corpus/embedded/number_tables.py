"""The words numbers are made of, one table per language, written by hand from the standard grammar of each.

A number is spoken as up to four pieces, one per non-zero place (k thousands, h hundreds, t tens, u units); a teen with a word of
its own is one piece, under u. Spelling is only the joining of pieces, so a piece is always a substring of the spelling.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Words = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Words by digit (index 0 unused except for `ones`), and how they are joined."""

    ones: Words
    tens: Words
    hundreds: Words
    thousands: Words
    hundred: str  # patterns of the two words in squashed text, for the parser
    thousand: str
    teens: Words = ()  # 10..19 where they have words of their own; () where they are ten + unit
    ones_first: Words = ()  # the units as spoken before the tens: German zweiund
    ten_alone: str = ""  # how 10..19 begin when nothing precedes: Chinese 十, but 一百一十
    joiner: str = ""
    ones_joiner: str = ""
    rest_joiner: str = ""  # before the part below 100 when something precedes: Norwegian og
    last_joiner: str = ""  # before the last piece, whichever it is: Icelandic og
    zero_mark: str = ""  # spoken for a gap of zeros: Chinese 零
    multipliers: Words = ()  # what may stand before hundred and thousand, beside `ones`
    joiners_read: Words = ()  # what the parser skips
    variants: dict[str, str] = field(default_factory=dict)  # other words for a number below 100 -> ours


def _split(text: str) -> Words:
    return tuple(text.split())


def _times(ones: Words, unit: str) -> Words:
    return tuple(one + unit for one in ones)


def _english() -> Table:
    ones = _split("zero one two three four five six seven eight nine")
    return Table(
        ones=ones,
        tens=("", *_split("ten twenty thirty forty fifty sixty seventy eighty ninety")),
        teens=_split("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
        hundreds=_times(ones, " hundred"),
        thousands=_times(ones, " thousand"),
        hundred="hundred",
        thousand="thousand",
        joiner=" ",
        ones_joiner="-",
        joiners_read=("and",),
    )


def _swedish() -> Table:
    ones = _split("noll ett två tre fyra fem sex sju åtta nio")
    return Table(
        ones=ones,
        tens=("", *_split("tio tjugo trettio fyrtio femtio sextio sjuttio åttio nittio")),
        teens=_split("tio elva tolv tretton fjorton femton sexton sjutton arton nitton"),
        hundreds=_times(ones, "hundra"),
        thousands=("", "ettusen", *_times(ones[2:], "tusen")),  # ett + tusen: never three equal consonants
        hundred="hundra",
        thousand="tusen",
        multipliers=("", "et"),
        joiners_read=("och",),
        variants={"en": "ett"},
    )


def _norwegian() -> Table:
    ones = _split("null en to tre fire fem seks sju åtte ni")
    neuter = ("", "ett", *ones[2:])  # hundre and tusen are neuter: ett hundre
    return Table(
        ones=ones,
        tens=("", *_split("ti tjue tretti førti femti seksti sytti åtti nitti")),
        teens=_split("ti elleve tolv tretten fjorten femten seksten sytten atten nitten"),
        hundreds=_times(neuter, " hundre"),
        thousands=_times(neuter, " tusen"),
        hundred="hundre",
        thousand="tusen",
        joiner=" ",
        rest_joiner=" og ",
        multipliers=neuter,
        joiners_read=("og",),
        variants={"én": "en", "ett": "en", "et": "en", "syv": "sju"},
    )


def _icelandic() -> Table:
    ones = _split("núll einn tveir þrír fjórir fimm sex sjö átta níu")
    neuter = ("", "eitt", "tvö", "þrjú", "fjögur", *ones[5:])
    others = {"ein": "einn", "eitt": "einn", "tvær": "tveir", "tvö": "tveir", "þrjár": "þrír", "þrjú": "þrír", "fjórar": "fjórir", "fjögur": "fjórir"}
    return Table(
        ones=ones,
        tens=("", *_split("tíu tuttugu þrjátíu fjörutíu fimmtíu sextíu sjötíu áttatíu níutíu")),
        teens=_split("tíu ellefu tólf þrettán fjórtán fimmtán sextán sautján átján nítján"),
        hundreds=("", "eitt hundrað", *_times(neuter[2:], " hundruð")),
        thousands=_times(neuter, " þúsund"),
        hundred="hundr[au]ð",
        thousand="þúsund",
        joiner=" ",
        ones_joiner=" ",
        last_joiner=" og ",
        multipliers=neuter,
        joiners_read=("og",),
        variants=others,
    )


def _finnish() -> Table:
    ones = _split("nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän")
    return Table(
        ones=ones,
        tens=("", "kymmenen", *_times(ones[2:], "kymmentä")),
        teens=("kymmenen", *_times(ones[1:], "toista")),
        hundreds=("", "sata", *_times(ones[2:], "sataa")),
        thousands=("", "tuhat", *_times(ones[2:], "tuhatta")),
        hundred="sataa?",
        thousand="tuhat(?:ta)?",
    )


def _german() -> Table:
    ones = _split("null eins zwei drei vier fünf sechs sieben acht neun")
    inside = ("", "ein", *ones[2:])  # eins loses its s before und, hundert, tausend
    return Table(
        ones=ones,
        tens=("", *_split("zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")),
        teens=_split("zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn"),
        ones_first=_times(inside, "und"),
        hundreds=_times(inside, "hundert"),
        thousands=_times(inside, "tausend"),
        hundred="hundert",
        thousand="tausend",
        multipliers=inside,
        joiners_read=("und",),
        variants={"zwo": "zwei"},
    )


def _sino(ones: Words, ten: str, hundred: str, thousand: str, variants: dict[str, str]) -> Table:
    """Japanese and Korean: digit + place, the digit one unspoken before a place."""
    digit = ("", "", *ones[2:])
    return Table(
        ones=ones,
        tens=_times(digit, ten),
        hundreds=_times(digit, hundred),
        thousands=_times(digit, thousand),
        hundred=hundred,
        thousand=thousand,
        variants=variants,
    )


def _chinese() -> Table:
    ones = tuple("零一二三四五六七八九")
    return Table(
        ones=ones,
        tens=_times(ones, "十"),
        ten_alone="十",
        hundreds=_times(ones, "百"),
        thousands=("", "一千", "两千", *_times(ones[3:], "千")),
        hundred="百",
        thousand="千",
        zero_mark="零",
        multipliers=("", "一", "两", *ones[3:]),
        joiners_read=("零", "〇"),
        variants={"〇": "零"},
    )


TABLES: dict[str, Table] = {
    "en": _english(),
    "ja": _sino(tuple("零一二三四五六七八九"), "十", "百", "千", {"〇": "零", "ゼロ": "零"}),
    "ko": _sino(tuple("영일이삼사오육칠팔구"), "십", "백", "천", {"공": "영"}),
    "zh": _chinese(),
    "sv": _swedish(),
    "nb": _norwegian(),
    "is": _icelandic(),
    "fi": _finnish(),
    "de": _german(),
}
