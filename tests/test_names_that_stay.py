"""Names that scripts and ledgers outside this project hold: none of them may go.

What is on the wire, in ledgers, kits and checkpoints is held byte for byte by `tests/golden`.
"""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flfed
import flfed.testing
from flfed import Study, registry
from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.notebook.result import GAINS
from flfed.packages import roots
from flfed.paths import home
from flfed.records.store.database import store_url
from flfed.records.store.tables import Base
from flfed.refusals import TEMPLATES
from flfed.rows.data import datasets, site_discovery
from flfed.study import study as studies
from tests.cli.test_every_help import ALL
from tests.golden.golden_files import GOLDEN, HERE

ROOT = Path(__file__).parents[1]

COMMANDS = {
    "demo": (), "app": (), "predict": ("--json",), "audit": ("--json",), "study list": ("--json",), "study new": (),
    "study check": ("--json", "--set"), "study run": ("--engine", "--json", "--repeats", "--set"),
    "study resume": ("--json",), "study verify": ("--engine", "--json", "--set"), "study sweep": ("--json", "--set"),
    "run list": ("--json",), "run show": ("--json",), "run compare": ("--json",), "run report": ("--json",),
    "run export": ("--json",), "data list": ("--json",), "data get": ("--from",),
    "data new": ("--by", "--json", "--target"), "site list": ("--json",), "site new": ("--from", "--json"),
    "site check": ("--json",), "site status": ("--json",), "site approve": ("--by", "--json", "--with", "--yes"),
    "site serve": (), "site model": ("--json",), "coordinator status": ("--json",),
}  # fmt: skip
"""Commands, each with its options that stay."""
OF_A_RUN = (
    "run", "rounds", "arrays-sha256", "global.roc_auc_score.value", "pooled.roc_auc_score.value",
    "own-model-everywhere.roc_auc_score.value",
)  # fmt: skip
"""Keys of `flfed study run --json` and `run show --json`."""
OF_PRIVACY = ("epsilon", "delta", "noise", "sampling", "steps", "uncharged")
"""Keys of the object `privacy` of a run."""
LISTED = {
    "strategy": (
        "boosted-trees ditto fedadagrad fedadam fedavg fedavgm fednova fedper fedprox fedyogi median scaffold "
        "trimmed-mean"
    ),
    "model": "boosted-trees linear logistic mlp", "codec": "int8 top-k", "mechanism": "record-dp site-dp",
}  # fmt: skip
DATASETS = """
breast-cancer card-fraud diabetes drug-reviews engine-life heart-disease heart-flamby influenza loan-default
portfolio preterm-birth sba-loans scms-delivery taiwan-credit telemonitoring wine zone-power
"""
STUDIES = """
breast-cancer breast-cancer-dp-3 card-fraud diabetes drug-reviews engine-life fed-heart-flamby heart-disease
influenza loan-default loan-table portfolio preterm-birth sba-loans scms-delivery taiwan-credit taiwan-credit-trees
telemonitoring wine zone-power
"""
SITES = """
cleveland harbour-bank hill-bank hungary kentucky-clinic lake-bank long-beach midwest-lender minnesota-clinic
mississippi-clinic new-york-clinic northeast-lender river-bank south-lender switzerland valley-bank west-lender
"""
PUBLIC = """
Arrays Codec Csv Excel FedAvg Field Frame Holdout HoldoutByTime Limits Mapped Mechanism Model
Parquet Policy Result Site Sql Study UsageError audit federate
layered_outputs load resume run runs
"""
OFFERED = {
    "Result": "gains model overall plot primary report run save sites status store study",
    "Study": "load parse replace sha256 name text dataset model plan strategy privacy codec compare rounds seed",
    "Site": "name dataset source mapping holdout title policy folder also partial read serving datasets",
    "Model": "arrays classes_ inputs predict predict_proba read to_onnx to_sklearn",
    "Mechanism": (
        "answer_releases charged check check_sites colluding merged private_steps promise protects_rows "
        "round_release site_noise spent uncharged warnings"
    ),
    "Codec": "decode defect encode feedback shapes",
    "FedAvg": (
        "aggregate_evaluate aggregate_train assign check client_arrays client_extra client_settings client_terms "
        "combine configure_evaluate configure_train extra_shapes moments start weight"
    ),
}
"""What public objects offer, by their class."""
EXTENDED = "strategy model metric mechanism codec attack split statistic"
"""Kinds of things that other packages bring under the entry points `flfed.KIND`, as sites do under `flfed.site`."""
CHECKS = "check_metric check_model check_site check_strategy"
TABLES = "audit comparison event metric run run_site sent series summary"
TARGETS = "demo app style lint format test fast proof bench pictures docs tutorials case-studies site"
MARKERS = "slow servers browser studies alone proof"
TEST_FOLDERS = (
    "cli consortium damage deployment docs experiments export extension federation golden notebook records rows"
)
PAGES = """
app boosted-trees damaged-tables extend glossary install join-as-a-site late-hospital messages methods own-tables
performance predict protection results run-a-consortium run-store studies threat-model
what-articles-get-wrong case-studies/index reference/commands reference/exclusions reference/index reference/policy
reference/python reference/schema reference/site reference/source reference/study
validation
"""
TUTORIALS = "consortium first-run own-model own-tables private-study"


def absent(names: str, there: Any) -> list[str]:
    """Return those of some names that are not there."""
    return [name for name in names.split() if name not in there]


def at(found: Any, path: str) -> Any:
    """Return what stands under a path of keys."""
    for key in path.split("."):
        found = found[key]
    return found


