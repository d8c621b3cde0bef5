"""A study is read from TOML and checked; every wrong key or value is answered with what is allowed."""

import datetime
import hashlib
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.study.plan import Plan
from flfed.study.study import LARGEST_SEED, Study, keys_of, names
from flfed.study.tables import Named, Partition

TEXT = """
format = 1
name = "trial"
purpose = "Test"
legal-basis = "none needed"
expires = 2027-12-31
seed = 42
[dataset]
name = "heart-disease"
features = ["age", "chol"]
sites = ["cleveland", "hungary"]
[encode]
scaler = "none"
missing-indicator = true
[model]
name = "mlp"
hidden = [8, 4]
[plan]
optimiser = "adam"
lr = 1
batch = 16
[strategy]
name = "fedavg"
rounds = 7
server-lr = 0.5
[compare]
primary = "log_loss"
resamples = 500
[privacy]
secure-aggregation = "off"
[codec]
name = "none"
"""


def refused(text: str) -> str:
    """Return what a study is refused with; always wrong input, never a crash."""
    with pytest.raises(UsageError) as said:
        Study.parse(text)
    assert said.value.exit_code == 2
    return str(said.value)


def with_line(table: str, line: str) -> str:
    """Return the study with one more line at the head of a table."""
    assert TEXT.count(f"[{table}]\n") == 1
    return TEXT.replace(f"[{table}]\n", f"[{table}]\n{line}\n")


def test_every_table_of_the_file_becomes_a_part_of_the_study():
    study = Study.parse(TEXT)
    assert (study.name, study.purpose, study.legal_basis) == ("trial", "Test", "none needed")
    assert (study.seed, study.rounds, study.expires) == (42, 7, datetime.date(2027, 12, 31))
    assert study.dataset.features == ("age", "chol")
    assert study.dataset.sites == ("cleveland", "hungary")
    assert (study.encode.scaler, study.encode.missing_indicator) == ("none", True)
    assert study.model == Named(name="mlp", settings={"hidden": [8, 4]})
    assert study.plan == Plan(optimiser="adam", lr=1.0, batch=16)
    assert study.strategy == Named(name="fedavg", settings={"server-lr": 0.5})
    assert (study.compare.primary, study.compare.resamples) == ("log_loss", 500)
    assert study.text == TEXT


def test_what_is_left_out_takes_its_default():
    study = Study.parse(
        'format = 1\nname = "a"\npurpose = "b"\nlegal-basis = "c"\n'
        '[dataset]\nname = "wine"\n[model]\nname = "logistic"\n[strategy]\nname = "fedavg"'
    )
    assert (study.seed, study.rounds, study.expires) == (0, 1, None)
    assert study.plan == Plan()
    assert (study.dataset.sites, study.dataset.partition, study.compare.resamples) == (None, None, 2000)


def test_a_strategy_and_a_model_are_built_from_their_settings():
    study = Study.parse(TEXT)
    assert study.strategy.build("strategy").server_lr == 0.5
    assert study.model.build("model").hidden == (8, 4)


def test_the_hash_is_of_the_text_itself():
    assert Study.parse(TEXT).sha256() == hashlib.sha256(TEXT.encode()).hexdigest()
    assert Study.parse(TEXT + "\n").sha256() != Study.parse(TEXT).sha256()


