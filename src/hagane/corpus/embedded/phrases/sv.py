"""Swedish."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("Anna", "Mika", "Sara", "Leo", "Emma")

PHRASES = Phrases(
    number_to_words=("Skriv {n} med bokstäver.", "Hur skrivs {n} med bokstäver?", "Skriv ut talet {n} i ord."),
    words_to_number=("Skriv {w} med siffror.", "Vilket tal är {w}?", "Ange i siffror: {w}"),
    months=("januari", "februari", "mars", "april", "maj", "juni", "juli", "augusti", "september", "oktober", "november", "december"),
    date="{day} {month} {year}",
    date_to_written=("Skriv datumet {date} med månadens namn.", "Vilken dag är {date}? Skriv ut månaden."),
    date_to_iso=("Skriv datumet {written} i ISO-format.", "Ange {written} som år-månad-dag."),
    comparison=("Vilket tal är störst, {a} eller {b}?", "Välj det största talet: {a} eller {b}", "Vilket av talen {a} och {b} är störst?"),
    addition=("Vad är {a} + {b}?", "Räkna ut {a} + {b}.", "Addera {a} och {b}."),
    subtraction=("Vad är {a} - {b}?", "Räkna ut {a} - {b}.", "Subtrahera {b} från {a}."),
    multiplication=("Vad är {a} × {b}?", "Räkna ut {a} × {b}.", "Multiplicera {a} med {b}."),
    stories={
        "gain_loss": (
            "{name} har {a} {thing}. {name} köper {b} till och ger bort {c}. Hur många {thing} har {name} nu?",
            "{a} {thing} ligger på ett bord. {name} lägger dit {b} och tar bort {c}. Hur många {thing} ligger på bordet nu?",
        ),
        "loss_gain": (
            "{name} har {a} {thing}. {name} ger bort {b} och köper {c} till. Hur många {thing} har {name} nu?",
            "{a} {thing} ligger på ett bord. {name} tar bort {b} och lägger dit {c}. Hur många {thing} ligger på bordet nu?",
        ),
        "boxes_gain": ("{name} har {b} lådor. I varje låda ligger {a} {thing}. {name} köper {c} {thing} till. Hur många {thing} har {name} nu?",),
        "boxes_loss": ("{name} har {b} lådor. I varje låda ligger {a} {thing}. {name} ger bort {c} {thing}. Hur många {thing} har {name} nu?",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("äpplen"), Thing("ägg"), Thing("ljus"), Thing("kort"), Thing("blommor")),
    units=("Hur många {target} är {source}?", "Fyll i: {source} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n} m", "centimeter"),
        "km>m": Conversion("{n} km", "meter"),
        "cm>mm": Conversion("{n} cm", "millimeter"),
        "kg>g": Conversion("{n} kg", "gram"),
        "l>dl": Conversion("{n} liter", "deciliter"),
        "cm>m": Conversion("{n} cm", "meter"),
        "m>km": Conversion("{n} m", "kilometer"),
        "g>kg": Conversion("{n} g", "kilogram"),
        "h>min": Conversion("{n} timmar", "minuter"),
        "min>s": Conversion("{n} minuter", "sekunder"),
        "week>day": Conversion("{n} veckor", "dagar"),
    },
    days_between=("Hur många dagar är det från {date} till {later}?", "Räkna dagarna mellan {date} och {later}."),
    bought_on="Den {written} köpte {name} {a} {thing}.",
    counting="Vi räknar: {row}.",
)
