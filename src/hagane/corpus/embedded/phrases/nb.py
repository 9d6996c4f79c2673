"""Norwegian Bokmål."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("Anna", "Mika", "Sara", "Leo", "Emma")

PHRASES = Phrases(
    number_to_words=("Skriv {n} med bokstaver.", "Hvordan skrives {n} med bokstaver?", "Skriv tallet {n} med ord."),
    words_to_number=("Skriv {w} med sifre.", "Hvilket tall er {w}?", "Oppgi med sifre: {w}"),
    months=("januar", "februar", "mars", "april", "mai", "juni", "juli", "august", "september", "oktober", "november", "desember"),
    date="{day}. {month} {year}",
    date_to_written=("Skriv datoen {date} med navnet på måneden.", "Hvilken dag er {date}? Skriv ut måneden."),
    date_to_iso=("Skriv datoen {written} i ISO-format.", "Oppgi {written} som år-måned-dag."),
    comparison=("Hvilket tall er størst, {a} eller {b}?", "Velg det største tallet: {a} eller {b}", "Hvilket av tallene {a} og {b} er størst?"),
    addition=("Hva er {a} + {b}?", "Regn ut {a} + {b}.", "Legg sammen {a} og {b}."),
    subtraction=("Hva er {a} - {b}?", "Regn ut {a} - {b}.", "Trekk {b} fra {a}."),
    multiplication=("Hva er {a} × {b}?", "Regn ut {a} × {b}.", "Multipliser {a} med {b}."),
    stories={
        "gain_loss": (
            "{name} har {a} {thing}. {name} kjøper {b} til og gir bort {c}. Hvor mange {thing} har {name} nå?",
            "{a} {thing} ligger på et bord. {name} legger til {b} og tar bort {c}. Hvor mange {thing} ligger på bordet nå?",
        ),
        "loss_gain": (
            "{name} har {a} {thing}. {name} gir bort {b} og kjøper {c} til. Hvor mange {thing} har {name} nå?",
            "{a} {thing} ligger på et bord. {name} tar bort {b} og legger til {c}. Hvor mange {thing} ligger på bordet nå?",
        ),
        "boxes_gain": ("{name} har {b} esker. I hver eske ligger det {a} {thing}. {name} kjøper {c} {thing} til. Hvor mange {thing} har {name} nå?",),
        "boxes_loss": ("{name} har {b} esker. I hver eske ligger det {a} {thing}. {name} gir bort {c} {thing}. Hvor mange {thing} har {name} nå?",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("epler"), Thing("egg"), Thing("lys"), Thing("kort"), Thing("blomster")),
    units=("Hvor mange {target} er {source}?", "Fyll inn: {source} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n} m", "centimeter"),
        "km>m": Conversion("{n} km", "meter"),
        "cm>mm": Conversion("{n} cm", "millimeter"),
        "kg>g": Conversion("{n} kg", "gram"),
        "l>dl": Conversion("{n} liter", "desiliter"),
        "cm>m": Conversion("{n} cm", "meter"),
        "m>km": Conversion("{n} m", "kilometer"),
        "g>kg": Conversion("{n} g", "kilogram"),
        "h>min": Conversion("{n} timer", "minutter"),
        "min>s": Conversion("{n} minutter", "sekunder"),
        "week>day": Conversion("{n} uker", "dager"),
    },
    days_between=("Hvor mange dager er det fra {date} til {later}?", "Tell dagene mellom {date} og {later}."),
    bought_on="Den {written} kjøpte {name} {a} {thing}.",
    counting="Vi teller: {row}.",
)