@pytest.mark.parametrize(("old", "new", "said"), [
    ("format = 1", "format = 2", "study: must have format = 1"), ("format = 1", "", "study: must have format = 1"),
    ('name = "trial"', "", "study: name must be a text that is not empty"),
    ('purpose = "Test"', 'purpose = " "', "study: purpose must be a text that is not empty"),
    ('legal-basis = "none needed"', "legal-basis = 3", "study: legal-basis must be a text that is not empty"),
    ("seed = 42", "seed = -1", "study: seed=-1 must be a whole number >= 0"),
    ("seed = 42", f"seed = {2**63 - 10**6}", f"seed={2**63 - 10**6} must be at most {2**63 - 10**6 - 1}"),
    ('features = ["age", "chol"]', "features = []", "[dataset]: features must name at least one column"),
    ("seed = 42", "seed = 4.0", "study: seed=4.0 must be a whole number >= 0"),
    ("seed = 42", "seed = true", "study: seed=True must be a whole number >= 0"),
    ("seed = 42", "sead = 42", "study: key 'sead' is not known; did you mean 'seed'?"),
    ("expires = 2027-12-31", "expires = '2027-12-31'", "must be a date, such as 2027-12-31"),
    ("expires = 2027-12-31", "expires = 2027-12-31T10:00:00", "must be a date, such as 2027-12-31"),
    ('name = "heart-disease"', "", "[dataset]: name is missing"),
    ('features = ["age", "chol"]', 'features = "age"', "[dataset]: features='age' must be a list"),
    ('features = ["age", "chol"]', "features = [1]", "[dataset]: features=1 must be a text"),
    ('scaler = "none"', 'scaler = "local"', "must be one of 'global', 'per-site', 'none', 'schema'"),
    ("missing-indicator = true", "missing-indicator = 1", "[encode]: missing-indicator=1 must be true or false"),
    ('name = "mlp"', "", "[model]: name is missing; known: boosted-trees, linear, logistic, mlp"),
    ('name = "mlp"', 'name = "logistc"', "[model]: name='logistc' is not known; did you mean 'logistic'?"),
    ('name = "fedavg"', 'name = "fedvag"', "[strategy]: name='fedvag' is not known; did you mean 'fedavg'?"),
    ("rounds = 7", "rounds = 0", "[strategy]: rounds=0 must be a whole number >= 1"),
    ("rounds = 7", "rounds = true", "[strategy]: rounds=True must be a whole number >= 1"),
    ("lr = 1", 'lr = "1"', "[plan]: lr='1' must be a number"),
    ("lr = 1", "lr = true", "[plan]: lr=True must be a number"), ("lr = 1", "lr = 0", "[plan]: lr=0.0 must be > 0"),
    ("lr = 1", "lr = nan", "[plan]: lr=nan must be a finite number"),
    ("lr = 1", "learning-rate = 1", "[plan]: key 'learning-rate' is not known"),
    ("lr = 1", "schedule = 'plateau'", "[plan]: schedule 'plateau' reads validation rows"),
    ("batch = 16", "batch = 1.5", "[plan]: batch=1.5 must be a whole number"),
    ("batch = 16", "validation = 1.0", "[plan]: validation=1.0 must be in [0, 1)"),
    ("batch = 16", "momentum = 0.9", "[plan]: momentum is for optimiser 'sgd', not 'adam'"),
    ("resamples = 500", "resamples = 199", "[compare]: resamples=199 must be in [200, 100000]"),
    ('primary = "log_loss"', "primary = 1", "[compare]: primary=1 must be a text"),
    ("[encode]", "[encoding]", "study: key 'encoding' is not known; did you mean 'encode'?"),
])  # fmt: skip
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(old: str, new: str, said: str):
    assert TEXT.count(old) == 1
    assert said in refused(TEXT.replace(old, new))


@pytest.mark.parametrize("table", ["dataset", "encode", "model", "plan", "strategy", "compare"])
def test_a_table_that_is_none_is_refused(table: str):
    start = TEXT.index(f"[{table}]\n")
    end = TEXT.find("\n[", start)
    text = f"{table} = 3\n" + TEXT[:start] + TEXT[end:]
    assert refused(text) == f"study: {table} must be a table, written [{table}]"


