"""What cannot be planned is said in one sentence with the way out: budget, machine, memory, interconnect, text, overrides that contradict."""

import re
import sys

import pytest

from hagane import cli
from hagane.errors import RecipeError
from hagane.plan.machines import cluster
from hagane.plan.search import best_layouts
from hagane.plan.workload import from_shape
from hagane.recipe.types import Machine
from hagane.run import headline

MACHINE = Machine(name="a", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=827e9, bandwidth=72e9, power_watts=31.0, power_source="stated")
CASES = {
    "plan quickstart --budget 20s": r"too small to learn anything here\. The smallest useful one .* is \S+",
    "plan neurosynth-9 --budget 110s": r"leaves about \d+ optimizer steps .* The smallest useful budget is about \S+",
    "plan quickstart --budget 1000tokens": r"1,000 training tokens are too few .*\. The smallest useful number is 204,800 \(--budget 204800tokens\)",
    "plan quickstart --budget 1USD": r"needs the price of this machine: --set execution\.price_per_hour",
    "plan quickstart --budget soon": r"soon",
    "plan llm-jp-4-8b --machine 8xH10 --budget 1d": r"H10 is not in the machine table\. Nearest: H100",
    "plan llm-jp-4-8b --machine 1xRTX-4090 --budget 1d": r"0\.03 TB of memory .*: take 8 devices, not 1\.",
    "plan nordic --machine 8xH100 --budget 1d --corpus no/such/folder": r"corpus source corpus: there is no file or folder",
    "plan nordic --machine 8xH100 --budget 1s": r"too small to learn anything on 8xH100: it takes 100 optimizer steps.* The smallest useful one .* about \d+s",
    "plan nordic --machine 8xH100 --budget 10tokens": r"too small to learn anything .* The smallest useful one .* about 210000tokens",
    "plan ax-k1 --machine 64xB200 --budget 1e12FLOP": r"too small to learn anything .* The smallest useful one .* about \S+FLOP",
    "plan llm-jp-4-8b --machine 8xH100 --budget 1e30FLOP": r"would take .* years on this machine, .* Give a smaller one, or a larger machine",
    "plan ax-k1 --machine 64xB200 --budget 9d --set execution.layout={tensor=3}": r"layout = \{tensor = 3\} is not possible: 3 devices .* not 64\. Change it",
    "plan ax-k1 --machine 64xB200 --budget 9d --set execution.layout.expert=7": r"expert = 7 does not divide the 192 experts\. Change it",
    "plan ax-k1 --machine 1024xH100 --budget 9d --set execution.layout={zero=1,tensor=1,pipeline=1}": r"no division .* with execution\.layout = .* lacks ",
    "plan ax-k1 --machine 64xA100 --budget 9d --set execution.layout.precision=fp8": r"A100 has no fp8 matrix units\. It has:",
    "plan llm-jp-4-8b --machine 64xH100 --budget 9d --set train.rows=3 --set execution.layout.data=2": r"is not possible: .* its part of a step of 3 rows",
    "plan nordic --budget 1e30FLOP": r"would take .* years on this machine, .* Give a smaller one, or a larger machine",
    "plan nordic --machine 8xH100": r"Give --budget, for example 21d",
    "plan quickstart --budget 2h --set train.tokens=500000000": r"budget = '2h' and train\.tokens = 500000000 are two dials; give one of them",
    "plan ax-k1 --budget 2h --set model.size.num_layers=1": r"num_layers = 1 is too few for model\.pattern\.dense_layers = 1\. Take 2 layers",
    "plan ax-k1 --budget 2h --set model.size.num_kv_heads=2": r"num_kv_heads = 2 is of grouped-query attention, but .* = 'latent'\. Leave it out",
    "plan llm-jp-4-8b --machine 8xH100 --budget 1d --serve-tokens 1T": r"too small .* after serving 1e\+12 tokens: .* The smallest useful one .* about \d+d",
    "plan nordic --machine 8xH100 --budget 1d --serve-tokens 900T": r"takes all of 1d on 8xH100, even with the smallest model .* fewer --serve-tokens",
    "plan nordic --machine 8xH100 --budget 1Btokens --serve-tokens 1T": r"divides a budget between training and serving\. Give --budget as time",
    "plan nordic --budget 2h --set model.pattern.head_dim=9": r"model\.pattern: head_dim = 9 must be even",
    "plan nordic --budget 2h --set model.size.num_layers=1000000000": r"model\.size\.num_layers = 1000000000: .* less than or equal to 2000",
    "plan neurosynth-9 --claim --budget 2h": r"--claim judges published facts as they are; leave out",
    "plan quickstart --budget 2h --set model.pattern.gated_norm_rank=4": r"No published architecture can hold .* qwen3 has no gates on its norms",
    "plan llm-jp-4-8b --set model.pattern.gated_norm_rank=4": r"llama has no gates on its norms",
    "plan llm-jp-4-8b --machine 64xH100 --budget 21d --set model.pattern.sandwich_norms=true": r"llama has no norm after the mixer",
    "plan ax-k1 --budget 2h --set release.gguf=true": r"release\.gguf = true cannot be done: llama\.cpp does not know axk1\. .*Set it to false",
    "plan nordic --budget 2h --set model.pattern.top_k=9 --set model.pattern.num_experts=8": r"top_k = 9 is more than num_experts = 8: lower it",
    "plan nordic --budget 2h --set model.size.num_heads=6 --set model.size.num_kv_heads=4": r"num_heads = 6 is not a multiple .* = 4, .* change one of them",
    "plan nordic --budget 2h --set model.pattern.deltas=3 --set model.size.num_layers=2": r"num_layers = 2 leaves no layer of attention: .* Take 4 layers",
    "plan nordic --budget 2h --set model.pattern.window=64 --set model.size.num_layers=2": r"num_layers = 2 is too few for model\.pattern\.full_every = 4",
    "plan nordic --budget 1e400FLOP": r"budget '1e400FLOP' is more than a number can hold\. Give a smaller one",
    "plan nordic --machine 8xH100 --budget 1e400h": r"budget '1e400h' is more than a number can hold",
    "plan nordic --budget 2h --serve-tokens 1e400": r"--serve-tokens 1e400 is not a number of tokens\. Write for example",
    "plan nordic --budget 2h --set budget=3h": r"--budget 2h and --set budget=3h are two budgets; give one of them",
    "plan nordic --budget 2h --set train.learning_rate=100": r"train\.learning_rate = 100.*less than or equal to 1",
    "plan nordic --budget 2h --set execution.goodput=0.5": r"execution\.goodput is of a machine of the table, .* Give --machine, or leave it out",
    "plan nordic --budget 2h --set execution.layout={tensor=2}": r"execution\.layout is of a machine of the table",
    "plan llm-jp-4-8b --machine 64H200 --budget 2d": r"64H200 is not in the machine table\. Did you mean 64xH200\?",
    "plan llm-jp-4-8b --machine 64xH200 --budget 2d --set execution.layout.expert=8": r"expert = 8 is of experts, and this model has none",
    "plan nowhere --budget 2h": r"nowhere",
}


