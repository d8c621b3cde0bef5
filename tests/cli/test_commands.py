"""The commands as a person or a program calls them: real processes' entry point, real store, real tables."""

import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from flfed import Study
from flfed.federation.server.run import run
from flfed.study.study import names

QUICK = ("--set", "rounds=3", "--set", "resamples=200")


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The home of a run that several tests look at, and what the command printed."""
    return {}


@pytest.fixture
def printed(flfed, tmp_path_factory, monkeypatch: pytest.MonkeyPatch, kept: dict[str, Any]) -> dict[str, Any]:
    """The JSON of one quick run, in whose home this test then is."""
    if not kept:
        kept["home"] = str(tmp_path_factory.mktemp("ran"))
        monkeypatch.setenv("FLFED_HOME", kept["home"])
        kept["said"] = flfed("study", "run", "preterm-birth", *QUICK, "--json")
    monkeypatch.setenv("FLFED_HOME", kept["home"])
    code, out, err = kept["said"]
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)  # nothing but JSON is on standard output
    return found


def test_help_imports_neither_torch_nor_pandas_nor_flwr():
    code = (
        "import sys; sys.argv = ['flfed', '--help']\n"
        "from flfed.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'flwr', 'numpy', 'sklearn', 'streamlit', 'sqlalchemy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy)); print('COUNT', len(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in out
    # Typer and rich alone bring about 350 modules; torch would bring some 1,500 more.
    assert int(out.rpartition("COUNT ")[2]) < 600


def test_every_command_has_help_with_an_example(flfed):
    commands = ["demo", "app", "study list", "study show", "study check", "study run", "run list", "run show"]
    commands += ["data list", "data get", "site list", "site check", "study verify", "study sweep"]
    for command in commands:
        code, out, _ = flfed(*command.split(), "--help")
        assert code == 0
        assert f"flfed {command}" in out.partition("Example")[2], command


def test_run_prints_exactly_the_documented_json_and_nothing_else(printed):
    found = printed
    assert set(found) >= {
        "run", "study", "status", "reason", "engine", "path", "rounds", "seconds", "repeats", "arrays-sha256",
        "global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "own-model-everywhere",
        "sites", "faults",
    }  # fmt: skip
    assert (found["status"], found["engine"], found["path"], found["rounds"]) == (
        "completed", "inprocess", "stacked", 3,
    )  # fmt: skip
    site = found["sites"]["kentucky-clinic"]
    assert set(site) >= {"rows", "holdout-rows", "global", "local-only", "personalised", "difference", "verdict"}
    assert site["rows"] == 208
    assert {"value", "low", "high", "sd"} <= set(found["global"]["roc_auc_score"])
    assert found["faults"] == []


def test_the_command_line_and_python_give_the_same_arrays(printed, home, monkeypatch):
    monkeypatch.setenv("FLFED_HOME", str(home))  # a run of its own
    result = run(Study.load("preterm-birth").replace({"rounds": 3, "resamples": 200}))
    assert printed["arrays-sha256"] == result.report["arrays-sha256"]
    assert len(result.report["arrays-sha256"]) == 64


def test_run_list_and_show_say_what_was_run(printed, flfed):
    name = printed["run"]
    code, listed, _ = flfed("run", "list", "--json")
    assert code == 0
    assert [(r["run"], r["rounds"], r["status"]) for r in json.loads(listed)["runs"]] == [(name, 3, "completed")]
    _, shown, _ = flfed("run", "show", name, "--json")
    assert json.loads(shown) == printed
    code, text, _ = flfed("run", "show", "latest")
    assert code == 0
    assert "kentucky-clinic" in text
    assert "3 rounds ran" in text


def test_study_list_names_the_strategies_models_and_metrics_that_a_study_may_ask_for(flfed):
    code, out, err = flfed("study", "list", "--all")
    assert (code, err) == (0, "")
    tables = {
        part.split()[0]: [line.split()[0] for line in part.splitlines()[2:] if line] for part in out.split("\n\n")
    }
    assert {"fedavg", "fedprox"} <= set(tables["strategy"]) and "logistic" in tables["model"]
    listed = json.loads(flfed("study", "list", "--json")[1])
    assert set(listed) == {
        "studies", "strategies", "models", "metrics", "mechanisms", "codecs", "attacks", "statistics",
    }  # fmt: skip
    assert listed["metrics"] == tables["metric"] and len(listed["metrics"]) >= 10
    assert all(
        sorted(tables[kind]) == listed[f"{kind}s"] for kind in ("model", "mechanism", "codec", "attack", "statistic")
    )
    assert sorted(tables["strategy"]) == listed["strategies"]


def test_study_list_keeps_research_variants_for_all_and_says_what_each_name_is(flfed):
    short, whole = (flfed("study", "list", *more)[1].partition("\nstrategy ")[2] for more in ((), ("--all",)))
    assert "… and 11 more research variants: --all" in short and "research" not in whole
    for name in ("fedavg", "boosted-trees", "trimmed-mean"):
        assert f"\n{name} " in short
    for name in ("ditto", "fedadam", "scaffold"):
        assert f"\n{name} " in whole and f"\n{name} " not in short
    rows = [
        line.split(maxsplit=1) for line in whole.splitlines()[2:] if line and "  " in line and "description" not in line
    ]
    assert len(rows) >= 30 and all(len(row) == 2 and len(row[1].split()) >= 4 for row in rows)


def test_help_groups_the_commands_and_begins_where_a_person_begins(flfed):
    _, out, _ = flfed("--help")
    panels = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭")]
    assert panels == ["Options", "Start here", "Studies", "Sites", "Coordinator", "More"]
    start = out.partition("Start here")[2].partition("╰")[0]
    assert all(f" {name} " in start for name in ("demo", "choose", "app", "data"))


def test_an_empty_store_says_what_to_do(flfed):
    code, out, _ = flfed("run", "list")
    assert code == 0
    assert "flfed demo" in out
    assert flfed("run", "list", "--json")[1].strip() == '{\n  "runs": [],\n  "series": []\n}'


@pytest.mark.parametrize(("words", "code", "says"), [
    ("study run no-such-study", 2, "neither shipped nor a file"),
    ("study run pretermbirth", 2, "did you mean 'preterm-birth'"),
    ("study run preterm-birth --set rounds=none", 2, "rounds='none' must be a whole number"),
    ("study run preterm-birth --set lr=-1", 2, "lr=-1.0 must be > 0"),
    ("study run preterm-birth --set plan.lrr=1", 2, "did you mean 'lr'"),
    ("study check preterm-birth --set name=x", 0, ""),
    ("study run preterm-birth --set rounds", 2, "write it as KEY=VALUE"),
    ("study run preterm-birth --engine deployment", 2, "no site is admitted yet"),
    ("study run preterm-birth --engine rai", 2, "Known: inprocess"),
    ("study run preterm-birth --repeats 0", 2, "repeats=0 must be a whole number >= 1"),
    ("study run preterm-birth --site cleveland", 2, "has dataset 'heart-disease'"),
    ("study run preterm-birth --site no-such", 2, "site 'no-such' is not known"),
    ("study run preterm-birth --set model.name=linear", 2, "is for regression"),
    ("study run preterm-birth --set primary=auc", 2, "not a metric for task 'binary'"),
    ("study run preterm-birth --set privacy.epsilon=1", 2, "epsilon needs name"),
    ("study run preterm-birth --set privacy.secure-aggregation=yes", 2, "must be one of 'off', 'auto', 'on'"),
    ("study run preterm-birth --set codec.name=int9", 2, "did you mean 'int8'"),
    ("study check preterm-birth --set codec.name=top-k --set codec.share=0.05", 2, "share=0.05 must be in [0.1, 1)"),
    ("study check preterm-birth --set codec.name=int8", 0, ""),
    ("study run preterm-birth --set schedule=plateau", 2, "set validation"),
    ("study run preterm-birth --set select=best", 2, "validation"),
    ("study run heart-disease", 2, "flfed data get heart-disease"),
    ("study check preterm-birth --set dataset.features=[\"BL.DNA\"]", 2, "leaks the target"),
    ("run show no-such-run", 2, "no-such-run"), ("data get no-such", 2, "is not known"),
    ("data get heart-disease --from /nowhere", 2, "no such folder"),
    ("site check no-such", 2, "is not known"), ("study frobnicate", 2, "No such command"),
])  # fmt: skip
def test_wrong_use_is_one_sentence_and_exit_code_2(flfed, words, code, says):
    ended, _, err = flfed(*words.split())
    assert ended == code
    assert says in err
    assert "Traceback" not in err


def test_a_run_that_too_few_sites_are_asked_in_is_wrong_use_and_is_in_the_store(flfed):
    code, _, err = flfed("study", "run", "preterm-birth", "--site", "kentucky-clinic", *QUICK)
    assert code == 2
    assert "only one site takes part" in err
    [entry] = json.loads(flfed("run", "list", "--json")[1])["runs"]
    assert entry["status"] == "failed"
    code, out, err = flfed("study", "run", "preterm-birth", "--site", "kentucky-clinic", *QUICK, "--json")
    assert (code, json.loads(out)["status"]) == (2, "failed")
    assert json.loads(out)["reason"] in err


def test_data_get_takes_files_from_a_folder_by_hash(flfed, home: Path, test_data: Path, tmp_path: Path):
    code, out, _ = flfed("data", "get", "heart-disease", "--from", str(test_data))
    assert code == 0
    assert sorted(p.name for p in (home / "data" / "heart-disease").iterdir()) == [
        "processed.cleveland.data", "processed.hungarian.data", "processed.switzerland.data", "processed.va.data",
    ]  # fmt: skip
    assert "18,461 bytes, checked" in out
    assert "already here" not in out
    code, out, _ = flfed("data", "get", "heart-disease", "--from", str(tmp_path))  # an empty folder: nothing is needed
    assert (code, out.count(": already here, ")) == (0, 4)
    assert "processed.cleveland.data: already here, 18,461 bytes, checked" in out


def test_data_get_without_internet_names_the_dataset_and_the_files_to_bring(flfed, monkeypatch: pytest.MonkeyPatch):
    def no_internet(*_: object, **__: object) -> None:
        raise urllib.error.URLError("name resolution failed")

    monkeypatch.setattr("urllib.request.urlopen", no_internet)
    code, _, err = flfed("data", "get", "heart-disease")
    assert code == 1
    assert err.rstrip().endswith(
        "without internet: flfed data get heart-disease --from FOLDER, a folder that holds "
        "processed.cleveland.data, processed.hungarian.data, processed.switzerland.data and processed.va.data"
    )


def test_data_list_says_what_is_here_and_what_is_to_be_fetched(flfed):
    found = {line["dataset"]: line for line in json.loads(flfed("data", "list", "--json")[1])["datasets"]}
    assert found["preterm-birth"]["state"] == "here"
    assert len(found["heart-disease"]["absent"]) == 4
    assert found["diabetes"]["task"] == "regression"


def test_site_check_passes_a_shipped_site_with_counts_only(flfed):
    code, out, _ = flfed("site", "check", "kentucky-clinic", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["rows"], found["training-rows"] + found["holdout-rows"]) == (208, 208)
    assert all(line["passed"] for line in found["columns"])


SPOILED_SITE = """
from flfed import Csv, Field, Holdout, Site
site = Site(
    name="spoiled",
    dataset="heart-disease",
    source=Csv("rows.csv", missing=("?",)),
    mapping={"sex": Field("sex", values={"0": "female", "1": "male"})},
    holdout=Holdout(salt="x"),
)
"""


def test_site_check_names_columns_rules_and_counts_never_cells(flfed, tmp_path, monkeypatch):
    folder = tmp_path / "root" / "sites" / "spoiled"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SPOILED_SITE)
    header = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,disease"
    row = "63,1,typical-angina,145,233,1,normal,150,0,2.3,?,0,?,present"
    spoiled = [row.replace("63", "Jane Roe", 1)] + [row.replace(",1,typical", ",9,typical", 1)] * 7 + [row] * 12
    (folder / "rows.csv").write_text("\n".join([header, *spoiled]) + "\n")
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))
    out_file = tmp_path / "broken.csv"
    code, out, err = flfed("site", "check", "spoiled", "--local-rows", str(out_file))
    assert code == 2
    assert "Jane" not in out + err + out_file.read_text()
    assert "is not a number in fewer than 5 rows" in " ".join(out.split())
    assert "has a code that the mapping does not know in 7 rows" in " ".join(out.split())
    assert out_file.stat().st_mode & 0o777 == 0o600
    lines = out_file.read_text().splitlines()
    assert lines[0] == "row,column,rule"
    assert [line for line in lines if line.startswith("1,age")] == ["1,age,is not a number"]
    assert sum(",sex," in line for line in lines) == 7
    assert flfed("site", "check", "spoiled", "--local-rows", str(out_file))[0] == 2  # never replaced


def test_a_site_package_outside_this_repository_works_by_import_path(flfed, tmp_path, monkeypatch):
    for name, rows in (("upper_ward", slice(0, 130)), ("lower_ward", slice(130, None))):
        folder = tmp_path / "elsewhere" / name
        folder.mkdir(parents=True)
        lines = Path("datasets/preterm-birth/minnesota.csv").read_text().splitlines()
        (folder / "rows.csv").write_text("\n".join([lines[0], *lines[1:][rows]]) + "\n")
        site = Path("sites/minnesota_clinic/__init__.py").read_text()
        site = site.replace("minnesota-clinic", name.replace("_", "-")).replace("minnesota.csv", "rows.csv")
        (folder / "__init__.py").write_text(site)
        (folder / "policy.toml").write_text('format = 1\ndisclosure = "open"\n')
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    asked = ("--site", "upper_ward:site", "--site", "lower_ward:site")
    code, out, err = flfed("study", "run", "preterm-birth", *asked, *QUICK, "--json")
    assert code == 0, err
    sites = json.loads(out)["sites"]
    assert {name: site["rows"] for name, site in sites.items()} == {"lower-ward": 117, "upper-ward": 130}


def test_every_shipped_study_can_be_shown_and_has_the_same_hash_in_a_file(flfed, tmp_path):
    for name in names():
        code, out, err = flfed("study", "show", name)
        assert code == 0
        file = tmp_path / f"{name}.toml"
        file.write_text(out)
        assert Study.load(name).sha256() == Study.load(file).sha256()
        assert Study.load(name).sha256() in err


def test_site_list_names_a_broken_package_and_goes_on(flfed, tmp_path, monkeypatch):
    folder = tmp_path / "root" / "sites" / "broken_ward"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from flfed import Site\nsite = Site(maping={})\n")
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))
    code, out, _ = flfed("site", "list", "--json")
    found = {line["site"]: line for line in json.loads(out)["sites"]}
    assert (code, len(found)) == (0, 20)
    assert found["broken-ward"]["title"].startswith("broken: ")
    assert found["cleveland"]["dataset"] == "heart-disease"
