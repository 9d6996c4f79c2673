"""Icelandic. Things are neuters whose plural equals their singular (21 epli and 22 epli), so a final 1 changes nothing."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("Anna", "Mika", "Sara", "Leó", "Emma")

PHRASES = Phrases(
    number_to_words=("Skrifaðu {n} með bókstöfum.", "Hvernig er {n} skrifað með bókstöfum?", "Skrifaðu töluna {n} með orðum."),
    words_to_number=("Skrifaðu með tölustöfum: {w}", "Hvaða tala er {w}?", "Hver er talan {w} í tölustöfum?"),
    months=("janúar", "febrúar", "mars", "apríl", "maí", "júní", "júlí", "ágúst", "september", "október", "nóvember", "desember"),
    date="{day}. {month} {year}",
    date_to_written=("Skrifaðu dagsetninguna {date} með heiti mánaðarins.", "Hvaða dagur er {date}? Nefndu mánuðinn."),
    date_to_iso=("Skrifaðu dagsetninguna {written} á ISO-sniði.", "Skrifaðu {written} sem ár-mánuð-dag."),
    comparison=("Hvor talan er stærri, {a} eða {b}?", "Veldu stærri töluna: {a} eða {b}", "Hvor er stærri af tölunum {a} og {b}?"),
    addition=("Hvað er {a} + {b}?", "Reiknaðu {a} + {b}.", "Leggðu saman {a} og {b}."),
    subtraction=("Hvað er {a} - {b}?", "Reiknaðu {a} - {b}.", "Dragðu {b} frá {a}."),
    multiplication=("Hvað er {a} × {b}?", "Reiknaðu {a} × {b}.", "Margfaldaðu {a} með {b}."),
    stories={
        "gain_loss": (
            "{name} á {a} {thing}. {name} kaupir {b} í viðbót og gefur {c}. Hversu mörg {thing} á {name} núna?",
            "{name} sér {a} {thing} á borði. {name} bætir {b} við og tekur {c} burt. Hversu mörg {thing} eru á borðinu núna?",
        ),
        "loss_gain": (
            "{name} á {a} {thing}. {name} gefur {b} og kaupir {c} í viðbót. Hversu mörg {thing} á {name} núna?",
            "{name} sér {a} {thing} á borði. {name} tekur {b} burt og bætir {c} við. Hversu mörg {thing} eru á borðinu núna?",
        ),
        "boxes_gain": ("{name} á {b} kassa. Hver kassi inniheldur {a} {thing}. {name} kaupir {c} {thing} í viðbót. Hversu mörg {thing} á {name} núna?",),
        "boxes_loss": ("{name} á {b} kassa. Hver kassi inniheldur {a} {thing}. {name} gefur {c} {thing}. Hversu mörg {thing} á {name} núna?",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("epli"), Thing("egg"), Thing("kerti"), Thing("spil"), Thing("blóm")),
    units=("Hvað eru {source} {target}?", "Fylltu út: {source} = ? {unit}"),
    conversions={
        "m>cm": Conversion("{n} m", "margir sentímetrar", unit="sentímetrar"),
        "km>m": Conversion("{n} km", "margir metrar", unit="metrar"),
        "cm>mm": Conversion("{n} cm", "margir millímetrar", unit="millímetrar"),
        "kg>g": Conversion("{n} kg", "mörg grömm", unit="grömm"),
        "l>dl": Conversion("{n} lítrar", "margir desilítrar", unit="desilítrar"),
        "cm>m": Conversion("{n} cm", "margir metrar", unit="metrar"),
        "m>km": Conversion("{n} m", "margir kílómetrar", unit="kílómetrar"),
        "g>kg": Conversion("{n} g", "mörg kílógrömm", unit="kílógrömm"),
        "h>min": Conversion("{n} klukkustundir", "margar mínútur", unit="mínútur"),
        "min>s": Conversion("{n} mínútur", "margar sekúndur", unit="sekúndur"),
        "week>day": Conversion("{n} vikur", "margir dagar", unit="dagar"),
    },
    days_between=("Hversu margir dagar eru frá {date} til {later}?", "Teldu dagana á milli {date} og {later}."),
    bought_on="{written} keypti {name} {a} {thing}.",
    counting="Við teljum: {row}.",
)
