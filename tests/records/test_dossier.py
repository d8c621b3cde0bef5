"""The dossier of a run: every figure is the record's, no item is answered without evidence, and nothing is replaced."""

import json
import re
import sqlite3
import sys
import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flfed.errors import UsageError
from flfed.records.dossier import answers as sheets
from flfed.records.dossier.answers import EVIDENCE, Facts, Item, Sheet, answer_sheet, read_sheets
from flfed.records.dossier.dossier import METADATA, Dossier, write_dossier
from flfed.records.dossier.record import Member, RunRecord, shown
from flfed.records.store.entries import AuditRow, EventRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.words import render
from tests.browser import opened
from tests.records.documents import numbers_in, read, tables, titles, what_it_loads

AUC = "roc_auc_score"
STUDY = 'name = "heart-disease"\npurpose = "Predict"\nlegal-basis = "public data"\n[model]\nname = "logistic"\n'
SOURCES = {"satre": 30, "tripod-ai": 52, "probast-ai": 34, "ai-act": 32, "impact-assessment": 15, "ss1-23": 14}
"""Items of each sheet: 21 federation and 9 output items of SATRE 2.0.1, 52 of TRIPOD+AI, 16 + 18 of PROBAST+AI."""
STATUS = {"record": "answered by the record", "people": "to be written by", "unmet": "not met"}


def made(folder: Path, name: str = "latest", **options: Any) -> tuple[Dossier, dict[str, Any]]:
    """Return a new dossier with its answers by sheet and number."""
    dossier = write_dossier(folder, name, **options)
    objects = json.loads((folder / "answers.json").read_text())
    return dossier, {(of, item["number"]): item for of, sheet in objects.items() for item in sheet["items"]}


def counted(home: Path) -> dict[str, Mapping[str, Any]]:
    """Return facts by evidence, counted in the database itself."""
    with closing(sqlite3.connect(home / "runs.db")) as store:

        def one(query: str) -> tuple[Any, ...]:
            return store.execute(query).fetchone()

        sites, rows = one("SELECT count(*), sum(rows) FROM run_site WHERE status != 'refused'")
        names = [name for (name,) in store.execute("SELECT title FROM run_site ORDER BY site")]
        (test,) = one("SELECT sum(holdout_rows) FROM run_site WHERE status != 'refused'")
        bins = json.loads(one("SELECT payload FROM summary WHERE name = 'score-histograms'")[0])["sites"]
        classes = {label: sum(n for site in bins.values() for _, n in site[label]) for label in ("0", "1")}
        columns = json.loads(one("SELECT payload FROM summary WHERE name = 'columns'")[0])["columns"]
        inputs = [column for column in columns if not column["outcome"]]
        missing = [[site["missing"] for site in column["sites"].values()] for column in inputs]
        value, low, high = one(
            f"SELECT value, low, high FROM comparison WHERE site IS NULL AND arm = 'global' AND metric = '{AUC}'"
        )
        least, most = one(f"SELECT min(value), max(value) FROM comparison WHERE arm = 'global' AND metric = '{AUC}' "
                          "AND site IS NOT NULL AND against IS NULL")  # fmt: skip
        ways = dict(store.execute("SELECT direction, sum(bytes) FROM sent GROUP BY direction"))
        events = dict(store.execute("SELECT kind, count(*) FROM event GROUP BY kind"))
        seconds, arrays = one("SELECT seconds, arrays_sha256 FROM run")
        return {
            "took-part": {"sites": sites, "names": names},
            "rows": {"rows": rows, "sites": sites, "test": test},
            "outcome": {"column": "y", "events": classes["1"], "rows": test},
            "enough-events": {"events": min(classes.values()), "least": 100},
            "missing": {
                "missing": sum(map(sum, missing)), "incomplete": sum(any(of) for of in missing),
                "columns": len(inputs), "suppressed": 0,
            },
            "performance": {"metric": "AUC", "figure": f"{value:.3f} ({low:.3f} to {high:.3f})"},
            "at-sites": {"metric": "AUC", "sites": sites, "all": sites, "low": least, "high": most},
            "transfers": {
                "messages": one("SELECT count(*) FROM sent")[0], "sent": ways["to-server"], "received": ways["to-site"],
            },
            "opened": {"times": events["holdout-opened"], "sites": sites},
            "quality": {"rejected": 0, "refused": 0, "faults": 0, "flags": events.get("flag", 0), "attacks": 0},
            "duration": {"seconds": seconds},
            "arrays": {"hash": arrays, "run": one("SELECT id FROM run")[0]},
        }  # fmt: skip