def test_commands_and_their_options_are_there():
    for name, wanted in COMMANDS.items():
        options = {option for given in ALL[tuple(name.split())].params for option in given.opts}
        assert options.issuperset(wanted), name


def test_keys_of_the_json_of_a_run_are_there(flfed: Callable[..., tuple[int, str, str]]):
    quick = ("--set", "rounds=2", "--set", "resamples=200", "--json")
    done = json.loads(flfed("study", "run", "breast-cancer", *quick)[1])
    shown = json.loads(flfed("run", "show", "--json")[1])
    for found in (done, shown):
        assert all(at(found, path) is not None for path in OF_A_RUN)
        assert set(OF_PRIVACY) <= found["privacy"].keys()
    listed = json.loads(flfed("run", "list", "--json")[1])
    assert [one["run"] for one in listed["runs"]] == [done["run"]] == [one["run"] for one in listed["series"]]
    compared = json.loads(flfed("run", "compare", "latest", "latest", "--json")[1])
    assert compared["arrays-max-difference"] == 0.0


def test_keys_of_the_privacy_of_a_protected_run_have_numbers(flfed: Callable[..., tuple[int, str, str]]):
    words = ("study", "run", "breast-cancer-dp-3", "--set", "rounds=2", "--set", "resamples=200", "--json")
    privacy = json.loads(flfed(*words)[1])["privacy"]
    assert (privacy["epsilon"], privacy["delta"]) == (pytest.approx(3.0, abs=0.01), 5e-4)
    assert all(privacy[key] > 0 for key in ("noise", "sampling", "steps"))
    assert privacy["uncharged"] and all(isinstance(line, str) for line in privacy["uncharged"])


def test_keys_of_a_study_are_there():
    text = """
        format = 1
        name = "stays"
        purpose = "Test"
        legal-basis = "none needed"
        [dataset]
        name = "heart-disease"
        sites = ["cleveland", "hungary"]
        [model]
        name = "logistic"
        [strategy]
        name = "fedavg"
        rounds = 3
        [codec]
        name = "int8"
        [privacy]
        covers = "updates"
        secure-aggregation = "off"
    """
    study = Study.parse(text.replace('covers = "updates"', ""))
    assert (study.strategy.name, study.rounds, study.model.name) == ("fedavg", 3, "logistic")
    assert (study.codec.name, study.secure_aggregation) == ("int8", "off")
    assert study.dataset.sites == ("cleveland", "hungary")
    protected = Study.parse(text.replace("[privacy]", '[privacy]\nname = "record-dp"'))
    assert protected.privacy.settings["covers"] == "updates"


@pytest.mark.parametrize("kind", LISTED)
def test_names_of_what_a_study_lists_are_there(kind: str):
    assert absent(LISTED[kind], registry.names(kind)) == []


def test_names_of_datasets_studies_and_sites_are_there():
    assert absent(DATASETS, datasets.names()) == []
    assert absent(STUDIES, studies.names()) == []
    assert absent(SITES, site_discovery.names()) == []


def test_a_strategy_that_does_not_exist_is_not_known():
    with pytest.raises(UsageError, match="is not known"):
        Study.load("wine").replace({"strategy.name": "fedsomething"})


def test_what_is_imported_from_flfed_is_there():
    assert absent(PUBLIC, flfed.__all__) == []
    for name in PUBLIC.split():
        assert getattr(flfed, name) is not None
    assert GAINS == ("site", "gain", "low", "high", "verdict", "model")
    for name, offered in OFFERED.items():
        kind = getattr(flfed, name)
        assert absent(offered, {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}) == [], name


def test_interfaces_for_other_packages_are_there():
    assert absent(EXTENDED, registry.FOLDERS) == []
    assert absent(CHECKS, flfed.testing.__all__) == []
    extend = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    assert '[project.entry-points."flfed.strategy"]' in extend and '[project.entry-points."flfed.site"]' in extend


def test_variables_of_the_environment_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{tmp_path}/mine.db")
    assert home() == tmp_path / "home" and roots()[0] == tmp_path.resolve()
    assert str(store_url().database) == f"{tmp_path}/mine.db"


def test_what_crosses_and_is_kept_is_held_byte_for_byte():
    assert absent("messages checkpoint ledger kit tables model-folder", GOLDEN) == []
    assert all((HERE / f"{name}.json").is_file() for name in GOLDEN)
    assert absent(TABLES, Base.metadata.tables) == []


def test_exit_codes_and_codes_of_refusals_are_there():
    assert (FlfedError.exit_code, UsageError.exit_code, RunStopped.exit_code) == (1, 2, 3)
    assert absent((HERE / "refusal_codes.txt").read_text(encoding="utf-8"), TEMPLATES) == []


def test_targets_markers_and_folders_of_the_project_are_there():
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert absent(TARGETS, targets) == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert absent(MARKERS, [line.partition(":")[0] for line in settings["markers"]]) == []
    assert all((ROOT / "tests" / name).is_dir() for name in TEST_FOLDERS.split())
    assert (ROOT / "benchmarks" / "results.json").is_file()


def test_pages_have_their_file_names():
    assert [name for name in PAGES.split() if not (ROOT / "docs" / f"{name}.md").is_file()] == []
    assert [name for name in TUTORIALS.split() if not (ROOT / "docs" / "tutorials" / f"{name}.ipynb").is_file()] == []


def test_a_name_that_is_gone_is_found():
    assert absent("wine gone", datasets.names()) == ["gone"]
