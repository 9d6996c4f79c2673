"""German. Plurals stand in the nominative or accusative, which are equal; no template needs a dative plural."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

_NAMES = ("Anna", "Mika", "Sara", "Leo", "Emma")

PHRASES = Phrases(
    number_to_words=("Schreibe {n} in Worten.", "Wie schreibt man {n} in Worten?", "Schreibe die Zahl {n} aus."),
    words_to_number=("Schreibe {w} in Ziffern.", "Welche Zahl ist {w}?", "In Ziffern: {w}"),
    months=("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"),
    date="{day}. {month} {year}",
    date_to_written=("Schreibe das Datum {date} mit dem Namen des Monats.", "Welcher Tag ist {date}? Nenne den Monat."),
    date_to_iso=("Schreibe das Datum {written} im ISO-Format.", "Gib {written} als Jahr-Monat-Tag an."),
    comparison=("Welche Zahl ist größer, {a} oder {b}?", "Wähle die größere Zahl: {a} oder {b}", "Welche der Zahlen {a} und {b} ist größer?"),
    addition=("Was ist {a} + {b}?", "Berechne {a} + {b}.", "Addiere {a} und {b}."),
    subtraction=("Was ist {a} - {b}?", "Berechne {a} - {b}.", "Ziehe {b} von {a} ab."),
    multiplication=("Was ist {a} × {b}?", "Berechne {a} × {b}.", "Multipliziere {a} mit {b}."),
    stories={
        "gain_loss": (
            "{name} hat {a} {thing}. {name} kauft {b} dazu und verschenkt {c}. Wie viele {thing} hat {name} jetzt?",
            "{a} {thing} liegen auf einem Tisch. {name} legt {b} dazu und nimmt {c} weg. Wie viele {thing} liegen jetzt auf dem Tisch?",
        ),
        "loss_gain": (
            "{name} hat {a} {thing}. {name} verschenkt {b} und kauft {c} dazu. Wie viele {thing} hat {name} jetzt?",
            "{a} {thing} liegen auf einem Tisch. {name} nimmt {b} weg und legt {c} dazu. Wie viele {thing} liegen jetzt auf dem Tisch?",
        ),
        "boxes_gain": ("{name} hat {b} Kisten. In jeder Kiste liegen {a} {thing}. {name} kauft {c} {thing} dazu. Wie viele {thing} hat {name} jetzt?",),
        "boxes_loss": ("{name} hat {b} Kisten. In jeder Kiste liegen {a} {thing}. {name} verschenkt {c} {thing}. Wie viele {thing} hat {name} jetzt?",),
    },
    names=_NAMES,
    owners=_NAMES,
    things=(Thing("Äpfel"), Thing("Eier"), Thing("Kerzen"), Thing("Karten"), Thing("Blumen")),
    units=("Wie viele {target} sind {source}?", "Ergänze: {source} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n} m", "Zentimeter"),
        "km>m": Conversion("{n} km", "Meter"),
        "cm>mm": Conversion("{n} cm", "Millimeter"),
        "kg>g": Conversion("{n} kg", "Gramm"),
        "l>dl": Conversion("{n} Liter", "Deziliter"),
        "cm>m": Conversion("{n} cm", "Meter"),
        "m>km": Conversion("{n} m", "Kilometer"),
        "g>kg": Conversion("{n} g", "Kilogramm"),
        "h>min": Conversion("{n} Stunden", "Minuten"),
        "min>s": Conversion("{n} Minuten", "Sekunden"),
        "week>day": Conversion("{n} Wochen", "Tage"),
    },
    days_between=("Wie viele Tage sind es von {date} bis {later}?", "Zähle die Tage zwischen {date} und {later}."),
    bought_on="Am {written} kaufte {name} {a} {thing}.",
    counting="Wir zählen: {row}.",
)