def wrong_figures(folder: Path, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the sentences of the sheets' pages with a figure that is not among the facts."""
    wrong = []
    for page in sorted(path for path in folder.glob("*.html") if path.stem in SOURCES):
        for line in [paragraph.words() for paragraph in read(page.read_text()).all("p")]:
            for kind, pattern in PATTERNS.items():
                match = re.match(pattern, line)
                if match is not None:
                    due = {name: shown(facts[kind][name]) for name in match.groupdict()}
                    wrong += [f"{page.stem}: {match[0]}: {due}"] if match.groupdict() != due else []
    return wrong


END = r"(?= report\.html| record\.json)"
"""What follows each sentence of the record."""


def patterns() -> dict[str, str]:
    """Return for each evidence that is counted the pattern of its sentence, with its facts as groups."""
    templates = tomllib.loads((sheets.FOLDER.parents[2] / "words" / "dossier.toml").read_text())["evidence"]
    found = {}
    for kind in ("rows", "outcome", "missing", "at-sites", "transfers", "opened", "quality", "duration", "arrays"):
        found[kind] = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(templates[kind])) + END
    found["performance"] = r"(?P<metric>AUC) of the shared model over all test rows: (?P<figure>.+?)\." + END
    return found


PATTERNS = patterns()


def test_each_sheet_has_its_sources_items_and_evidence_that_exists():
    every = {sheet.name: sheet for sheet in read_sheets()}
    assert {name: len(sheet.items) for name, sheet in every.items()} == SOURCES
    for sheet in every.values():
        numbers = [item.number for item in sheet.items]
        assert len(set(numbers)) == len(numbers) and sheet.items[0].part
        assert re.fullmatch(r"https://\S+", sheet.address) and re.fullmatch(r"20\d\d(-\d\d-\d\d)?", sheet.date)
        assert all((sheet.title, sheet.reader, sheet.source, sheet.version, sheet.file))
        for item in sheet.items:
            assert item.by and 1 <= len(item.title.split()) <= 15, item
            assert {*item.evidence, *item.shows} <= set(EVIDENCE), item
            assert not set(item.evidence) & set(item.shows)
    federation = [item.number for item in every["satre"].items if item.number.startswith("5.")]
    assert (len(federation), federation[0], federation[-1]) == (21, "5.1.01", "5.7.01")
    used = {name for sheet in every.values() for item in sheet.items for name in (*item.evidence, *item.shows)}
    assert used == set(EVIDENCE)


def test_every_figure_is_the_records_and_an_altered_one_is_noticed(three, home, tmp_path):
    folder = tmp_path / "dossier"
    _, answers = made(folder)
    facts = counted(home)
    checked = 0
    for item in answers.values():
        for finding in item["findings"]:
            due = facts.get(finding["evidence"])
            # Other metrics have the same sentence.
            if due is None or finding["facts"].get("metric", "AUC") != "AUC":
                continue
            assert {name: finding["facts"][name] for name in due} == due, finding
            checked += 1
    assert checked >= 30
    assert wrong_figures(folder, facts) == []
    page = folder / "tripod-ai.html"
    told = f"{facts['rows']['rows']:,} rows at"
    assert told in page.read_text()
    page.write_text(page.read_text().replace(told, f"{facts['rows']['rows'] + 1:,} rows at"))
    assert wrong_figures(folder, facts) != []


def values_at(value: Any, keys: list[str]) -> list[Any]:
    """Return what a record has at a path; * stands for each of a list or an object."""
    if not keys:
        return [value]
    below = value.values() if isinstance(value, dict) and keys[0] == "*" else value
    if keys[0] == "*":
        return [found for one in below for found in values_at(one, keys[1:])]
    return values_at(value[keys[0]], keys[1:]) if keys[0] in value else []