@pytest.mark.parametrize(("text", "said"), [
    (with_line("privacy", "epsilon = 3.0"), "[privacy]: epsilon needs name; known: label-dp, re"),
    (with_line("privacy", "covrs = 'study'"), "Or covrs is misspelt"),
    (TEXT.replace('"off"', '"yes"'), "[privacy]: secure-aggregation='yes' must be one of 'off', 'auto', 'on'"),
    (
        "privacy = 1\n" + TEXT.replace('[privacy]\nsecure-aggregation = "off"\n', ""),
        "study: privacy must be a table",
    ),
])  # fmt: skip
def test_a_table_of_privacy_with_a_wrong_value_is_refused(text: str, said: str):
    assert said in refused(text)


def test_secure_sums_stand_beside_a_mechanism_and_are_off_unless_asked_for():
    assert Study.parse(TEXT).secure_aggregation == "off"
    study = Study.parse(TEXT).replace({"secure-aggregation": "on", "privacy.name": "record-dp"})
    assert (study.secure_aggregation, study.privacy.name) == ("on", "record-dp")
    assert study.privacy.settings == {}


@pytest.mark.parametrize("asked", ["auto", "on"])
def test_secure_sums_are_refused_with_what_cannot_be_summed_or_would_be_of_few_sites(asked: str):
    study = Study.parse(TEXT.replace('"off"', f'"{asked}"'))
    with pytest.raises(UsageError, match="needs one grid for all: leave one of them out"):
        study.replace({"codec.name": "int8"})
    with pytest.raises(UsageError, match="draws the sites of a sum at random"):
        study.replace({"strategy.fraction": 0.5})


def test_text_that_is_no_toml_says_where():
    assert refused("format = = 1").startswith("the study is not valid TOML: Invalid value (at line 1")


def test_a_partition_takes_the_place_of_sites():
    text = TEXT.replace('sites = ["cleveland", "hungary"]', "partition = { by = 'iid', sites = 3, seed = 5 }")
    study = Study.parse(text)
    assert study.dataset.partition == Partition(by="iid", sites=3, seed=5)
    assert study.dataset.features == ("age", "chol")
    both = with_line("dataset", "partition = { sites = 3 }")
    assert refused(both) == "[dataset]: sites and partition exclude each other; a partition makes its own sites"


@pytest.mark.parametrize(("partition", "said"), [
    ("'iid'", "partition='iid' must be a table"), ("{ sites = 1 }", "[dataset] partition: sites=1 must be >= 2"),
    ("{ alpha = 0 }", "[dataset] partition: alpha=0.0 must be > 0"),
    ("{ seed = -1 }", "[dataset] partition: seed=-1 must be >= 0"),
    ("{ parts = 3 }", "[dataset] partition: key 'parts' is not known"),
    ("{ sites = 2.5 }", "[dataset] partition: sites=2.5 must be a whole number"),
])  # fmt: skip
def test_a_partition_that_cannot_be_drawn_is_refused(partition: str, said: str):
    text = TEXT.replace('sites = ["cleveland", "hungary"]', f"partition = {partition}")
    assert said in refused(text)


def test_replacing_a_key_gives_a_study_whose_text_says_so():
    study = Study.parse(TEXT).replace({"rounds": 400, "plan.lr": 0.25, "seed": 9, "hidden": [3], "quorum": 0.5})
    assert (study.rounds, study.plan.lr, study.seed) == (400, 0.25, 9)
    assert study.model.settings == {"hidden": [3]}
    assert Study.parse(study.text) == study
    assert study.sha256() != Study.parse(TEXT).sha256()
    assert study.dataset == Study.parse(TEXT).dataset


def test_replacing_leaves_the_study_it_started_from_unchanged():
    study = Study.parse(TEXT)
    study.replace({"rounds": 400})
    assert (study.rounds, study.text) == (7, TEXT)


def test_a_key_in_a_table_of_a_table_can_be_replaced():
    study = Study.load("wine").replace({"dataset.partition.sites": 4})
    assert study.dataset.partition == Partition(by="dirichlet", sites=4, alpha=1.0, seed=1)


def test_a_key_set_to_none_is_left_out():
    study = Study.parse(TEXT).replace({"features": None, "expires": None})
    assert (study.dataset.features, study.expires) == (None, None)


