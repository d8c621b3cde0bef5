"""A name from before 0.5.0 is refused with the name of now; what was recorded under it is read and hashed as before."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from flfed import Study
from flfed.cli import FORMER_COMMANDS, FORMER_OPTIONS
from flfed.errors import UsageError
from flfed.seeds import noise_key
from flfed.study.former_names import LAST, NAMES, current_names, former_names, rename
from flfed.study.request_hash import asks_sha256
from tests.cli.test_every_help import ALL

HEAD = """
format = 1
name = "former"
purpose = "Test"
legal-basis = "none needed"
"""
LINEAR = f"""{HEAD}
[dataset]
name = "breast-cancer"
[dataset.partition]
by = "iid"
sites = 3
min-rows = 5
[model]
name = "logistic"
warm-start = "model"
frozen-layers = 1
[plan]
steps = 20
[strategy]
name = "fedavg"
rounds = 2
[privacy]
name = "record-dp"
covers = "study"
comparison = "site-model"
[compare]
site-model = "same"
site-columns = true
minimum-gain = 0.01
resamples = 300
subgroups = ["mean radius at 12"]
naive-forecasts = ["mean radius"]
[expected]
"global.roc_auc_score" = {{ minimum = 0.9, source = "nobody" }}
"""
TREES = f"""{HEAD}
[dataset]
name = "breast-cancer"
[model]
name = "boosted-trees"
max-bins = 32
[strategy]
name = "boosted-trees"
min-child-weight = 2.0
"""
SUMMARY = f"""{HEAD}
[dataset]
name = "breast-cancer"
[statistic]
name = "summary"
columns = ["mean radius"]
bounds = {{ "mean radius" = [5.0, 30.0] }}
[privacy]
name = "record-dp"
epsilon = 1.0
delta = 1e-5
"""
COVARIANCE = f"""{HEAD}
[dataset]
name = "breast-cancer"
[statistic]
name = "covariance"
columns = ["mean radius", "mean texture"]
"""
HASHES = {
    LINEAR: (
        "a4aa1ac3db3a21809578cb338535d3e49db49e7b5a7ca05c743037fc1566ff11",
        "0f95c64ab8b92376399f6a980dce9758dca4b578a0906c07de95567bbd373878",
    ),
    TREES: (
        "29fe28540dba3a11dfcfefe8f6a32b9835f4d9dae3aed28bb68877e39c47bd0b",
        "095d1ed6b30e6a7d49ea9e74f590ca6bdf6473a1d7b394b4eedaa32966a4b1b5",
    ),
    COVARIANCE: (
        "426dfb1136d871bd3f683efb98aa6aa9700b12ba686b8d57eb7f005e5f5ba02c",
        "b864240f754fed58042fb9ab5b5710238e42a73c2667c560c0dd747bd5a25109",
    ),
    SUMMARY: (
        "8702c91387dc2419ee9ffc37a3954b6d68c4121ca5bff6ab8845487301e69071",
        "4075ff19b3daa292466d2d1fb8cbb6be2e7a27cc6f6d97c8472dd96cfdc81288",
    ),
}
"""Of each study what it asks of a site's rows, and what its noise follows from, made by commit 63fe7747, of its
former names."""


def former_text(text: str) -> str:
    """Return a study's text under the names from before 0.5.0."""
    return tomli_w.dumps(former_names(tomllib.loads(text)))


def with_one_former_name(path: str) -> str:
    """Return a study that has one name, as `NAMES` has it, from before."""
    current = LAST.sub(rf"\g<1>{NAMES[path]}", path)
    for text in HASHES:
        tables, changed = rename(tomllib.loads(text), {current: LAST.sub(r"\2", path)})
        if changed:
            return tomli_w.dumps(tables)
    raise LookupError(path)


@pytest.mark.parametrize("path", NAMES)
def test_a_former_name_in_a_text_is_refused_with_the_name_of_now(flfed, tmp_path: Path, path: str):
    table, _, key = path.replace("*.", "").partition(".")
    (tmp_path / "study.toml").write_text(with_one_former_name(path))
    code, out, err = flfed("study", "check", tmp_path / "study.toml")
    assert (code, out) == (2, "")
    assert err == f"flfed: {tmp_path / 'study.toml'}: [{table}] {key} is now {NAMES[path]}\n"


