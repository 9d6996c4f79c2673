"""A recipe says exactly what it means, or why it cannot."""

import pytest

from hagane.errors import RecipeError
from hagane.recipe.load import load_recipe, shipped_recipes
from hagane.recipe.new import write_recipe
from hagane.recipe.types import Budget, duration


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads(name):
    recipe, text = load_recipe(name)
    assert recipe.name == name and recipe.description and text.startswith("#")


WRONG_PATTERNS = [
    ('score = "sigmoid"', "score = sigmoid is of experts"),
    ("shared_experts = 1", "shared_experts = 1 is of experts"),
    ("dense_layers = 1", "dense_layers = 1 is of experts"),
    ("null_experts = 2", "null_experts = 2 is of experts"),
    ("entropy_clamp = true", "entropy_clamp = True is of experts"),
    ('ffn = "experts"\nmean_experts = 1.0', "null_experts is 0"),
    ('ffn = "experts"\nnull_experts = 4\nmean_experts = 2.5', "must be above 0 and below top_k 2"),
    ('ffn = "experts"\nmarginal_entropy_low = 0.8', "is of clamping, but entropy_clamp = false"),
    ('ffn = "experts"\nentropy_clamp = true\nconditional_entropy_low = 0.97', "must be below 0.95"),
    ("num_groups = 2", "num_groups = 2 is of experts"),
    ('ffn = "experts"\nnum_experts = 8\nnum_groups = 3', "num_experts 8 must be a multiple of num_groups 3"),
    ('ffn = "experts"\nnum_experts = 8\nnum_groups = 8', "at least twice it"),
    ('ffn = "experts"\ntop_groups = 2', "top_groups 2 is more than num_groups 1"),
    ('ffn = "experts"\nnum_experts = 8\nnum_groups = 4\ntop_k = 3', "more than the 2 experts of top_groups 1"),
    ('ffn = "experts"\nbias_rate = 0.01', "bias_rate = 0.01 is of balance = 'bias', but balance = 'loss'"),
    ("full_every = 3", "window = 0 asks for none"),
    ("full_positions = false", "window = 0 asks for none"),
    ("window = 64\ndeltas = 3", "window = 64 and deltas = 3 are two patterns"),
    ('ffn = "experts"\nshared_gate = true', "shared_experts = 0 asks for none"),
    ('ffn = "experts"\nsandwich_norms = true\npost_experts_norm = true', "give one of them"),
    ("window = 64\nfull_every = 1", "window would be of none"),
    ('mixer = "latent"\nwindow = 64', "window = 64 is of grouped-query attention"),
    ("head_dim = 9", "head_dim = 9 must be even: rotary positions turn the dimensions of a head in pairs"),
    ("head_dim = 9\nrotary_share = 0.5", "head_dim = 9 must be even"),
    ("ffn_ratio = inf", "should be a finite number"),
    ("window = 64\nfull_every = 1_000_000_000", "full_every = 1000000000: input should be less than or equal to 2000"),
    ('mixer = "latent"\nattention_gate = "sigmoid"', "attention_gate of latent attention is made from the latent vector of the queries"),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\n[corpus]\nmax_repeat = 3', "corpus.max_repeat is not a setting. Did you mean max_repeats?"),
        ('name = "a"\n[[corpus.sources]]\nname = "x"\npath = "y"\nlanguge = "sv"', "corpus.sources[0].languge is not a setting. Did you mean language?"),
        ('name = "a"\nbuget = "5min"', "buget is not a setting. Did you mean budget?"),
        ('name = "a"\n[[tune.steps]]\nname = "x"\nfrm = ["midtrain"]', "tune.steps[0].frm is not a setting. Did you mean from?"),
        ("name = 3", "name = 3: input should be a valid string"),
        ("[model]", "name is missing"),
        ('name = "a"\nbudget = "fast"', "budget 'fast' is not understood"),
        ('name = "a"\nbudget = "1Mtokens"\n[train]\ntokens = 5', "budget = '1Mtokens' and train.tokens = 5 are two dials; give one of them"),
        ('name = "a"\n[midtrain]\nshare = 0.5\n[tune]\nshare = 0.5', "leave nothing for pretraining"),
        ('name = "a"\n[model.size]\nnum_heads = 6\nnum_kv_heads = 4', "num_heads = 6 is not a multiple of model.size.num_kv_heads = 4"),
        ('name = "a"\n[model.pattern]\nbalance = "bias"', "has none"),
        *((f'name = "a"\n[model.pattern]\n{setting}', message) for setting, message in WRONG_PATTERNS),
        ('name = "a"\n[model.size]\ndense_hidden = 64', "dense_hidden = 64 is of dense layers before routed ones"),
        ('name = "a"\n[[corpus.sources]]\nname = "x"\npath = "y"\nlanguage = "swedish language"', "is not a BCP-47 tag"),
        ('name = "a"\n[[tune.steps]]\nname = "b"\nfrom = ["c"]', "starts from c, which is not an earlier step"),
        ('name = "a', "is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_one_clear_sentence(tmp_path, text, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, text))
    assert message in str(error.value)
    assert "mine.toml" in str(error.value)


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(RecipeError, match="Did you mean nordic"):
        load_recipe("nordik")
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe("nowhere.toml")


def test_extends_merges_tables_and_replaces_values(tmp_path):
    write(tmp_path, 'name = "base"\nbudget = "1h"\n[train]\ncontext = 128\nclip = 2.0', "base.toml")
    recipe, _ = load_recipe(write(tmp_path, 'name = "top"\nextends = "base.toml"\n[train]\ncontext = 64'))
    assert (recipe.name, recipe.budget, recipe.train.context, recipe.train.clip) == ("top", "1h", 64, 2.0)


def test_extends_in_a_circle_is_refused(tmp_path):
    write(tmp_path, 'name = "b"\nextends = "a.toml"', "b.toml")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(write(tmp_path, 'name = "a"\nextends = "b.toml"', "a.toml"))


def test_set_overrides_with_typed_values():
    recipe, _ = load_recipe("quickstart", ["model.size.width=96", "execution.compile=false", "budget=2min", 'corpus.on_damage="keep"'])
    assert recipe.model.size.width == 96
    assert not recipe.execution.compile
    assert (recipe.budget, recipe.corpus.on_damage) == ("2min", "keep")
    with pytest.raises(RecipeError, match=r"train\.contxt is not a setting. Did you mean context"):
        load_recipe("quickstart", ["train.contxt=3"])
    with pytest.raises(RecipeError, match="not of the form"):
        load_recipe("quickstart", ["train"])


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("10min", "time", 600),
        ("1h30min", "time", 5400),
        ("90s", "time", 90),
        ("2kWh", "energy", 7.2e6),
        ("1e17FLOP", "flops", 1e17),
        ("5Mtokens", "tokens", 5e6),
        ("40USD", "money", 40),
    ],
)
def test_budgets_are_read(text, kind, amount):
    budget = Budget.parse(text)
    assert (budget.kind, budget.amount) == (kind, amount)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "ten", "10", "10 parsecs", "-5min", "0min", "5min 2kWh"])
def test_a_budget_that_makes_no_sense_is_refused(text):
    with pytest.raises(RecipeError, match="budget"):
        Budget.parse(text)


def test_durations_are_written_as_people_do():
    assert [duration(s) for s in (0, 45, 100, 7500, 273600)] == ["0s", "45s", "1min 40s", "2h 5min", "3d 4h"]


def test_new_recipes_load_and_are_never_overwritten(tmp_path):
    file = tmp_path / "mine.toml"
    answers = {"Its language": "smj", "Budget": "20min"}
    write_recipe(file, lambda question, default: next((answer for start, answer in answers.items() if question.startswith(start)), default))
    recipe, text = load_recipe(str(file))
    assert recipe.corpus.sources[0].language == "smj" and recipe.budget == "20min" and "# " in text
    with pytest.raises(RecipeError, match="exists already"):
        write_recipe(file, lambda question, default: default)
    with pytest.raises(RecipeError, match="budget"):
        write_recipe(tmp_path / "bad.toml", lambda question, default: "soon" if question == "Budget" else default)
    assert not (tmp_path / "bad.toml").exists()