@pytest.mark.parametrize(("changes", "said"), [
    ({"round": 4}, "--set round: the key is not known; did you mean 'rounds'?"),
    ({"seed.x": 4}, "--set seed.x: 'seed' is not a table of the study"),
    ({"plan.lr.x": 4}, "--set plan.lr.x: 'lr' is not a table of the study"),
    ({"plans.lr": 4}, "study: key 'plans' is not known; did you mean 'plan'?"),
    ({"plan.lrr": 4}, "[plan]: key 'lrr' is not known; did you mean 'lr'?"),
    ({"lr": "high"}, "[plan]: lr='high' must be a number"), ({"name": "other"}, None),
    ({"strategy.name": "fedvag"}, "[strategy]: name='fedvag' is not known"),
    ({"privacy.epsilon": 1}, "[privacy]: epsilon needs name; known: label-dp, re"),
])  # fmt: skip
def test_a_replacement_that_fits_nothing_is_refused(changes: dict[str, object], said: str | None):
    study = Study.parse(TEXT)
    if said is None:
        assert study.replace(changes).name == "other"  # the study's own name, not a model's or a strategy's
        return
    with pytest.raises(UsageError) as answer:
        study.replace(changes)
    assert said in str(answer.value)


def test_the_name_of_a_table_is_answered_with_its_key_name():
    with pytest.raises(UsageError, match="--set strategy: the key is not known; did you mean 'strategy.name'"):
        Study.load("wine").replace({"strategy": "fedadam"})


def test_a_key_of_several_tables_must_name_its_table():
    # `seed` is the study's; a model with a setting `seed` makes the bare key ambiguous.
    study = Study.parse(with_line("model", "seed = 3"))
    with pytest.raises(
        UsageError, match=r"--set seed: the key stands in several tables .model, seed.. Write it as table.key"
    ):
        study.replace({"seed": 1})


def test_a_study_is_loaded_by_its_shipped_name_or_from_a_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    assert Study.load(path) == Study.load(str(path)) == Study.load(path.with_suffix("")) == Study.parse(TEXT)
    assert Study.load("wine").name == "wine"
    with pytest.raises(UsageError, match="study 'wines' is neither shipped nor a file; did you mean 'wine'?"):
        Study.load("wines")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a text file in UTF-8"):
        Study.load(path)


def test_the_shipped_studies_are_listed_in_order():
    assert names() == sorted(names())
    assert {"diabetes", "heart-disease", "loan-default", "preterm-birth", "wine"} <= set(names())


def test_the_largest_seed_leaves_room_for_a_million_repeats_in_64_bits():
    assert Study.parse(TEXT.replace("seed = 42", f"seed = {LARGEST_SEED}")).seed + 10**6 == 2**63 - 1


@pytest.mark.parametrize("name", ["Two Words", "../../x", "http://e", "a--b", "x\\ny"])
def test_a_name_that_could_not_be_a_key_everywhere_is_refused(name):
    text = Study.load("preterm-birth").text.replace('name = "preterm-birth"', f'name = "{name}"', 1)
    with pytest.raises(UsageError, match="must be of a-z, 0-9 and single hyphens"):
        Study.parse(text)


