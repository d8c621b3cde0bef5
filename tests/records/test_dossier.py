"""The dossier of a run: evidence of items is a path into its record, and nothing is replaced."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from flfed import Study, run
from flfed.errors import UsageError
from flfed.export.brought.validation_study import make_validation
from flfed.records.dossier.dossier import METADATA, Item, is_answered, read_sheets, resolve, write_dossier
from flfed.records.store.entries import AuditRow, SiteRow
from flfed.records.store.writer import RunStore
from flfed.rows.data import datasets
from tests.browser import opened
from tests.records.documents import read, what_it_loads

AUC = "roc_auc_score"
ITEMS = {"model-card": 9, "satre": 30, "tripod-ai": 52}
"""Items of each sheet: 21 federation and 9 output items of SATRE 2.0.1, 52 of TRIPOD+AI."""
COEFFICIENTS = "name,value,unit\nintercept,-4.1,\nage,0.0513,years\nsex=male,1.217,\noldpeak,0.6171,mm\n"
HOSPITALS = ("cleveland", "hungary", "long-beach", "switzerland")
MEMBERS = [
    {"site": name, "status": "admitted", "invited": "2026-11-01", "admitted": "2026-11-02", "gate_key": f"key-{name}"}
    for name in HOSPITALS
]


def record_at(folder: Path, name: str = "latest", **options: Any) -> dict[str, Any]:
    """Return the record of a new dossier."""
    write_dossier(folder, name, **options)
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def paths() -> set[str]:
    """Return every path of every sheet."""
    return {path for sheet in read_sheets() for item in sheet.items for path in (*item.evidence, *item.helps)}


def test_each_sheet_has_its_sources_items():
    sheets = {sheet.name: sheet for sheet in read_sheets()}
    assert {name: len(sheet.items) for name, sheet in sheets.items()} == ITEMS
    for sheet in sheets.values():
        numbers = [item.number for item in sheet.items]
        assert len(set(numbers)) == len(numbers) and all(item.by and item.title for item in sheet.items)
        assert re.fullmatch(r"https://\S+", sheet.address) and re.fullmatch(r"20\d\d(-\d\d-\d\d)?", sheet.date)


def deployed(store: RunStore, write: Any) -> str:
    """Write the record of a run at institutions and return its id."""
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text='name = "heart-disease"\n')
    written = write(store, series, engine="deployment")
    written.sites([SiteRow(name, disclosure="institution") for name in HOSPITALS])
    return str(written.run)


@pytest.fixture
def heart_table(home: Path, test_data: Path) -> None:
    """The table of heart-disease in this test's home."""
    datasets.get(datasets.load("heart-disease"), from_folder=test_data, progress=lambda line: None)


