"""Numbers hidden in long texts, in nine languages: what is hidden, and how a text that asks for it goes on.

    passkey  a key among sentences that say nothing (Mohtashami and Jaggi 2023, "Landmark attention", section 4.2)
    needle   who bought how many of what on which day, among real text (after Kamradt 2023, "Needle in a haystack")

The question is the beginning of the same sentence once more, up to the number: a model that was never tuned can be asked.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hagane.corpus.embedded.draws import Draws
from hagane.corpus.embedded.phrases import PHRASES
from hagane.corpus.embedded.problems import written_date
from hagane.corpus.embedded.tasks import any_day

_MARK = "\x00"

# language -> (the sentence with the key, sentences that say nothing)
_PASSKEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "en": ("The pass key is {n}.", ("The grass is green.", "The sky is blue.", "The sun is yellow.", "There and back again.")),
    "ja": ("合言葉の番号は{n}です。", ("草は緑です。", "空は青いです。", "太陽は黄色です。", "行ってまた戻ります。")),
    "ko": ("비밀 번호는 {n}입니다.", ("풀은 초록색입니다.", "하늘은 파랗습니다.", "해는 노랗습니다.", "갔다가 다시 옵니다.")),
    "zh": ("密钥是{n}。", ("草是绿的。", "天是蓝的。", "太阳是黄的。", "去了又回来。")),
    "sv": ("Nyckeln är {n}.", ("Gräset är grönt.", "Himlen är blå.", "Solen är gul.", "Dit och tillbaka igen.")),
    "nb": ("Nøkkelen er {n}.", ("Gresset er grønt.", "Himmelen er blå.", "Solen er gul.", "Dit og tilbake igjen.")),
    "is": ("Lykillinn er {n}.", ("Grasið er grænt.", "Himinninn er blár.", "Sólin er gul.", "Fram og til baka.")),
    "fi": ("Avain on {n}.", ("Ruoho on vihreää.", "Taivas on sininen.", "Aurinko on keltainen.", "Sinne ja takaisin.")),
    "de": ("Der Schlüssel ist {n}.", ("Das Gras ist grün.", "Der Himmel ist blau.", "Die Sonne ist gelb.", "Hin und wieder zurück.")),
}


class Hidden(NamedTuple):
    """A sentence to hide, the question that ends the text, and the digits that must come next."""

    sentence: str
    question: str
    answer: str


def hidden(kind: Literal["passkey", "needle"], language: str, name: str) -> Hidden:
    """The sentence of this name; the same for ever."""
    draws = Draws(f"hidden/{kind}/{language}/{name}")
    if kind == "passkey":
        answer, template = str(draws.between(10_000, 99_999)), _PASSKEYS[language][0].format(n=_MARK)
    else:
        phrases, day = PHRASES[language], any_day(draws)
        thing = phrases.things[draws.below(5)]
        answer = str(draws.between(100, 999))
        template = phrases.bought_on.format(
            written=written_date(language, day.year, day.month, day.day), name=phrases.names[draws.below(5)], a=_MARK, thing=thing.noun,
            counter=thing.counter, object=thing.object,
        )  # fmt: skip
    return Hidden(template.replace(_MARK, answer), template.partition(_MARK)[0], answer)


def filler(language: str) -> str:
    """One line of sentences that say nothing."""
    gap = "" if language in ("ja", "zh") else " "
    return gap.join(_PASSKEYS[language][1])