@pytest.mark.parametrize(("text", "said"), [
    (with_line("encode", "rows = 3"), "[encode]: rows=3 must be one of 'all', 'complete'"),
    (with_line("compare", "pooled = 5"), "[compare]: pooled=5 must be a table"),
    (with_line("compare", "pooled = { lr = -1 }"), "[plan]: lr=-1.0 must be > 0"),
    (with_line("compare", "alert-budget = 1.5"), "[compare]: alert-budget=1.5 must be in (0, 1)"),
    (with_line("compare", "minimum-gain = -0.1"), "[compare]: minimum-gain=-0.1 must be >= 0"),
    (TEXT + "[split]\nfixed = 'flamby-44'", "[split]: fixed 'flamby-44' is not known"),
    (TEXT + "[split]\nredraw = true", "[split]: redraw needs fixed"),
    (TEXT + "[sweep]\nlr = 1", "[sweep]: lr=1 must be a list of values to try"),
    (TEXT + "[expected]\nauc = 1", "[expected]: 'auc' must be a table"),
    (TEXT + "[expected]\nrepeats = 0", "[expected]: repeats=0 must be >= 1"),
    (
        TEXT + "[expected]\n'a.b' = { source = 'x' }",
        "[expected] 'a.b': needs either value with tolerance, or minimum",
    ),
    (TEXT + "[expected]\n'a.b' = { value = 1, source = 'x' }", "[expected] 'a.b': tolerance=0.0 must be > 0"),
    (TEXT + "[expected]\n'a.b' = { minimum = 1 }", "[expected] 'a.b': source must name the origin of the figure"),
])  # fmt: skip
def test_a_wrong_pooled_plan_split_sweep_or_expectation_is_named(text: str, said: str):
    assert said in refused(text)


def test_what_a_study_expects_and_sweeps_is_read_with_its_numbers():
    study = Study.parse(
        with_line("compare", "pooled = { optimiser = 'adam', epochs = 50 }")
        + "[expected]\nrepeats = 5\n'global.accuracy_score' = { value = 0.748, tolerance = 0.02, source = 'FLamby' }\n"
        + "[sweep]\n'plan.lr' = [0.1, 0.2]\n"
    )
    assert study.compare.pooled is not None
    assert (study.compare.pooled.optimiser, study.compare.pooled.epochs) == ("adam", 50)
    assert (study.expected.repeats, study.expected.figures[0].value) == (5, 0.748)
    assert study.sweep == {"plan.lr": (0.1, 0.2)}


PROTECTED = TEXT.replace("[privacy]\n", "[privacy]\nname = 'record-dp'\n").replace("[plan]\n", "[plan]\nsteps = 5\n")


def test_rows_that_are_promised_something_go_through_the_schemas_encoder_unless_the_study_says_otherwise():
    bare = PROTECTED.replace('scaler = "none"\n', "")
    assert bare != PROTECTED
    assert Study.parse(bare).encode.scaler == "schema"
    assert Study.parse(PROTECTED).encode.scaler == "none"
    assert Study.parse(bare.replace("'record-dp'", "'site-dp'")).encode.scaler == "global"


def test_weights_that_count_the_rows_of_each_class_are_refused_where_no_row_has_a_say():
    bare = PROTECTED.replace('scaler = "none"\n', "").replace("steps = 5", "steps = 5\nclass-weight = 'balanced'")
    assert "class-weight='balanced' counts the classes of all rows" in refused(bare)


def test_a_study_of_keywords_has_the_keys_of_its_tables():
    study = Study(dataset="wine", model={"name": "mlp", "hidden": [4]}, partition={"by": "iid", "sites": 3}, lr=0.1)
    assert study.model == Named(name="mlp", settings={"hidden": [4]}) and study.plan.lr == 0.1
    assert study.dataset.partition == Partition(by="iid", sites=3)
    # The order of keywords is no matter: a name is set before the keys that it has.
    changed = Study.load("wine").replace(keys_of({"mu": 0.1, "strategy": "fedprox", "model": "mlp"}), "keyword")
    assert changed.strategy.settings["mu"] == 0.1 and changed.model.name == "mlp"


@pytest.mark.parametrize(
    ("values", "given"), [((), {}), (("wine",), {}), ((), {"model": "mlp"}), (("wine",), {"dataset": "wine"})]
)
def test_a_study_without_a_dataset_is_refused_in_one_sentence(values: tuple, given: dict):
    with pytest.raises(UsageError, match="a study needs the name of a dataset, such as Study"):
        Study(*values, **given)
    with pytest.raises(UsageError, match="model=3 must be a name, or keys with one"):
        Study(dataset="wine", model=3)
