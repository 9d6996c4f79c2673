"""Japanese. Digits are half-width; counters follow the number, so nothing inflects."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("アンナ", "ミカ", "サラ", "レオ", "エマ")

PHRASES = Phrases(
    number_to_words=("{n}を漢数字で書いてください。", "{n}は漢数字でどう書きますか。", "数{n}を漢数字に直してください。"),
    words_to_number=("{w}を算用数字で書いてください。", "{w}は算用数字でどう書きますか。", "{w}を数字に直してください。"),
    months=tuple(f"{month}月" for month in range(1, 13)),
    date="{year}年{month}{day}日",
    date_to_written=("{date}を年月日で書いてください。", "日付{date}を「年」「月」「日」を使って書いてください。"),
    date_to_iso=("{written}をISO形式で書いてください。", "日付{written}をISO形式に直してください。"),
    comparison=("{a}と{b}では、どちらが大きいですか。", "大きいほうの数を選んでください。{a}と{b}", "{a}と{b}のうち、大きいほうはどれですか。"),
    addition=("{a} + {b}はいくつですか。", "{a} + {b}を計算してください。", "{a}に{b}を足してください。"),
    subtraction=("{a} - {b}はいくつですか。", "{a} - {b}を計算してください。", "{a}から{b}を引いてください。"),
    multiplication=("{a} × {b}はいくつですか。", "{a} × {b}を計算してください。", "{a}に{b}を掛けてください。"),
    stories={
        "gain_loss": (
            "{name}さんは{thing}を{a}{counter}持っています。{b}{counter}買って、{c}{counter}あげました。{thing}は今、何{counter}ありますか。",
            "机の上に{thing}が{a}{counter}あります。{name}さんが{b}{counter}置いて、{c}{counter}取りました。{thing}は今、机の上に何{counter}ありますか。",
        ),
        "loss_gain": (
            "{name}さんは{thing}を{a}{counter}持っています。{b}{counter}あげて、{c}{counter}買いました。{thing}は今、何{counter}ありますか。",
            "机の上に{thing}が{a}{counter}あります。{name}さんが{b}{counter}取って、{c}{counter}置きました。{thing}は今、机の上に何{counter}ありますか。",
        ),
        "boxes_gain": (
            "{name}さんは箱を{b}つ持っています。どの箱にも{thing}が{a}{counter}入っています。さらに{thing}を{c}{counter}買いました。{thing}は今、全部で何{counter}ありますか。",
        ),
        "boxes_loss": (
            "{name}さんは箱を{b}つ持っています。どの箱にも{thing}が{a}{counter}入っています。{thing}を{c}{counter}あげました。{thing}は今、全部で何{counter}ありますか。",
        ),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("りんご", "個"), Thing("卵", "個"), Thing("ろうそく", "本"), Thing("カード", "枚"), Thing("花", "本")),
    units=("{source}は何{target}ですか。", "空欄をうめてください。{source} = ?{target}"),
    conversions={
        "m>cm": Conversion("{n}m", "センチメートル"),
        "km>m": Conversion("{n}km", "メートル"),
        "cm>mm": Conversion("{n}cm", "ミリメートル"),
        "kg>g": Conversion("{n}kg", "グラム"),
        "l>dl": Conversion("{n}リットル", "デシリットル"),
        "cm>m": Conversion("{n}cm", "メートル"),
        "m>km": Conversion("{n}m", "キロメートル"),
        "g>kg": Conversion("{n}g", "キログラム"),
        "h>min": Conversion("{n}時間", "分"),
        "min>s": Conversion("{n}分", "秒"),
        "week>day": Conversion("{n}週間", "日"),
    },
    days_between=("{date}から{later}まで何日ありますか。", "{date}の何日後が{later}ですか。"),
    bought_on="{written}、{name}さんは{thing}を{a}{counter}買いました。",
    counting="順に数えます。{row}。",
)
