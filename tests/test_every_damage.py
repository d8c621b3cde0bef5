"""Every damaged table of the catalogue is refused, noted or read right, and no cell stands in any output."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from flfed.deployment.gate import outbound
from flfed.errors import FlfedError
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.site import Site
from tests.damage.catalogue import CATALOGUE
from tests.damage.page import PAGE, page
from tests.damage.patients import SCHEMA as SCHEMA_OF_PATIENTS
from tests.damage.patients import patients
from tests.damage.tables import FOUND, SCHEMA, Case, sound, write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.studies]

CASES = {f"{title}: {case.about}": case for title, cases in CATALOGUE.items() for case in cases}
PREDICTED = {name: case for name, case in CASES.items() if case.predicted is not None and not case.mapping}
PREDICTED = {name: case for name, case in PREDICTED.items() if "encoding=" not in case.source}
SITE = """
from flfed import Csv, Excel, Field, Holdout, Parquet, Site, Sql
site = Site(
    name="{name}", dataset="{base}", source={source}, mapping={{{mapping}}}, holdout=Holdout(salt="{name}"), {extra}
)
"""
STUDY = """
format = 1
name = "clinic"
purpose = "Test"
legal-basis = "made up"
seed = 7
[dataset]
name = "clinic"
[model]
name = "logistic"
[plan]
optimiser = "sgd"
lr = 0.1
batch = 16
epochs = 1
[strategy]
name = "fedavg"
rounds = 2
"""
SOUND = sound()
SOUND_OF = {"clinic": SOUND, "patients": patients()}
PLAIN = ("north", "south", "female", "male")


def secret(text: str) -> set[str]:
    """Return the cells that may stand in no output: identifiers, dates and incomes."""
    cells = {cell for row in csv.reader(io.StringIO(text)) for cell in row if len(cell) >= 5}
    return cells - {*PLAIN, *text.split("\n", 1)[0].split(",")}


SECRET = secret(SOUND) | secret(SOUND_OF["patients"])


def package(root: Path, name: str, case: Case, disclosure: str = "institution") -> Path:
    """Write the package of a site with this table; return the table's file."""
    folder = root / "sites" / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"source": case.package, "mapping": case.mapping, "base": case.base, "extra": case.extra}
    (folder / "__init__.py").write_text(SITE.format(name=name, **settings))
    (folder / "policy.toml").write_text(f'format = 1\ndisclosure = "{disclosure}"\n')
    file = folder / case.file
    file.write_bytes(case.damage(SOUND_OF[case.base]))
    return file


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the dataset of the made-up clinic."""
    write_dataset(tmp_path)
    write_dataset(tmp_path, "patients", SCHEMA_OF_PATIENTS)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    return tmp_path


def quotes_no_cell(said: str) -> None:
    """Hold that no cell of the table, and no trace, stands in what a command said."""
    assert "Traceback" not in said
    assert [cell for cell in SECRET if cell in said] == []


def as_read(name: str) -> pd.DataFrame:
    """Return a site's mapped rows in the order of persons, dates and incomes, without gaps of its own."""
    table = sites.load(name).inspect()[0]
    return table.sort_values(["person", "seen", "income" if "income" in table else "amount"]).reset_index(drop=True)


SOUND_CASE = Case("the sound table", str.encode, "read")


def test_there_are_many_of_them_and_the_sound_table_passes_without_a_note(root, flfed):
    assert len(CASES) == sum(map(len, CATALOGUE.values())) >= 150
    for case, rows in ((SOUND_CASE, 60), (replace(SOUND_CASE, base="patients"), 900)):
        package(root, f"{case.base}-a", case)
        code, out, err = flfed("site", "check", f"{case.base}-a", "--json")
        assert (code, err) == (0, "")
        assert [line for line in json.loads(out)["columns"] if line["note"]] == []
        assert len(as_read(f"{case.base}-a")) == rows
    assert len(SECRET) >= 120