def test_each_answer_names_a_place_that_is_there_and_pages_say_what_the_answers_say(three, tmp_path):
    folder = tmp_path / "dossier"
    dossier, answers = made(folder)
    record = json.loads((folder / "record.json").read_text())
    sections = titles(read((folder / "report.html").read_text()))
    evidence = {(sheet.name, item.number): item.evidence for sheet in read_sheets() for item in sheet.items}
    places = 0
    for (name, number), item in answers.items():
        needed = len(evidence[name, number])
        if item["status"] == "record":
            assert needed and all(finding["met"] for finding in item["findings"][:needed]), (name, number)
            assert len(item["findings"]) >= needed
        for finding in item["findings"]:
            assert finding["section"] == "" or finding["section"] in sections, finding
            assert finding["section"] or finding["record"]
            for path in finding["record"]:
                assert values_at(record, path.split(".")), path
                places += 1
    assert places > 100
    for name in dossier.counts:
        document = read((folder / f"{name}.html").read_text())
        lines = {line["Item"]: line for table in tables(document)[:-1] for line in table}
        assert set(lines) == {number for of, number in answers if of == name}
        for number, line in lines.items():
            item = answers[name, number]
            assert line["Status"].startswith(STATUS[item["status"]])
            assert all(" ".join(finding["says"].split()) in line["Answer"] for finding in item["findings"])
        counts = [sum(answers[key]["status"] == status for key in answers if key[0] == name) for status in STATUS]
        told = numbers_in(document.all("header")[0].all("div")[0].words())
        assert [int(word) for word in told] == [sum(counts), *counts]


def test_no_page_loads_anything_and_all_files_are_private(three, tmp_path):
    made(tmp_path / "dossier")
    pages = list((tmp_path / "dossier").glob("*.html"))
    assert len(pages) == len(SOURCES) + 2
    for page in pages:
        # Links of the cover lead to files of the folder.
        links = {place.removeprefix("a href=") for place in what_it_loads(page.read_text())} - {"<a>"}
        assert links <= {path.name for path in page.parent.iterdir()}, page
        assert not links or page.name == "index.html"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "dossier").iterdir()} == {0o600}


def deployed(store: RunStore, write: Any, disclosure: str) -> str:
    """Write the record of a run at institutions and return its id."""
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text=STUDY)
    run = write(store, series, engine="deployment")
    run.sites([SiteRow(name, disclosure=disclosure) for name in ("cleveland", "hungary", "long-beach", "switzerland")])
    return run.run


MEMBERS = [
    Member(name, "admitted", "2026-11-01T10:00:00+00:00", f"2026-11-0{day}T10:00:00+00:00", "", f"key-{day}")
    for day, name in enumerate(("cleveland", "hungary", "long-beach", "switzerland"), 2)
]
AT_INSTITUTIONS = ("5.1.03", "5.1.06", "5.1.09", "5.3.02", "5.4.01", "5.4.03")
"""Federation items that only a deployment can answer, whatever its policies are."""


def test_what_only_institutions_decide_is_answered_at_institutions_alone(store, write, url, tmp_path):
    def federation(folder: str, run: str, members: list[Member]) -> tuple[set[str], dict[str, Any]]:
        _, answers = made(tmp_path / folder, run, store=url, members=members)
        own = {number: item for (name, number), item in answers.items() if name == "satre"}
        return {number for number, item in own.items() if item["status"] == "record"}, own

    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text=STUDY)
    simulated, told = federation("simulated", write(store, series).run, MEMBERS)
    assert simulated.isdisjoint({*AT_INSTITUTIONS, "5.6.01", "3.3.04"})
    assert {told[number]["status"] for number in ("5.6.01", "3.3.04", *AT_INSTITUTIONS)} == {"people"}
    controlled, told = federation("controlled", deployed(store, write, "institution"), MEMBERS)
    assert controlled >= simulated | {*AT_INSTITUTIONS, "5.6.01", "3.3.04"}
    assert "4 let the study run, 1 refused" in told["5.1.03"]["findings"][1]["says"]
    assert "from 2 Nov 2026, 10:00 to 5 Nov 2026, 10:00 UTC; revoked since: 0" in told["5.1.06"]["findings"][0]["says"]
    free, told = federation("free", deployed(store, write, "open"), MEMBERS)
    assert told["5.6.01"]["status"] == told["3.3.04"]["status"] == "unmet"
    assert "at 0 of 4 institutions" in told["5.6.01"]["findings"][0]["says"]
    rehearsed = deployed(store, write, "institution")
    store.added_to(rehearsed).events([EventRow(None, None, "note", render("rehearsal.record.note"), "rehearsal")])
    assert federation("rehearsed", rehearsed, MEMBERS)[0] == simulated
    # A list without one of the institutions answers nothing.
    unlisted, _ = federation("unlisted", deployed(store, write, "open"), MEMBERS[1:])
    assert free - unlisted == {"5.1.06", "5.4.03"}


