"""Hidden numbers: texts are as long as they say, what is asked stands in them once, and who knows the answer finds it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.embedded import LANGUAGES, hidden
from hagane.engine.generate import generate
from hagane.errors import RecipeError
from hagane.evaluate.bits_per_byte import HeldOut
from hagane.evaluate.retrieval import KINDS, depths, find, haystacks, make_item, retrieval
from hagane.model.decoder import Decoder
from hagane.model.extend import extended
from hagane.recipe.schema import RetrievalSettings
from hagane.tokenizer.bpe import plain
from toy_models import toy_config, toy_decoder, toy_tokenizer

TOKENIZER = toy_tokenizer()
STACKS = haystacks(TOKENIZER, LANGUAGES, [HeldOut("one.en", "en", ("A line of text.\nAnother one, and 12 more.\n" * 400,))], 600)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(sorted(LANGUAGES)), st.integers(200, 600), st.floats(0, 1), st.integers(0, 50))
def test_a_text_has_its_length_and_its_number_where_it_should(kind, language, length, depth, number):
    item = make_item(TOKENIZER, STACKS[kind, language], kind, language, length, depth, number)
    found = hidden(kind, language, f"{length}/{depth:.3f}/{number}")
    assert len(item.ids) == length
    text = TOKENIZER.decode(item.ids[1:])
    assert text.endswith(found.question + found.answer), "the text ends with the answer"
    assert text.count(f"{found.sentence}\n") == 1
    assert TOKENIZER.decode(item.ids[-item.num_answer :]) == found.answer
    sentence = plain(TOKENIZER).encode(f"{found.sentence}\n", add_special_tokens=False).ids
    at = next(index for index in range(length) if item.ids[index : index + len(sentence)] == sentence)
    lines = STACKS[kind, language]._lines
    assert abs(at - 1 - depth * (length - len(sentence) - 12)) <= max(map(len, lines)) + 30, "at a line's end next to its depth"


def test_hidden_sentences_are_sentences_in_every_language():
    for language in LANGUAGES:
        for kind, digits in (("passkey", 5), ("needle", 3)):
            found = [hidden(kind, language, str(index)) for index in range(20)]
            assert len({item.answer for item in found}) > 15 and all(len(item.answer) == digits and item.answer.isdigit() for item in found)
            assert all(item.sentence.startswith(item.question + item.answer) and len(item.sentence) > len(item.question) + digits for item in found)


def test_held_out_text_is_the_haystack_where_there_is_enough():
    assert TOKENIZER.decode(STACKS["needle", "en"].take(0, 40)[0]).startswith("A line of text.\nAnother one")
    assert "A line" not in TOKENIZER.decode(STACKS["needle", "sv"].take(0, 40)[0])


def test_only_first_choices_are_right():
    """A model without depth that says digit after digit finds exactly what it says."""
    items = [make_item(TOKENIZER, STACKS["passkey", "en"], "passkey", "en", 200, depth, number) for depth in depths(3) for number in range(4)]
    decoder = toy_decoder()
    generated = generate(decoder, [item.ids[: -item.num_answer] for item in items], items[0].num_answer, [])
    greedy = [tokens == item.ids[-item.num_answer :] for tokens, item in zip(generated, items)]
    assert find(decoder, items) == greedy
    told = [item.__class__(item.kind, item.language, item.length, item.depth, [*item.ids[: -item.num_answer], *tokens], item.num_answer)
            for tokens, item in zip(generated, items)]  # fmt: skip
    assert find(decoder, told) == [True] * len(items), "what greedy decoding says through the cache is right for the forward pass"


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_an_extended_model_decodes_with_its_cache_as_it_reads(method):
    config = extended(toy_config(), 8, method)
    decoder = Decoder(config)
    decoder.load_state_dict(toy_decoder().state_dict())
    decoder.eval().requires_grad_(False)
    items = [make_item(TOKENIZER, STACKS["needle", "ja"], "needle", "ja", 600, depth, 0) for depth in depths(2)]
    generated = generate(decoder, [item.ids[: -item.num_answer] for item in items], 3, [])
    told = [item.__class__(item.kind, item.language, item.length, item.depth, [*item.ids[: -item.num_answer], *tokens], 3)
            for tokens, item in zip(generated, items)]  # fmt: skip
    assert config.context == 8 * 192 and find(decoder, told) == [True, True]


def test_cells_are_counted_by_kind_language_length_and_depth():
    wanted = RetrievalSettings(lengths=(256, 200), depths=2, items=3, languages=("sv", "ja"))
    cells = retrieval(toy_decoder(), TOKENIZER, wanted, ("en",))
    assert [(cell.length, cell.kind, cell.language, cell.depth) for cell in cells] == [
        (length, kind, language, depth) for length in (200, 256) for kind in KINDS for language in ("sv", "ja") for depth in (0.0, 1.0)
    ]
    assert all(cell.total == 3 and 0 <= cell.low <= cell.correct / 3 <= cell.high <= 1 for cell in cells)
    assert retrieval(toy_decoder(), TOKENIZER, RetrievalSettings(), ("en",)) == ()


def test_a_text_too_short_for_its_number_is_refused():
    with pytest.raises(RecipeError, match=r"evaluate.retrieval.lengths has 64, but the needle in ja alone takes \d+ tokens"):
        retrieval(toy_decoder(), TOKENIZER, RetrievalSettings(lengths=(64,), languages=("ja",)), ())
    with pytest.raises(ValueError, match="at least 64"):
        RetrievalSettings(lengths=(40, 300))


@pytest.mark.slow
def test_a_tiny_model_learns_to_find_a_passkey():
    """Two layers learn it on texts of 64 tokens with other keys; before that, none is found."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    config = toy_config().model_copy(update={"init_std": 0.05, "width": 64})
    decoder = Decoder(config)
    decoder.init_weights(0)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3, weight_decay=0.0)
    stack = STACKS["passkey", "en"]
    test = [make_item(TOKENIZER, stack, "passkey", "en", 96, depth, number) for depth in depths(4) for number in range(1000, 1016)]
    assert sum(find(decoder, test)) == 0
    from hagane.model.sequence import Sequence

    pool = [make_item(TOKENIZER, stack, "passkey", "en", 96, float(torch.rand((), generator=generator)), number) for number in range(768)]
    ids_NT = torch.tensor([item.ids for item in pool])
    num_answer = pool[0].num_answer
    for step in range(500):
        batch_BT = ids_NT[torch.randint(len(pool), (32,), generator=generator)]
        hidden_BTD = decoder(batch_BT[:, :-1], Sequence.plain(32, batch_BT.shape[1] - 1)).hidden_BTD[:, -num_answer:]
        loss = -decoder.head.token_logprobs(hidden_BTD, batch_BT[:, -num_answer:]).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, (500 - step) / 100)
        optimizer.step()
    assert sum(find(decoder.eval(), test)) >= 0.9 * len(test)
