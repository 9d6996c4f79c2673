"""English."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("Anna", "Mika", "Sara", "Leo", "Emma")

PHRASES = Phrases(
    number_to_words=("Write {n} in words.", "How is {n} written in words?", "Spell out the number {n}."),
    words_to_number=("Write {w} in digits.", "Which number is {w}?", "Give the digits: {w}"),
    months=("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"),
    date="{day} {month} {year}",
    date_to_written=("Write the date {date} with the name of the month.", "Which day is {date}? Name the month."),
    date_to_iso=("Write the date {written} in ISO format.", "Give {written} as year-month-day."),
    comparison=("Which number is larger, {a} or {b}?", "Choose the larger number: {a} or {b}", "Of {a} and {b}, which is greater?"),
    addition=("What is {a} + {b}?", "Calculate {a} + {b}.", "Add {a} and {b}."),
    subtraction=("What is {a} - {b}?", "Calculate {a} - {b}.", "Subtract {b} from {a}."),
    multiplication=("What is {a} × {b}?", "Calculate {a} × {b}.", "Multiply {a} by {b}."),
    stories={
        "gain_loss": (
            "{name} has {a} {thing}. {name} buys {b} more and gives away {c}. How many {thing} does {name} have now?",
            "{a} {thing} are on a table. {name} adds {b} and takes {c} away. How many {thing} are on the table now?",
        ),
        "loss_gain": (
            "{name} has {a} {thing}. {name} gives away {b} and buys {c} more. How many {thing} does {name} have now?",
            "{a} {thing} are on a table. {name} takes {b} away and adds {c}. How many {thing} are on the table now?",
        ),
        "boxes_gain": ("{name} has {b} boxes. Each box holds {a} {thing}. {name} buys {c} more {thing}. How many {thing} does {name} have now?",),
        "boxes_loss": ("{name} has {b} boxes. Each box holds {a} {thing}. {name} gives away {c} {thing}. How many {thing} does {name} have now?",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("apples"), Thing("eggs"), Thing("candles"), Thing("cards"), Thing("flowers")),
    units=("How many {target} are {source}?", "Fill in: {source} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n} m", "centimetres"),
        "km>m": Conversion("{n} km", "metres"),
        "cm>mm": Conversion("{n} cm", "millimetres"),
        "kg>g": Conversion("{n} kg", "grams"),
        "l>dl": Conversion("{n} litres", "decilitres"),
        "cm>m": Conversion("{n} cm", "metres"),
        "m>km": Conversion("{n} m", "kilometres"),
        "g>kg": Conversion("{n} g", "kilograms"),
        "h>min": Conversion("{n} hours", "minutes"),
        "min>s": Conversion("{n} minutes", "seconds"),
        "week>day": Conversion("{n} weeks", "days"),
    },
    days_between=("How many days are there from {date} to {later}?", "Count the days between {date} and {later}."),
    bought_on="On {written}, {name} bought {a} {thing}.",
    counting="We count: {row}.",
)