def test_an_item_is_answered_only_where_each_of_its_evidence_is_there(heart, url):
    with RunReader.open(url) as reader:
        record = RunRecord.read(reader, heart)

    def status(**item: Any) -> str:
        source = dict.fromkeys(("title", "reader", "source", "address", "file", "version", "date"), "")
        sheet = Sheet(**source, items=[Item(number="1", title="Item", by="somebody", **item)])
        return answer_sheet(sheet, record, Facts())[0].status

    assert EVIDENCE["took-part"](record) is not None and EVIDENCE["own-decision"](record) is None
    assert status(evidence=["took-part"]) == "record"
    assert status(evidence=["own-decision"]) == status(evidence=["took-part", "own-decision"]) == "people"
    assert status() == status(shows=["took-part"]) == "people"
    assert status(evidence=["weights"]) == status(evidence=["took-part", "weights"]) == "unmet"


def test_the_study_s_purpose_helps_and_never_answers_what_the_processing_is_for(store, write, url, tmp_path):
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text=STUDY)
    _, answers = made(tmp_path / "d", write(store, series).run, store=url)
    for sheet, number in (("impact-assessment", "35(7)(a) purposes"), ("ai-act", "1(a) purpose")):
        answer = answers[sheet, number]
        assert answer["status"] == "people"
        assert [finding["says"] for finding in answer["findings"]] == ["The study states its purpose: “Predict”."]


@pytest.mark.parametrize(("verdict", "low", "status"), [
    ("no promise", 0.49, "record"), ("no promise", 0.71, "unmet"), ("beyond the promise", 0.6, "unmet"),
])  # fmt: skip
def test_attacks_answer_for_the_weights_unless_one_succeeds(heart, store, url, tmp_path, verdict, low, status):
    store.audit(heart, [AuditRow("membership", "hungary", AUC, 0.72, low, 0.9, {"verdict": verdict, "says": "so"})])
    _, answers = made(tmp_path / "dossier", heart, store=url)
    item = answers["satre", "3.3.07"]
    assert item["status"] == answers["impact-assessment", "35(7)(d) model"]["status"] == status
    assert item["findings"][0]["facts"]["beyond"] == (status == "unmet")


def test_the_first_call_writes_the_file_of_facts_and_the_next_reads_it(heart, url, tmp_path):
    file = tmp_path / "facts.toml"
    first, before = made(tmp_path / "one", heart, store=url, facts_file=file)
    assert first.facts == file and file.stat().st_mode & 0o777 == 0o600
    empty = tomllib.loads(file.read_text())
    assert {name: len(table) for name, table in empty.items() if name != "people"} == SOURCES
    assert {text for table in empty.values() for text in table.values()} == {""}
    text = file.read_text().replace('retention = ""', 'retention = "Ten years"', 1)
    text = text.replace('"3.3.07" = ""', '"3.3.07" = "Not to leave"').replace('"18a" = ""', '"18a" = "<b>Fund</b>"')
    file.write_text(text)
    second, after = made(tmp_path / "two", heart, store=url, facts_file=file)
    assert second.facts is None and file.read_text() == text
    # A text explains; it changes no status.
    assert {key: item["status"] for key, item in after.items()} == {key: item["status"] for key, item in before.items()}
    assert after["impact-assessment", "retention"]["text"] == "Ten years"
    assert after["satre", "3.3.07"]["status"] == "unmet" and after["satre", "3.3.07"]["text"] == "Not to leave"
    pages = {name: read((tmp_path / "two" / f"{name}.html").read_text()) for name in (*SOURCES, "index")}
    lines = [line for table in tables(pages["tripod-ai"])[:-1] for line in table if line["Item"] == "18a"]
    assert lines == [{
        "Item": "18a", "Asks for": "Funding", "Status": "written by the study lead",
        "Answer": "By the study lead: <b>Fund</b>",
    }]  # fmt: skip
    cover = tables(pages["index"])
    assert [(line["Written"], line["To be written"]) for line in cover[0] if "TRIPOD" in line["Sheet"]] == [
        ("1", str(sum(item["status"] == "people" for (name, _), item in after.items() if name == "tripod-ai") - 1))
    ]
    assert "Ten years" in [line["Answer"] for line in cover[1]]
    assert tomllib.loads((tmp_path / "two" / "facts.toml").read_text()) == tomllib.loads(text)


