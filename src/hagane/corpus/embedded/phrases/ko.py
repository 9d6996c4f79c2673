"""Korean. Particles that depend on the sound before them never follow a digit: only 의, 에, 에서, 부터, 까지 and counters do."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("안나", "미카", "사라", "레오", "에마")  # all end in a vowel: 는, 가

PHRASES = Phrases(
    number_to_words=("숫자 {n}의 한글 표기를 쓰세요.", "{n}, 이 수를 한글로 쓰세요.", "{n}의 한글 표기는 무엇입니까?"),
    words_to_number=("{w}, 이 수를 숫자로 쓰세요.", "다음 수를 숫자로 쓰세요: {w}", "{w}의 숫자 표기는 무엇입니까?"),
    months=tuple(f"{month}월" for month in range(1, 13)),
    date="{year}년 {month} {day}일",
    date_to_written=("날짜 {date}의 표기를 년, 월, 일을 붙여 다시 쓰세요.", "다음 날짜를 년, 월, 일로 쓰세요: {date}"),
    date_to_iso=("{written}을 ISO 형식으로 쓰세요.", "다음 날짜를 ISO 형식으로 바꾸세요: {written}"),
    comparison=("{a}, {b} 중 어느 수가 더 큽니까?", "다음 두 수 중 더 큰 수를 고르세요: {a}, {b}", "두 수 {a}, {b} 중에서 큰 수는 무엇입니까?"),
    addition=("{a} + {b}의 값은 얼마입니까?", "다음을 계산하세요: {a} + {b}", "{a} 더하기 {b}의 값을 구하세요."),
    subtraction=("{a} - {b}의 값은 얼마입니까?", "다음을 계산하세요: {a} - {b}", "{a} 빼기 {b}의 값을 구하세요."),
    multiplication=("{a} × {b}의 값은 얼마입니까?", "다음을 계산하세요: {a} × {b}", "{a} 곱하기 {b}의 값을 구하세요."),
    stories={
        "gain_loss": (
            "{name}는 {object} {a}{counter} 가지고 있습니다. {b}{counter} 더 사고 {c}{counter} 나누어 주었습니다. 지금 {topic} 몇 {counter}입니까?",
            "책상 위에 {thing} {a}{counter}{particle} 있습니다. "
            "{name}가 {b}{counter} 더 놓고 {c}{counter} 가져갔습니다. 지금 책상 위의 {topic} 몇 {counter}입니까?",
        ),
        "loss_gain": (
            "{name}는 {object} {a}{counter} 가지고 있습니다. {b}{counter} 나누어 주고 {c}{counter} 더 샀습니다. 지금 {topic} 몇 {counter}입니까?",
            "책상 위에 {thing} {a}{counter}{particle} 있습니다. "
            "{name}가 {b}{counter} 가져가고 {c}{counter} 더 놓았습니다. 지금 책상 위의 {topic} 몇 {counter}입니까?",
        ),
        "boxes_gain": (
            "{name}는 상자 {b}개를 가지고 있습니다. 상자마다 {thing} {a}{counter}{particle} 들어 있습니다. "
            "{name}는 {object} {c}{counter} 더 샀습니다. 지금 {topic} 모두 몇 {counter}입니까?",
        ),
        "boxes_loss": (
            "{name}는 상자 {b}개를 가지고 있습니다. 상자마다 {thing} {a}{counter}{particle} 들어 있습니다. "
            "{name}는 {object} {c}{counter} 나누어 주었습니다. 지금 {topic} 모두 몇 {counter}입니까?",
        ),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(
        Thing("사과", "개", "사과를", "사과는", "가"),
        Thing("달걀", "개", "달걀을", "달걀은", "가"),
        Thing("양초", "개", "양초를", "양초는", "가"),
        Thing("카드", "장", "카드를", "카드는", "이"),
        Thing("꽃", "송이", "꽃을", "꽃은", "가"),
    ),
    units=("{source} 몇 {target}입니까?", "빈칸을 채우세요: {amount} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n}m는", "센티미터", "{n}m"),
        "km>m": Conversion("{n}km는", "미터", "{n}km"),
        "cm>mm": Conversion("{n}cm는", "밀리미터", "{n}cm"),
        "kg>g": Conversion("{n}kg은", "그램", "{n}kg"),
        "l>dl": Conversion("{n}리터는", "데시리터", "{n}리터"),
        "cm>m": Conversion("{n}cm는", "미터", "{n}cm"),
        "m>km": Conversion("{n}m는", "킬로미터", "{n}m"),
        "g>kg": Conversion("{n}g은", "킬로그램", "{n}g"),
        "h>min": Conversion("{n}시간은", "분", "{n}시간"),
        "min>s": Conversion("{n}분은", "초", "{n}분"),
        "week>day": Conversion("{n}주는", "일", "{n}주"),
    },
    days_between=("{date}부터 {later}까지 며칠입니까?", "{date}에서 {later}까지의 일수를 구하세요."),
    bought_on="{written}에 {name}는 {object} {a}{counter} 샀습니다.",
    counting="차례로 셉니다: {row}.",
)