def check_leaves(site: Site) -> None:
    """Hold that what a run is told of a table's findings is a sentence that the site's gate knows."""
    try:
        findings = site.inspect()[1]
    except FlfedError:
        return  # it cannot be opened: a run is told that, and no word of the reason
    for finding in findings:
        said = finding.error().describe(10)
        assert outbound.may_leave(said, site) or "no such column" in said, said


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_damaged_table_is_told_for_what_it_is(root, flfed, monkeypatch, case):
    file = package(root, "clinic-a", case)
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{file}")
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    code, out, err = flfed("site", "check", "clinic-a")
    said = " ".join((out + err).split())
    quotes_no_cell(out + err)
    assert code == (2 if case.outcome == "refused" else 0), said
    if case.outcome == "refused":
        assert err.startswith("flfed: ") and err.count("\n") == 1, err
        assert case.says and case.says in said
        check_leaves(sites.load("clinic-a"))
    elif case.outcome == "noted":
        assert case.says and case.says in said
    else:
        assert " note " not in out
    if case.outcome == "read":
        damaged = as_read("clinic-a")
        package(root, "clinic-b", replace(SOUND_CASE, base=case.base))
        pd.testing.assert_frame_equal(damaged, as_read("clinic-b"), rtol=1e-12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on two sound clinics, exported."""
    from flfed import Study, run
    from flfed.export.run_folder import export

    place = tmp_path_factory.mktemp("clinics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLFED_PATH", str(place))
        patch.setenv("FLFED_HOME", str(place / "home"))
        write_dataset(place)
        for name in ("clinic-a", "clinic-b"):
            package(place, name, SOUND_CASE, "open")
        run(Study.parse(STUDY), sites=["clinic-a", "clinic-b"])
        export("latest", place / "model")
    return place / "model"


@pytest.mark.parametrize("case", PREDICTED.values(), ids=PREDICTED)
def test_nothing_is_predicted_for_a_damaged_table_without_a_word(model, root, flfed, case):
    file = root / case.file
    file.write_bytes(case.damage(SOUND))
    code, out, err = flfed("predict", str(model), str(file))
    quotes_no_cell(out + err)
    found = case.predicted == FOUND
    says = "" if found else case.predicted or case.says
    if case.outcome == "refused" and not (case.predicted and code == 0):
        assert code == 2 and err.startswith("flfed: ") and err.count("\n") == 1, (code, err)
    else:
        assert code == 0, err
    assert says.partition(" (")[0] in " ".join(err.split())
    assert "map it" not in err  # nothing is mapped here
    if found or case.outcome == "read":
        other = root / "sound.csv"
        other.write_text(SOUND)
        assert sorted(_probabilities(out)) == sorted(_probabilities(flfed("predict", str(model), str(other))[1]))


def _probabilities(out: str) -> list[str]:
    return [row["probability"][:12] for row in csv.DictReader(io.StringIO(out))]


def test_the_page_of_damaged_tables_is_the_catalogue():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.damage"


def test_one_schema_that_is_broken_leaves_the_list_of_datasets_whole(root, flfed):
    for name, text in (("broken", "format = ["), ("survival", SCHEMA.replace("binary", "survival"))):
        folder = root / "datasets" / name
        folder.mkdir()
        (folder / "schema.toml").write_text(text.replace('"clinic"', f'"{name}"'))
        (folder / "source.toml").write_text((root / "datasets" / "clinic" / "source.toml").read_text())
    code, out, err = flfed("data", "list", "--json")
    assert (code, err) == (0, "")
    state = {line["dataset"]: line["state"] for line in json.loads(out)["datasets"]}
    assert state["clinic"] == "here" and "not valid TOML" in state["broken"]
    assert (
        "'survival' is not available in this version; it may be binary, multi-class or regression" in state["survival"]
    )
    assert "broken" in flfed("data", "list")[1]
    code, _, err = flfed("data", "get", "survival")
    assert code == 2 and "is not available in this version" in err


def test_another_task_that_is_none_gets_the_nearest_one(root, flfed):
    path = root / "datasets" / "clinic" / "schema.toml"
    path.write_text(path.read_text().replace('task = "binary"', 'task = "binry"'))
    assert "did you mean 'binary'?" in flfed("data", "get", "clinic")[2]


def test_the_check_shows_how_many_groups_there_are_and_the_largest(root, flfed):
    package(root, "clinic-a", SOUND_CASE)
    people = pd.read_csv(io.StringIO(SOUND))["person"]
    assert f"id; {people.nunique()} groups, the largest with " in flfed("site", "check", "clinic-a")[1]
    assert "fewer than 5 rows" in flfed("site", "check", "clinic-a")[1] or people.value_counts().iloc[0] >= 5
    assert os.environ["FLFED_PATH"] == str(root)
