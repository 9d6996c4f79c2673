"""A checkpoint whose weights and tokenizer do not belong together is told by what it expects of text."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer

from hagane.errors import RunError
from hagane.evaluate.bits_per_byte import HeldOut
from hagane.hosts import HOSTS
from hagane.measure import start
from hagane.model.decoder import Decoder
from hagane.recipe.load import validate
from hagane.release.huggingface import write_config, write_weights
from toy_models import toy_config, toy_tokenizer

TEXTS = {
    "en": "The cat sat on the mat and 12 birds sang. What is 1234 + 987? The birds sang and the cat sat.",
    "ja": "三千四百二十一と書いてください。千二百と三千四百を書いてください。",
    "sv": "Hur många dagar är det till den 3 mars? Det är många dagar till mars.",
}
RARE = 1e-6


def expecting(*languages):
    """Weights that know how often every token comes in these languages, and nothing else: they add nothing to an embedding that is the same for all tokens."""
    counts_V = torch.zeros(320)
    for language in languages:
        counts_V += torch.bincount(torch.tensor(toy_tokenizer().encode(TEXTS[language], add_special_tokens=False).ids), minlength=320)
    decoder = Decoder(toy_config("dense", qk_norm=False, tied=False))
    state = {name: torch.zeros_like(parameter) if parameter.dim() > 1 else torch.ones_like(parameter) for name, parameter in decoder.named_parameters()}
    width = state["embedding.weight"].shape[1]
    state["embedding.weight"] += 1
    state["head.weight"] += (counts_V / counts_V.sum() + RARE).log()[:, None] / width
    return state


def untrained():
    decoder = Decoder(toy_config("dense", qk_norm=False, tied=False).model_copy(update={"init_std": 0.02}))
    decoder.init_weights(0)
    return {name: parameter.detach() for name, parameter in decoder.named_parameters()}


def another_tokenizer():
    """One with as many ids, in another order."""
    description = json.loads(toy_tokenizer().to_str())
    special = {token["id"] for token in description["added_tokens"]}
    plain = [number for number in sorted(description["model"]["vocab"].values()) if number not in special]
    order = dict(zip(plain, reversed(plain)))
    description["model"]["vocab"] = {token: order.get(number, number) for token, number in description["model"]["vocab"].items()}
    return Tokenizer.from_str(json.dumps(description))


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """What is said of a checkpoint with these weights and this tokenizer, on a corpus of these languages."""

    def check(state, tokenizer, languages, known=()):
        config, said = toy_config("dense", qk_norm=False, tied=False), []
        write_config(tmp_path, HOSTS["llama"].config_to_host(config, {"eos_token_id": tokenizer.token_to_id("<|im_end|>")}), tokenizer, "float32")
        write_weights(tmp_path, dict(HOSTS["llama"].weights.weights_to_host(state, config)))
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        monkeypatch.setattr(start, "read_held_out", lambda *_: [HeldOut(f"corpus.{language}", language, (TEXTS[language],)) for language in languages])
        recipe = validate({"name": "x", "train": {"context": 64}, "start": {"from": str(tmp_path), "languages": known}}, "test")
        run = SimpleNamespace(recipe=recipe, seed=0, machine=SimpleNamespace(device="cpu"), path=lambda stage: tmp_path / stage, say=said.append)
        start.refuse_strangers(run, tmp_path)
        return said

    return check


def test_weights_that_know_the_text_are_taken_in_silence(checked):
    assert checked(expecting(*TEXTS), toy_tokenizer(), TEXTS) == []
    assert checked(expecting(*TEXTS), toy_tokenizer(), ("sv",), known=["sv"]) == []


def test_untrained_weights_are_about_at_chance_and_taken(checked):
    assert checked(untrained(), toy_tokenizer(), TEXTS) == [] and checked(untrained(), another_tokenizer(), TEXTS) == []


def test_another_models_tokenizer_of_the_right_size_is_refused(checked):
    with pytest.raises(RunError, match=r"needs 1\d\.\d bits or more .* of en, ja, sv, and chance needs 8\.3: .* do not belong") as refused:
        checked(expecting(*TEXTS), another_tokenizer(), TEXTS)
    assert "\n" not in str(refused.value)


def test_of_a_single_language_english_and_code_tell(checked, monkeypatch):
    """As strange to it as the corpus: refused. Known: the language is new to it, and that is said."""
    with pytest.raises(RunError, match=r"each of sv, [\w, -]*(en|code-python), and chance needs 8\.3: .* do not belong"):
        checked(expecting(*TEXTS), another_tokenizer(), ("sv",))
    monkeypatch.setattr(start, "_usual_text", lambda: [HeldOut("en", "en", (TEXTS["en"],))])
    (said,) = checked(expecting("en", "sv"), toy_tokenizer(), ("ja",))
    assert "bits for a token of text in ja, and chance needs 8.3: the language is new to it, or tokenizer.json is that of another model" in said


def test_the_usual_text_is_english_and_code():
    parts = {part.language: sum(map(len, part.texts)) for part in start._usual_text()}
    assert parts.keys() == {"en", "code-python"} and min(parts.values()) > 1000


def test_a_language_that_is_new_to_it_is_said_and_one_that_it_should_know_refused(checked):
    (said,) = checked(expecting("en", "sv"), toy_tokenizer(), TEXTS)
    assert "text in ja, and chance" in said
    with pytest.raises(RunError, match=r"text in ja, .* take ja out of start\.languages"):
        checked(expecting("en", "sv"), toy_tokenizer(), TEXTS, known=["en", "ja"])
