import io
import json

import pytest
from rich.console import Console

from hagane.engine.generate import generate
from hagane.engine.reply import ReplyStream
from hagane.errors import RunError
from hagane.hosts import HOSTS
from hagane.release.huggingface import release_huggingface, write_weights
from hagane.serve import chat as module
from hagane.serve.chat import Session, _Printer, chat, find_model
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.save import save_for_transformers
from toy_models import randomised, save_model, toy_config, toy_decoder, toy_tokenizer


@pytest.fixture
def run(tmp_path):
    """A run folder with a tuned model."""
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    save_model(tmp_path / "tune" / "supervised", toy_decoder())
    return tmp_path


@pytest.fixture
def says(monkeypatch):
    """says(text, ...) -> the model gives these outputs, one after the other, through its tokens; returns the prompts it was given."""

    def script(*outputs):
        encoder, special, pending, prompts = plain(toy_tokenizer()), special_ids(toy_tokenizer()), list(outputs), []

        def speak(decoder, asked, limit, stop_ids, *_, on_tokens, drafts=None):
            prompts.append(toy_tokenizer().decode(asked[0], skip_special_tokens=False))
            ids = []
            for part in pending.pop(0).replace("</think>", "|</think>|").split("|"):
                ids += [special[part]] if part in special else encoder.encode(part).ids
            ids.append(special["<|im_end|>"])
            for token in ids:
                on_tokens([0], [token])
            return [ids]

        monkeypatch.setattr(module, "generate", speak)
        return prompts

    return script


def test_one_shot_prints_thinking_and_answer_and_nothing_else(run, says, capsys):
    says("12 + 3 = 15\n</think>\n\n15")
    chat(run, prompt="What is 12 + 3?")
    assert capsys.readouterr().out == "12 + 3 = 15\n15\n"


def test_a_piped_conversation_with_commands(run, says, capsys):
    prompts = says("hm</think>\n\nåtta", "åtta", "nio", "ten")
    lines = "What is 8?\n/plain\n\nand plainly?\n/nonsense\nonce more\n/reset\n/help\nlast\n/quit\nnever asked\n"
    chat(run, source=io.StringIO(lines))
    captured = capsys.readouterr()
    assert captured.out == "hm\nåtta\nåtta\nnio\nten\n"
    assert "/nonsense is not a command" in captured.err and "plain mode" in captured.err and "/reset" in captured.err
    assert prompts[0].endswith("<think>\n") and prompts[1].endswith("</think>\n\n")
    assert "åtta<|im_end|>" in prompts[1] and "hm" not in prompts[1], "earlier answers are shown without their thinking"
    assert prompts[3].count("<|im_start|>user") == 1, "the conversation was forgotten"


def test_the_end_of_input_ends_the_conversation(run, says, capsys):
    says("x")
    chat(run, source=io.StringIO("hello"), thinking=False)
    assert capsys.readouterr().out == "x\n"


def test_the_real_model_streams_what_it_generates(run, capsys):
    chat(run, prompt="12 birds", thinking=False, max_new_tokens=64)
    model = find_model(run)
    session = Session(model, thinking=False)
    prompt = session.encoder.prompt([{"role": "user", "content": "12 birds"}], False)
    stream, text = ReplyStream(model.tokenizer, thinking=False), ""
    (ids,) = generate(model.decoder, [prompt], 64, [session.encoder.special["<|im_end|>"], session.encoder.special["<|endoftext|>"]])
    for token in ids:
        text += stream.step(token)[0]
    assert capsys.readouterr().out.split() == text.split() != []


def test_drafts_change_no_answer_and_are_counted(run, capsys):
    """The release of such a model leaves the module out: the trained weights are taken instead."""
    config = toy_config()
    drafting = randomised(config.model_copy(update={"mtp_layers": config.layers[-1:]}))
    save_model(run / "tune" / "supervised", drafting)
    chat(run, prompt="hello", max_new_tokens=24)
    plain_answer = capsys.readouterr().out
    chat(run, prompt="hello", max_new_tokens=24, drafts=True)
    shown = capsys.readouterr()
    assert shown.out == plain_answer and "drafts accepted so far" in shown.err
    release = run / "release" / "huggingface"
    release.parent.mkdir()
    host = HOSTS["qwen3"]
    release.mkdir()
    (release / "config.json").write_text(json.dumps(host.config_to_host(config, {})))
    write_weights(release, dict(host.weights.weights_to_host(dict(drafting.named_parameters()), config)))
    assert find_model(run, drafts=True).name == "tune/supervised"
    with pytest.raises(RunError, match=r"--drafts are of greedy answers"):
        chat(run, prompt="hello", temperature=0.5, drafts=True)
    with pytest.raises(RunError, match=r"has no module that drafts"):
        find_model(release, drafts=True)
    save_model(run / "tune" / "supervised", toy_decoder())
    with pytest.raises(RunError, match=r"mtp_layers = 1, or leave out --drafts"):
        find_model(run, drafts=True)


def test_old_turns_are_forgotten_when_the_context_is_full(run, says):
    says(*["word " * 10] * 6)
    session = Session(find_model(run), thinking=False)
    for number in range(6):
        session.ask(f"question {number} " + "The cat " * 6)
    assert len(session.messages) < 12 and session.messages[-2]["content"].startswith("question 5")


def test_the_model_is_found_in_the_order_of_finish(run, tmp_path):
    assert find_model(run).name == "tune/supervised" and find_model(run).tuned
    release_huggingface(dict(toy_decoder().named_parameters()), toy_decoder().config, run / "encode", run / "release" / "huggingface")
    assert find_model(run).name == "huggingface" and find_model(run).tuned
    assert find_model(run / "release" / "huggingface").tuned


def test_a_base_model_says_that_it_was_not_tuned(tmp_path, says, capsys):
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
    save_model(tmp_path / "pretrain", toy_decoder())
    says("x")
    chat(tmp_path, prompt="hello", thinking=False)
    assert "not tuned" in capsys.readouterr().err


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(RunError, match="no folder"):
        chat(tmp_path / "nowhere", prompt="x")
    with pytest.raises(RunError, match="no trained model yet"):
        chat(tmp_path, prompt="x")


def test_input_that_is_not_text_is_an_error(run):
    source = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8")
    with pytest.raises(RunError, match="not UTF-8"):
        chat(run, source=source)


def test_a_terminal_shows_thinking_dim():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    printer = _Printer(console)
    for piece, thinking in (("1 + 1", True), (" = 2\n", True), ("", False), ("\n\n2", False)):
        printer.write(piece, thinking)
    printer.end()
    assert console.file.getvalue() == "\x1b[2m1 + 1\x1b[0m\x1b[2m = 2\x1b[0m\n2\n"