@pytest.mark.parametrize("line", CASES)
def test_one_sentence_and_the_way_out(line, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("hagane.preview.profile", lambda device, threads: MACHINE)
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["hagane", *line.split(), "--json", str(tmp_path / "plan.json")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and re.search(CASES[line], said.err), said.err
    assert said.err.strip().count("\n") == 0 and "Traceback" not in said.err and not said.out
    assert not list(tmp_path.glob("plan.json*")), "nothing is written"


def test_devices_without_a_link_cannot_train_together():
    work = from_shape(num_layers=4, hidden=1024, width=512, context=512, vocabulary_size=4096, num_heads=8, head_dim=64)
    alone = cluster("4xRTX-4090")
    device = alone.accelerator.model_copy(update={"devices_per_node": 1, "intra_bandwidth": 0.0, "inter_bandwidth": 0.0})
    with pytest.raises(RecipeError, match="has no link to another device, so only one of them can train"):
        best_layouts(work, alone.model_copy(update={"accelerator": device}), 2**16)


def test_text_that_is_read_again_and_again_is_said():
    languages = {"sv": {"bytes": 1_000_000, "read_bytes": 40_000_000}, "smj": {"bytes": 1_000_000, "read_bytes": 20_000_000}}
    facts = {
        "num_parameters": 2e6, "num_active_parameters": 2e6, "model": {"width": 192, "layers": [0]}, "vocabulary_size": 4096, "tokens": 10**7,
        "expected_tokens": 10**7, "predicted": {"bits_per_byte": 2.0, "low": 1.9, "high": 2.1},
    }  # fmt: skip
    assert "the text is read 30 times, and more of it would teach more (corpus: 2.0 MB)" in headline("plan", {**facts, "languages": languages})
    ends = headline("plan", {**facts, "languages": languages, "unused_seconds": 3600.0})
    assert ends.endswith("; then all text was read corpus.max_repeats times, and 1h of the budget are left")
    assert "read" not in headline("plan", {**facts, "languages": {"sv": {"bytes": 1_000_000, "read_bytes": 1_000_000}}})
