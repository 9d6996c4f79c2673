"""Chinese (simplified). Every thing has its own measure word."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("安娜", "米卡", "萨拉", "里奥", "艾玛")

PHRASES = Phrases(
    number_to_words=("请用汉字写出{n}。", "{n}用汉字怎么写？", "把数字{n}写成汉字。"),
    words_to_number=("请用数字写出{w}。", "{w}用数字怎么写？", "把{w}写成数字。"),
    months=tuple(f"{month}月" for month in range(1, 13)),
    date="{year}年{month}{day}日",
    date_to_written=("请用年月日写出日期{date}。", "把日期{date}写成年月日的形式。"),
    date_to_iso=("请用ISO格式写出{written}。", "把日期{written}写成ISO格式。"),
    comparison=("{a}和{b}，哪个数更大？", "请选出较大的数：{a}和{b}", "在{a}和{b}中，哪一个比较大？"),
    addition=("{a} + {b}等于多少？", "请计算{a} + {b}。", "{a}加{b}是多少？"),
    subtraction=("{a} - {b}等于多少？", "请计算{a} - {b}。", "{a}减{b}是多少？"),
    multiplication=("{a} × {b}等于多少？", "请计算{a} × {b}。", "{a}乘以{b}是多少？"),
    stories={
        "gain_loss": (
            "{name}有{a}{counter}{thing}，又买了{b}{counter}，送给别人{c}{counter}。{name}现在有多少{counter}{thing}？",
            "桌子上有{a}{counter}{thing}。{name}放上{b}{counter}，拿走{c}{counter}。现在桌子上有多少{counter}{thing}？",
        ),
        "loss_gain": (
            "{name}有{a}{counter}{thing}，送给别人{b}{counter}，又买了{c}{counter}。{name}现在有多少{counter}{thing}？",
            "桌子上有{a}{counter}{thing}。{name}拿走{b}{counter}，放上{c}{counter}。现在桌子上有多少{counter}{thing}？",
        ),
        "boxes_gain": ("{name}有{b}个盒子，每个盒子里有{a}{counter}{thing}。{name}又买了{c}{counter}{thing}。{name}现在一共有多少{counter}{thing}？",),
        "boxes_loss": ("{name}有{b}个盒子，每个盒子里有{a}{counter}{thing}。{name}送给别人{c}{counter}{thing}。{name}现在一共有多少{counter}{thing}？",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("苹果", "个"), Thing("鸡蛋", "个"), Thing("蜡烛", "根"), Thing("卡片", "张"), Thing("花", "朵")),
    units=("{source}等于多少{target}？", "填空：{source} = ?{target}"),
    conversions={
        "m>cm": Conversion("{n}米", "厘米"),
        "km>m": Conversion("{n}千米", "米"),
        "cm>mm": Conversion("{n}厘米", "毫米"),
        "kg>g": Conversion("{n}千克", "克"),
        "l>dl": Conversion("{n}升", "分升"),
        "cm>m": Conversion("{n}厘米", "米"),
        "m>km": Conversion("{n}米", "千米"),
        "g>kg": Conversion("{n}克", "千克"),
        "h>min": Conversion("{n}小时", "分钟"),
        "min>s": Conversion("{n}分钟", "秒"),
        "week>day": Conversion("{n}周", "天"),
    },
    days_between=("从{date}到{later}相隔多少天？", "{date}和{later}之间相差多少天？"),
    bought_on="{written}，{name}买了{a}{counter}{thing}。",
    counting="依次数数：{row}。",
)
