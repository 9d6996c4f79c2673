"""Precision and recall of masking on generated text, with what looks alike and must stay."""

import random
import uuid

import pytest
from stdnum import luhn
from stdnum.iso7064 import mod_97_10
from stdnum.no import fodselsnummer

from hagane.corpus.personal import mask

PERSONAL = [
    ("sv", "Skriv till anna.berg@foretag.se i dag", "email"),
    ("ja", "連絡先はtaro-y@kaisha.co.jpです", "email"),
    ("en", "Mail <j.doe+list@mail.provider.org>.", "email"),
    ("nb", "Ring +47 917 42 161 etter klokka ni", "phone"),
    ("nb", "Kontakt Kari, tlf. 78 47 40 00.", "phone"),
    ("sv", "Kontakt Sara Larsson, 070-378 88 24", "phone"),
    ("fi", "Lisätietoja: puh. 040 726 2688.", "phone"),
    ("ko", "문의 전화 02-312-3456 입니다", "phone"),
    ("ja", "電話03-3581-4321まで", "phone"),
    ("de", "Die Rufnummer ist +49 30 22736878", "phone"),
    ("en", "Call (202) 456-1111 today", "phone"),
    ("en", "card 4012 8888 8888 1881 expires", "card"),
    ("en", "pay with 378282246310005 now", "card"),
    ("fi", "tilinumero on: FI57 5645 0020 0098 33.", "iban"),
    ("de", "Konto DE89370400440532013000 bei der Bank", "iban"),
    ("sv", "personnummer 880320-0016 finns", "national_number"),
    ("fi", "henkilötunnus 131052-308T on", "national_number"),
    ("ko", "주민등록번호 971013-9019902 입니다", "national_number"),
    ("zh", "身份证号360426199101010071。", "national_number"),
    ("ja", "マイナンバーは123456789018です", "national_number"),
    ("fr", "numéro 2 95 10 99 126 111 93 de sécurité", "national_number"),
    ("en", "key AKIAIOSFODNN7EXAMPLE here", "secret"),
    ("code-python", "token = 'ghp_" + "a1B2" * 9 + "'", "secret"),
    ("en", "xoxb-" + "1234567890-1234567890-" + "AbCd3fGhIjKlMn0pQrStUvWx", "secret"),
    ("en", "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0B\n" * 4 + "-----END RSA PRIVATE KEY-----", "secret"),
]

ALIKE = [
    ("nb", "Ordre 12345678 ble sendt 2021-05-03 12:45"),
    ("en", "ISBN 978-0-306-40615-7 and ISBN 0306406152"),
    ("sv", "Artikel 7310-4821-1, diarienr 2019/01234, 556036-0793 kr"),
    ("en", "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("en", "commit 4012888888881881aabbccddeeff00112233445566778899"),
    ("en", "pi is 3.14159265358979323846 and e is 2.718281828459045"),
    ("de", "vom 01.02.2003 bis 04.05.2006, 12.345.678,90 EUR"),
    ("ja", "平成12年3月4日、1234567890円、2021-04-05"),
    ("ko", "1999년 12월 31일 12,345,678원 2020.01.02"),
    ("en", "https://example.org/item/4012888888881881?id=378282246310005"),
    ("en", "write to user@example.com or root@localhost, git@github.com:a/b.git, logo@2x.png"),
    ("en", "@decorator\ndef f(x): return x @ y"),
    ("fr", "le 01/02/2021, 01 02 20 21, 192.168.100.200"),
    ("en", "order 5105-1051-0510-5101, serial 4012888888881882"),
    ("en", "range 1000000-2000000, 10 000 000 people, 0.0000001"),
    ("zh", "2022年01月21日 法释〔2022〕2号 100000000000000000"),
    ("en", "eyJ and AKIA are prefixes; npm_config_registry; sk-learn"),
    ("en", "-----BEGIN PRIVATE KEY----- ... -----END PRIVATE KEY-----"),
]


@pytest.mark.parametrize(("language", "text", "kind"), PERSONAL)
def test_personal_data_is_masked(language, text, kind):
    masked, counts = mask(text, language)
    assert counts[kind] == 1
    assert f"<{kind.upper()}>" in masked


@pytest.mark.parametrize(("language", "text"), ALIKE)
def test_what_looks_alike_is_the_same_object(language, text):
    masked, counts = mask(text, language)
    assert not counts, masked
    assert masked is text


def test_generated_numbers_precision_and_recall():
    draws = random.Random(0)
    personal, alike = [], []
    for _ in range(200):
        day, month, year = draws.randrange(1, 29), draws.randrange(1, 13), draws.randrange(40, 99)
        while True:
            first = f"{day:02d}{month:02d}{year}{draws.randrange(0, 500):03d}"
            checks = fodselsnummer.calc_check_digit1(first), fodselsnummer.calc_check_digit2(first + fodselsnummer.calc_check_digit1(first))
            if "-" not in checks and fodselsnummer.is_valid(first + "".join(checks)):
                break
        card = f"4{draws.randrange(10**14):014d}"
        account = f"{draws.randrange(10**18):018d}"
        personal += [first + "".join(checks), card + luhn.calc_check_digit(card), f"DE{98 - int(account + '131400') % 97:02d}{account}"]
        alike += [
            f"{draws.randrange(10**8):08d}", f"{draws.randrange(10**10):010d}", str(uuid.UUID(int=draws.getrandbits(128))), f"{draws.getrandbits(160):040x}",
            f"978{draws.randrange(10**10):010d}", f"{draws.randrange(1900, 2030)}-{month:02d}-{day:02d}", f"{draws.randrange(10**12):012d}",
        ]  # fmt: skip
    assert mod_97_10.is_valid(personal[2][4:] + "1314" + personal[2][2:4])
    found = sum(bool(mask(f"Nummer: {number} er brukt", "nb")[1]) for number in personal)
    wrong = [number for number in alike if mask(f"Nummer: {number} er brukt", "nb")[1]]
    assert found / len(personal) >= 0.98
    assert len(wrong) / len(alike) <= 0.005, wrong


def test_problems_of_the_embedded_generator_are_left_as_they_are(tmp_path):
    from hagane.corpus.build import build_corpus
    from hagane.recipe.schema import CorpusSettings, Source

    facts = build_corpus([Source(name="problems", path=("embedded:problems",), language="en")], CorpusSettings(sample_bytes=100_000), tmp_path)
    assert facts.masked == {}
    assert facts.repaired == {}


def test_masking_is_counted_by_source_and_can_be_off(build, make, tmp_path):
    records = [make.record("sv", number) | {"text": f"Skriv till person{number}@foretag.se om sak nummer {number}, så svarar vi."} for number in range(5)]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", records)
    facts = build(tmp_path / "in", out="masked")
    assert facts.masked == {"text": {"email": 5}}
    assert all("<EMAIL>" in text for text in make.texts_of(tmp_path / "masked", facts)["train"])
    kept = build(tmp_path / "in", out="kept", personal_data="keep")
    assert kept.masked == {}
    assert all("@foretag.se" in text for text in make.texts_of(tmp_path / "kept", kept)["train"])
