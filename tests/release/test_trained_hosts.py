"""A trained model of every host, released with its tokenizer and chat template: transformers goes on with every text as we do, token for token.

What rounding to bfloat16 changes of the masters' own text is a tie. llama.cpp, where it knows the host, gives the same distributions.

Trained, because greedy text of random weights decides between tokens that are hardly apart, or repeats one.
"""

from functools import cache

import pytest
import torch

from hagane.corpus.embedded import documents, parallel_sentences
from hagane.engine.generate import generate
from hagane.engine.load import build_decoder, load_huggingface
from hagane.hosts import HOSTS
from hagane.hosts.gguf import missing_tools
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence
from hagane.release.gguf import Identity, release_gguf
from hagane.release.huggingface import release_huggingface
from hagane.tokenizer.bpe import special_ids, train_tokenizer
from hagane.tokenizer.chat import render
from hagane.tokenizer.save import save_for_transformers
from hagane.tokenizer.special import END_OF_TEXT, IM_END
from toy_hosts import CONFIGS

transformers = pytest.importorskip("transformers")
LANGUAGES = ("en", "sv", "fi", "ja", "ko")
STEPS, ROWS, LENGTH, NEW_TOKENS = 300, 16, 48, 24
ORDERS = {"qwen3_next": 2}  # of its text: in three of ten tried, routers end so near to ties that half precision decides at 5 to 7 of 118 places


@cache
def texts():
    return [record["text"] for language in LANGUAGES for record in documents(0, language, 40_000)]


@cache
def tokenizer():
    return train_tokenizer(texts(), 640)


def trained(config, order=0):
    """A few hundred steps on worked problems in five languages; the loss before and after."""
    end = special_ids(tokenizer())[END_OF_TEXT]
    stream = torch.tensor([token for text in texts() for token in [*tokenizer().encode(text, add_special_tokens=False).ids, end]])
    model, generator = Decoder(config), torch.Generator().manual_seed(order)
    model.init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, fused=True)
    losses = []
    for step in range(STEPS):
        start_B = torch.randint(0, len(stream) - LENGTH - 1, (ROWS,), generator=generator)
        token_BT = stream[start_B[:, None] + torch.arange(LENGTH + 1)]
        outputs = model(token_BT[:, :-1], Sequence.plain(ROWS, LENGTH))
        count = ROWS * LENGTH
        loss = model.head.nll_sum(outputs.hidden_BTD, token_BT[:, 1:], torch.ones(ROWS, LENGTH)) / count
        (loss + model.auxiliary_loss_sum(outputs.stats) / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20, (STEPS - step) / 100)
        optimizer.step()
        optimizer.zero_grad()
        model.router_step(outputs.stats.detached())
        losses.append(float(loss.detach()))
    state = {**{name: parameter.detach() for name, parameter in model.named_parameters()}, **model.selection_biases()}
    return state, sum(losses[:5]) / 5, sum(losses[-20:]) / 20


def prompts():
    """Twenty: in each language the beginnings of three held-out sentences, and a question in the form of the chat template."""
    sentences = parallel_sentences(4)
    begun = [sentence[language][: 12 if language in ("ja", "ko") else 24] for sentence in sentences[:3] for language in LANGUAGES]
    return [*begun, *(render([{"role": "user", "content": sentences[3][language][:40]}], language in ("en", "ja")) for language in LANGUAGES)]


def keeps_the_greedy_text(master, rows, exported, rounding):
    """The float32 masters go on with the text of the bfloat16 export, except from a place where two tokens are less apart to them than rounding moves logits.

    Such ties are in 0 to 3 of 20 texts, 21 of all 200 (docs/notebook.md, "GGUF"); `rounding` was measured on other prompts.
    """
    for indexer in master.indexers():
        indexer.library_ties = True
    special, parted = special_ids(tokenizer()), 0
    texts = generate(master, rows, NEW_TOKENS, [special[IM_END], special[END_OF_TEXT]], batch_size=1 if any(True for _ in master.indexers()) else len(rows))
    for ids, text, other in zip(rows, texts, exported, strict=True):
        if text == other:
            continue
        parted += 1
        place = next(index for index, (one, two) in enumerate(zip(text, other)) if one != two)
        token_BT = torch.tensor([[*ids, *text[:place]]])
        with torch.inference_mode():
            logits_V = master.head.logits(master(token_BT, Sequence.plain(*token_BT.shape)).hidden_BTD)[0, -1]
        assert 0 <= logits_V[text[place]] - logits_V[other[place]] < rounding, f"token {place + 1}"
    assert parted <= 4


@pytest.mark.slow
@pytest.mark.parametrize("host", CONFIGS)
def test_a_trained_model_goes_on_the_same_in_transformers(tmp_path, host):
    config = CONFIGS[host].model_copy(update={"vocabulary_size": 640, "init_std": 0.05})
    state, before, after = trained(config, ORDERS.get(host, 0))
    assert after < before - 2.5, "it has learned something: from the log of 640 to below"
    save_for_transformers(tokenizer(), tmp_path / "encode", config.context)
    facts = release_huggingface(state, config, tmp_path / "encode", tmp_path / "release")
    assert facts.host == host
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "release", dtype=torch.float32).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "release")
    ours, _ = load_huggingface(tmp_path / "release")
    for indexer in ours.indexers():
        indexer.library_ties = True
    rows = [tokenizer().encode(prompt, add_special_tokens=False).ids for prompt in prompts()]
    assert len(rows) == 20 and rows == [their_tokenizer(prompt)["input_ids"] for prompt in prompts()]
    special = special_ids(tokenizer())
    together = 1 if any(True for _ in ours.indexers()) else len(rows)
    mine = generate(ours, rows, NEW_TOKENS, [special[IM_END], special[END_OF_TEXT]], batch_size=together)
    for prompt, ids, text in zip(prompts(), rows, mine, strict=True):
        output = theirs.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64), max_new_tokens=NEW_TOKENS)
        assert output[0, len(ids) :].tolist() == text, f"{host}: {prompt!r}"
    keeps_the_greedy_text(build_decoder(config, state), rows, mine, facts.rounding_logit_gap)
    if HOSTS[host].gguf is not None and missing_tools() is None:
        texts = [text for sentence in parallel_sentences(5) for text in sentence.values()]
        half, eight = release_gguf(state, config, host, tokenizer(), tmp_path / "gguf", Identity("toy"), texts).files
        assert half.steady_kl_bits_per_token < 1e-5 and half.unsteady <= 0.05 * half.positions and half.greedy_tokens > 100, half
        assert eight.kl_bits_per_token < 0.01, eight
    assert len({tuple(text) for text in mine}) > 5 and sum(map(len, mine)) > 200, "texts of their own, not one for all"