@pytest.mark.parametrize(("text", "words"), [
    ('[people]\nowned = ""', "'owned' is not known"), ('[nobody]\nowner = ""', "'nobody' is not known"),
    ('[satre]\n"5.1.99" = ""', "'5.1.99' is not known"), ("[people]\nowner = 5", "owner of [people] must be a text"),
    ("owner = ", "is not valid TOML"),
])  # fmt: skip
def test_a_wrong_file_of_facts_is_refused_and_nothing_is_written(heart, url, tmp_path, text, words):
    (tmp_path / "facts.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        write_dossier(tmp_path / "dossier", heart, store=url, facts_file=tmp_path / "facts.toml")
    assert words in str(refused.value) and not (tmp_path / "dossier").exists()


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


def test_the_crate_has_every_file_the_run_as_an_action_and_the_five_safes(heart, url, tmp_path):
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
    safes = [by_id[of["@id"]] for of in root["mentions"] if of["@id"].startswith("#safe-")]
    assert [safe["name"] for safe in safes] == [
        f"Safe {of}" for of in ("people", "projects", "settings", "data", "outputs")
    ]
    assert "Nothing bounds what the model reveals" in safes[-1]["description"]
    every = {value["@id"] for value in links(crate["@graph"])}
    assert {name for name in every - set(by_id) if not name.startswith("https://w3id.org/ro/crate/")} == set()


def links(value: Any) -> list[dict[str, str]]:
    """Return each reference from one entity to another."""
    if isinstance(value, list):
        return [link for one in value for link in links(one)]
    if isinstance(value, dict):
        return [value] if set(value) == {"@id"} else [link for one in value.values() for link in links(one)]
    return []


def test_a_run_without_a_model_has_the_sheets_that_need_none(flfed, tmp_path):
    code, _, err = flfed("study", "run", "loan-table")
    assert code == 0, err
    dossier, answers = made(tmp_path / "dossier")
    assert set(dossier.counts) == {"satre", "impact-assessment"} and len(dossier.left_out) == 5
    assert answers["satre", "3.3.07"]["status"] == "people"
    assert not (tmp_path / "dossier" / "tripod-ai.html").exists()


def test_the_command_prints_each_sheets_counts_and_refuses_what_does_not_go_together(flfed, shown, heart, tmp_path):
    folder, file = str(tmp_path / "dossier"), str(tmp_path / "facts.toml")
    code, out, _ = flfed("run", "report", heart, "--dossier", folder, "--facts", file)
    assert code == 0 and f"{folder}: dossier of run {heart}" in out and f"{file}: written with empty texts" in out
    assert "SR 26-2" in out and len(re.findall(r"answered by the record \d+", out)) == len(SOURCES)
    code, _, err = flfed("run", "report", heart, "--dossier", str(tmp_path / "other"), "--output", "x.html")
    assert code == 2 and "leave out --output" in err
    code, _, err = flfed("run", "report", heart, "--facts", file)
    assert code == 2 and "--facts goes with --dossier" in err
    code, out, _ = flfed("run", "report", heart, "--dossier", str(tmp_path / "json"), "--json")
    counts = json.loads(out)["sheets"]
    assert {name: sum(of.values()) for name, of in counts.items()} == SOURCES


@pytest.mark.browser
def test_the_pages_fit_a_phone_a_screen_and_a4(heart, url, tmp_path):
    write_dossier(tmp_path / "dossier", heart, store=url)
    root = Path(__file__).resolve().parents[2] / "artefacts"
    root.mkdir(exist_ok=True)
    with opened("") as window:
        page = window.page
        for name in ("index", *SOURCES):
            for width, media in ((320, "screen"), (1280, "screen"), (690, "print")):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(media=media)
                page.goto((tmp_path / "dossier" / f"{name}.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            page.pdf(path=root / f"dossier-{name}.pdf", prefer_css_page_size=True)
        assert window.errors == []
