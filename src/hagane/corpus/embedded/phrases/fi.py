"""Finnish. Nouns are in the partitive, as after any number but 1 and after montako; owners in the adessive (Annalla on)."""

from hagane.corpus.embedded.phrases.form import Conversion, Phrases, Thing

PHRASES = Phrases(
    number_to_words=("Kirjoita {n} kirjaimin.", "Miten {n} kirjoitetaan kirjaimin?", "Kirjoita luku {n} sanoin."),
    words_to_number=("Kirjoita {w} numeroin.", "Mikä luku on {w}?", "Ilmaise numeroin: {w}"),
    months=("tammikuuta", "helmikuuta", "maaliskuuta", "huhtikuuta", "toukokuuta", "kesäkuuta",
            "heinäkuuta", "elokuuta", "syyskuuta", "lokakuuta", "marraskuuta", "joulukuuta"),
    date="{day}. {month} {year}",
    date_to_written=("Kirjoita päivämäärä {date} kuukauden nimellä.", "Mikä päivä on {date}? Kirjoita kuukausi sanana."),
    date_to_iso=("Kirjoita päivämäärä {written} ISO-muodossa.", "Ilmaise {written} muodossa vuosi-kuukausi-päivä."),
    comparison=("Kumpi luku on suurempi, {a} vai {b}?", "Valitse suurempi luku: {a} vai {b}", "Kumpi luvuista {a} ja {b} on suurempi?"),
    addition=("Paljonko on {a} + {b}?", "Laske {a} + {b}.", "Laske yhteen {a} ja {b}."),
    subtraction=("Paljonko on {a} - {b}?", "Laske {a} - {b}.", "Mikä on erotus {a} - {b}?"),
    multiplication=("Paljonko on {a} × {b}?", "Laske {a} × {b}.", "Mikä on tulo {a} × {b}?"),
    stories={
        "gain_loss": (
            "{owner} on {a} {thing}. {name} ostaa {b} lisää ja antaa pois {c}. Montako {thing} {owner} on nyt?",
            "Pöydällä on {a} {thing}. {name} lisää {b} ja ottaa pois {c}. Montako {thing} pöydällä on nyt?",
        ),
        "loss_gain": (
            "{owner} on {a} {thing}. {name} antaa pois {b} ja ostaa {c} lisää. Montako {thing} {owner} on nyt?",
            "Pöydällä on {a} {thing}. {name} ottaa pois {b} ja lisää {c}. Montako {thing} pöydällä on nyt?",
        ),
        "boxes_gain": ("{owner} on {b} laatikkoa. Jokaisessa laatikossa on {a} {thing}. {name} ostaa {c} {thing} lisää. Montako {thing} {owner} on nyt?",),
        "boxes_loss": ("{owner} on {b} laatikkoa. Jokaisessa laatikossa on {a} {thing}. {name} antaa pois {c} {thing}. Montako {thing} {owner} on nyt?",),
    },
    names=("Anna", "Mika", "Sara", "Leo", "Emma"),
    owners=("Annalla", "Mikalla", "Saralla", "Leolla", "Emmalla"),
    things=(Thing("omenaa"), Thing("munaa"), Thing("kynttilää"), Thing("korttia"), Thing("kukkaa")),
    units=("Montako {target} on {source}?", "Täydennä: {source} = ? {target}"),
    conversions={
        "m>cm": Conversion("{n} m", "senttimetriä"),
        "km>m": Conversion("{n} km", "metriä"),
        "cm>mm": Conversion("{n} cm", "millimetriä"),
        "kg>g": Conversion("{n} kg", "grammaa"),
        "l>dl": Conversion("{n} litraa", "desilitraa"),
        "cm>m": Conversion("{n} cm", "metriä"),
        "m>km": Conversion("{n} m", "kilometriä"),
        "g>kg": Conversion("{n} g", "kilogrammaa"),
        "h>min": Conversion("{n} tuntia", "minuuttia"),
        "min>s": Conversion("{n} minuuttia", "sekuntia"),
        "week>day": Conversion("{n} viikkoa", "päivää"),
    },
    days_between=("Montako päivää on päivämäärästä {date} päivämäärään {later}?", "Montako päivää on päivämäärien {date} ja {later} välillä?"),
    bought_on="{written} {name} osti {a} {thing}.",
    counting="Laskemme: {row}.",
)