def test_the_former_table_of_an_analysis_is_refused_with_the_statistic_of_now(flfed, tmp_path: Path):
    (tmp_path / "study.toml").write_text(SUMMARY.replace('[statistic]\nname = "summary"', "[analysis]"))
    code, out, err = flfed("study", "run", tmp_path / "study.toml")
    assert (code, out) == (2, "")
    expected = '[analysis] is now [statistic] with name = "summary", [statistic] within is now bounds'
    assert expected.partition(",")[0] in err
    with pytest.raises(UsageError) as refused:
        Study.parse(former_text(SUMMARY))
    assert str(refused.value) == expected


@pytest.mark.parametrize("path", [path for path in NAMES if path.startswith(("compare.", "dataset.", "model.frozen"))])
def test_a_former_key_of_an_option_is_refused_with_the_key_of_now(flfed, path: str):
    table, _, key = path.partition(".")
    code, out, err = flfed("study", "check", "breast-cancer", "--set", f"{path}=3")
    assert (code, out, err) == (2, "", f"flfed: [{table}] {key} is now {NAMES[path]}\n")
    bare, now = path.rpartition(".")[2], f"{path.rpartition('.')[0]}.{NAMES[path]}"
    code, out, err = flfed("study", "check", "breast-cancer", "--set", f"{bare}=3")
    assert (code, out, err) == (2, "", f"flfed: --set {bare}: the key is now {now}\n")


def test_a_former_keyword_is_refused_with_the_key_of_now():
    with pytest.raises(UsageError, match=r"^keyword draws: the key is now compare.resamples$"):
        Study(dataset="breast-cancer", draws=200)
    with pytest.raises(UsageError, match=r"^\[dataset\] partition.least-rows is now min-rows$"):
        Study(dataset="breast-cancer", partition={"by": "iid", "least_rows": 3})


def test_a_key_of_another_packages_model_keeps_its_name():
    table = {"model": {"name": "of-another-package", "codes": 3}, "strategy": {"name": "mine", "least-hessian": 1}}
    assert current_names(table) == (table, [])


@pytest.mark.parametrize("text", HASHES, ids=["linear", "trees", "covariance", "summary"])
def test_a_recorded_text_is_the_study_that_it_was_and_hashes_stay(text: str):
    former = former_text(text)
    assert former != text
    recorded, now = Study.parse_recorded(former), Study.parse(text)
    assert {**vars(recorded), "text": ""} == {**vars(now), "text": ""}
    assert recorded.text == former and recorded.replace({"seed": 3}).text == now.replace({"seed": 3}).text
    assert (asks_sha256(former), noise_key(former)) == (asks_sha256(text), noise_key(text)) == HASHES[text]


def test_a_statistic_with_noise_needs_the_key_that_adds_it():
    with pytest.raises(UsageError, match=r"^\[statistic\] summary: needs \[privacy\] name = 'record-dp' with epsilon"):
        Study.parse(SUMMARY.partition("[privacy]")[0])


@pytest.mark.parametrize(("former", "now"), FORMER_OPTIONS.items())
def test_a_former_option_is_refused_with_the_option_of_now(flfed, former: str, now: str):
    having = [words for words, command in ALL.items() if any(now in given.opts for given in command.params)]
    assert having
    for words in having:
        assert flfed(*words, former, "x") == (2, "", f"flfed: {former} is now {now}\n"), words
        if now == "--output":
            assert flfed(*words, f"{former}=x")[2] == f"flfed: {former} is now {now}\n"


def test_an_option_that_a_command_never_had_is_none(flfed):
    assert "No such option '--to'" in flfed("study", "list", "--to", "x")[2]


@pytest.mark.parametrize(("former", "now"), FORMER_COMMANDS.items())
def test_a_former_command_is_refused_with_the_command_of_now(flfed, former: str, now: str):
    assert flfed(*former.split(), "cleveland") == (2, "", f"flfed: flfed {former} is now flfed {now}\n")
    assert tuple(now.split()) in ALL


def test_the_commands_of_a_site_are_in_three_panels(flfed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = flfed("site", "--help")
    panels = [part.split(" ")[0] for part in out.split("╭─ ")[1:]]
    assert panels == ["Options", "Every", "Setting", "Rarely"]
    daily, setting_up, rarely = (part.split("╰")[0] for part in out.split("╭─ ")[2:])
    assert all(f"│ {name} " in daily for name in ("list", "check", "approve", "serve", "status", "app"))
    assert all(f"│ {name} " in setting_up for name in ("new", "join", "key", "snapshot", "units"))
    assert all(f"│ {name} " in rarely for name in ("pause", "withdraw", "refresh", "ledger", "budget"))