@pytest.mark.usefixtures("heart_table")
def test_every_path_leads_to_a_value_of_some_runs_record(store, write, url, tmp_path, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    changes = {"strategy.rounds": 3, "compare.resamples": 200, "compare.subgroups": ["sex"]}
    trained = run(Study.load("heart-disease").replace(changes))
    store.audit(
        trained.run, [AuditRow("membership", "hungary", AUC, 0.72, 0.5, 0.9, {"verdict": "no promise", "says": "so"})]
    )
    (tmp_path / "published.csv").write_text(COEFFICIENTS)
    study = make_validation(tmp_path / "published.csv", "heart-disease", tmp_path / "brought", name="check")
    validated = run(Study.parse(study.text))
    records = [
        record_at(tmp_path / "trained", trained.run),
        record_at(tmp_path / "validated", validated.run),
        record_at(tmp_path / "deployed", deployed(store, write), members=MEMBERS),
    ]
    lost = {path for path in paths() for way in path.split("|") if not any(resolve(one, way) for one in records)}
    assert len(paths()) > 35 and lost == set()
    pages = [page for name in ("trained", "validated", "deployed") for page in (tmp_path / name).glob("*.html")]
    assert [page for page in pages if "<p> <span" in page.read_text()] == []  # a path without its value
    # A validation's figures answer where a trained model's would.
    answered = {item.number for sheet in read_sheets() for item in sheet.items if is_answered(item, records[1])}
    assert {"12d", "12g", "23a"} <= answered


def test_an_item_is_answered_only_where_each_of_its_paths_has_a_value():
    record = {"a": [{"b": 1}, {"b": 0}], "c": [], "d": "", "e": None, "f": False}
    assert resolve(record, "a.*.b") == [1, 0] and resolve(record, "x|c|f") == [False]
    assert [resolve(record, path) for path in ("c", "d", "e", "a.b", "a.*.c", "x.*")] == [[]] * 6
    made = {"number": "1", "title": "t", "by": "b"}
    assert is_answered(Item(**made, evidence=["a.*.b", "f"]), record)
    assert not is_answered(Item(**made, evidence=["a.*.b", "e"]), record)
    assert not is_answered(Item(**made, helps=["f"]), record) and not is_answered(Item(**made), record)


def test_what_only_institutions_decide_is_answered_at_institutions_alone(heart, store, write, url, tmp_path):
    satre = next(sheet for sheet in read_sheets() if sheet.name == "satre")
    simulated = record_at(tmp_path / "simulated", heart, store=url, members=MEMBERS)
    institutions = record_at(tmp_path / "deployed", deployed(store, write), store=url, members=MEMBERS)
    answered = [{item.number for item in satre.items if is_answered(item, of)} for of in (simulated, institutions)]
    assert simulated["members"] == [] and not answered[0] - answered[1]
    assert {"5.1.03", "5.1.06", "5.4.01", "5.4.03"} <= answered[1] - answered[0]


def test_a_page_shows_each_value_with_its_path_and_an_empty_line_for_people(three, tmp_path):
    record = record_at(tmp_path / "dossier")
    page = read((tmp_path / "dossier" / "tripod-ai.html").read_text()).words()
    for key in ("rows", "holdout_rows"):
        rows = [f"{site['site']} {site[key]}" for site in record["sites"]]
        assert f"{', '.join(rows)} sites.*.{key}" in page
    assert "answered by the record" in page and "to be written by" in page
    assert len(list((tmp_path / "dossier").glob("*.html"))) == len(ITEMS) + 2
    for file in (tmp_path / "dossier").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        if file.suffix == ".html":
            # Links of the cover lead to files of the folder.
            found = {place.removeprefix("a href=") for place in what_it_loads(file.read_text())} - {"<a>"}
            assert found <= {path.name for path in file.parent.iterdir()} and (not found or file.name == "index.html")


def test_nothing_is_replaced(heart, url, tmp_path):
    taken, link, empty = tmp_path / "taken", tmp_path / "link", tmp_path / "empty"
    taken.mkdir()
    empty.mkdir()
    (taken / "note.txt").write_text("kept")
    link.symlink_to(empty)
    for folder in (taken, taken / "note.txt", link):
        with pytest.raises(UsageError, match="not empty"):
            write_dossier(folder, heart, store=url)
    assert [path.name for path in taken.iterdir()] == ["note.txt"] and not any(empty.iterdir())
    write_dossier(empty, heart, store=url)
    with pytest.raises(UsageError, match="not empty"):
        write_dossier(empty, heart, store=url)


def test_the_extra_is_named_where_it_is_missing(heart, url, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rocrate", None)
    with pytest.raises(UsageError, match=r"pip install 'flfed\[dossier\]'"):
        write_dossier(tmp_path / "dossier", heart, store=url)
    assert not (tmp_path / "dossier").exists()


def test_the_crate_has_every_file_and_the_run_as_an_action(heart, url, tmp_path):
    folder = tmp_path / "dossier"
    write_dossier(folder, heart, store=url)
    crate = json.loads((folder / METADATA).read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    by_id = {entity["@id"]: entity for entity in crate["@graph"]}
    root = by_id["./"]
    assert {part["@id"] for part in root["hasPart"]} == {path.name for path in folder.iterdir()} - {METADATA}
    assert root["conformsTo"]["@id"] == "https://w3id.org/ro/wfrun/process/0.5"
    action = by_id[f"#run-{heart}"]
    assert action["@type"] == "CreateAction" and by_id[action["instrument"]["@id"]]["version"] == "0.1.0"
    assert action["startTime"] == "2026-11-20T15:30:14+00:00" and action["actionStatus"].endswith(
        "CompletedActionStatus"
    )
    assert {of["@id"] for of in action["result"]} == {"report.html", "record.json"}
    assert [of["@id"] for of in action["object"]][:2] == ["study.toml", "#rows-cleveland"]
    every = {value["@id"] for value in links(crate["@graph"])}
    assert {name for name in every - set(by_id) if not name.startswith("https://w3id.org/ro/crate/")} == set()


def links(value: Any) -> list[dict[str, str]]:
    """Return each reference from one entity to another."""
    if isinstance(value, list):
        return [link for one in value for link in links(one)]
    if isinstance(value, dict):
        return [value] if set(value) == {"@id"} else [link for one in value.values() for link in links(one)]
    return []


def test_a_run_without_a_model_has_the_sheet_that_needs_none(flfed, tmp_path):
    code, _, err = flfed("study", "run", "loan-table")
    assert code == 0, err
    assert set(write_dossier(tmp_path / "dossier", "latest").counts) == {"satre"}


def test_the_command_prints_each_sheets_counts_and_refuses_another_file_beside_it(flfed, shown, heart, tmp_path):
    folder = str(tmp_path / "dossier")
    code, out, _ = flfed("run", "report", heart, "--dossier", folder)
    assert code == 0 and f"{folder}: dossier of run {heart}" in out
    assert len(re.findall(r"\d+ of \d+ items are answered by the record", out)) == len(ITEMS)
    code, _, err = flfed("run", "report", heart, "--dossier", str(tmp_path / "other"), "--output", "x.html")
    assert code == 2 and "leave out --output" in err
    code, out, _ = flfed("run", "report", heart, "--dossier", str(tmp_path / "json"), "--json")
    assert {name: of["items"] for name, of in json.loads(out)["sheets"].items()} == ITEMS


@pytest.mark.browser
def test_the_pages_fit_a_phone_a_screen_and_a4(heart, url, tmp_path):
    write_dossier(tmp_path / "dossier", heart, store=url)
    root = Path(__file__).resolve().parents[2] / "artefacts"
    root.mkdir(exist_ok=True)
    with opened("") as window:
        page = window.page
        for name in ("index", *ITEMS):
            for width, media in ((320, "screen"), (1280, "screen"), (690, "print")):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(media=media)
                page.goto((tmp_path / "dossier" / f"{name}.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            page.pdf(path=root / f"dossier-{name}.pdf", prefer_css_page_size=True)
        assert window.errors == []
