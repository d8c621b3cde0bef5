"""The report of a run by reader: one site alone, no markup of others, small counts kept back, and its file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import confusion_matrix

from flfed import Study, load, run
from flfed.errors import UsageError
from flfed.records.document.document import document, write_document
from flfed.records.reports.report import report
from flfed.records.statistics.operating_points import CELLS, probability
from flfed.records.statistics.score_curves import ALL, ScoreCounts
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import AuditRow, ComparisonRow, EventRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.summaries.score_bins import ScoreBins
from tests.records.counted_rows import rows_of
from tests.records.documents import read, section, table, tables, what_it_loads

AUC = "roc_auc_score"
TRAPS = (
    '<script>alert("x")</script>', '"><img src=https://evil.example/a.png onerror=alert(1)>',
    "</style><style>@import url(https://evil.example/a.css)</style>",
    "&lt;b&gt; a & b \u202egpj.exe [x](https://evil.example)",
)  # fmt: skip
FIRST = "Figures with 95 % CI"


@pytest.fixture
def trapped(store, shown) -> str:
    """A run in which whatever others name or write is markup."""
    names = [f"site{place} {trap}" for place, trap in enumerate(TRAPS)]
    study = f'name = "x"\npurpose = {json.dumps(TRAPS[0])}\n# {TRAPS[1]}\n'
    series = store.begin_series(study=TRAPS[0], study_sha256="ab" * 32, study_text=study)
    made = store.begin_run(
        series, engine="inprocess", path=TRAPS[1], seed=1, rounds_planned=2, primary=AUC, task="binary",
        hashes={TRAPS[0]: TRAPS[1]},
    )  # fmt: skip
    for name in names:
        made.sites([SiteRow(name, title=TRAPS[0], rows=100, holdout_rows=30)])
    made.sites([SiteRow("refused", status="refused", reason=TRAPS[1])])
    made.round(1, events=[EventRow(1, names[1], "fault", TRAPS[2])])
    counts = {"0": [[3, 15]], "1": [[9, 15]]}
    bins = {"bins": 256, "limit": 12.0, "centre": None, "spread": None}
    made.summary(
        "score-histograms",
        bins | {"sites": dict.fromkeys(names, counts), "all": counts, "combined-sites": 4, "requested-sites": 4},
    )
    made.summary(
        "table-1", {"rows": [{"Characteristic": TRAPS[0], "All sites": TRAPS[1], names[0]: TRAPS[2]}], "note": TRAPS[3]}
    )
    made.summary("leaks", {"found": [{"column": TRAPS[1]}]})
    private = {"mechanism": TRAPS[0], "unit": "row", "warnings": [TRAPS[1]], "uncharged": list(TRAPS), "sites": {}}
    made.summary("privacy", private | {"epsilon": None, "delta": None})
    rows = [ComparisonRow(name, arm, AUC, 0.7, 0.6, 0.8, 30) for name in names for arm in ("global", "local-only")]
    made.comparison([ComparisonRow(None, "global", AUC, 0.7, 0.6, 0.8, 120), *rows], [])
    made.finish(status="stopped", reason=TRAPS[3])
    store.audit(
        made.run, [AuditRow(TRAPS[0], names[0], TRAPS[1], 0.5, 0.4, 0.6, {"says": TRAPS[2], "verdict": "no promise"})]
    )
    return str(made.run)


def test_what_others_wrote_is_text_and_never_markup(trapped):
    text = document(trapped)
    assert what_it_loads(text) == []
    found = read(text)
    tags = {node.tag for node in found.every()}
    assert tags & {"script", "img", "b"} == set()
    assert len(found.all("style")) == 1
    for trap in TRAPS[:3]:
        assert trap in found.words()
    assert "\u202e" not in text
    assert found.all("title")[0].words().startswith(TRAPS[0])


@pytest.fixture
def closed(small_sites, small_study) -> tuple[dict[str, Any], str]:
    """A run of institutions that keep small cells back, and what every table of the record says."""
    report_of = run(Study.parse(small_study), sites=small_sites(3, rows=80, policy=Policy())).report
    return report_of, str(report_of["run"])


def test_what_a_policy_keeps_back_stays_hidden_as_in_the_record(closed):
    record, name = closed
    with RunReader.open() as reader:
        rows = reader.summary(name, "table-1")["rows"]
    found = read(document(name))
    shown = [line for lines in tables(section(found, "Table 1: characteristics")) for line in lines]
    assert sum(cell == "suppressed" for row in rows for cell in row.values()) > 0
    # A page has a minus sign where the record has a hyphen.
    plain = [{key: re.sub(r"-(?=\d)", "\u2212", " ".join(cell.split())) for key, cell in row.items()} for row in rows]
    assert shown == plain
    # Outcomes in a holdout are counted only where the site gave the counts of its predictions.
    sites = {line["Site"]: line for line in tables(section(found, "Sites"))[0]}
    for site, told in record["sites"].items():
        classes = told["holdout-classes"]
        assert (sites[site].get("Test rows with outcome", "n/a") == "n/a") == (classes is None)
        assert sites[site]["Test rows"] == ("n/a" if told["holdout-rows"] is None else str(told["holdout-rows"]))
    # Every whole number of the tables of sites and data is one that the record has.
    known = " ".join(cell for row in rows for cell in row.values()) + json.dumps(record)
    cells = [cell for line in sites.values() for name, cell in line.items() if name not in ("Sent", "Site")]
    assert [word for cell in cells for word in re.findall(r"\d+", cell) if word not in known] == []


@pytest.mark.studies
def test_it_is_written_over_an_earlier_report_and_over_nothing_else(three, tmp_path):
    file = tmp_path / "run.html"
    write_document(file, three["run"])
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    write_document(file, three["run"])
    assert file.read_text() == first == document(three["run"])
    other = tmp_path / "thesis.html"
    other.write_text("<!DOCTYPE html>\n<p>years of work</p>")
    link = tmp_path / "link.html"
    link.symlink_to(file)
    for place in (other, tmp_path, link, tmp_path / "no" / "such.html"):
        with pytest.raises(UsageError):
            write_document(place, three["run"])
    assert other.read_text().endswith("years of work</p>")


@pytest.mark.studies
def test_the_command_writes_the_report(three, flfed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = three["run"]
    code, out, _ = flfed("run", "report", "latest", "--json")
    assert (code, json.loads(out)) == (0, {"run": name, "file": f"{name}.html"})
    assert Path(f"{name}.html").read_text() == document(name)
    code, _, told = flfed("run", "report", "no-such-run")
    assert code == 2 and "is not in the store" in told


def test_an_anonymous_report_and_its_reader_have_no_name_of_a_site(three, flfed, tmp_path):
    file = tmp_path / "anonymous.html"
    code, _, err = flfed("run", "report", three["run"], "--output", str(file), "--anonymous")
    assert (code, err) == (0, "")
    names = sorted(three["sites"])
    text = file.read_text(encoding="utf-8")
    assert not any(name in text for name in names) and all(f"site {n}" in text for n in (1, 2, 3))
    with RunReader.open(anonymous=three["run"]) as reader:
        told = report(reader, three["run"])
        points = reader.curves([three["run"]], arm="validation", metric="loss", sites=["site 2"])
    assert list(told["sites"]) == ["site 1", "site 2", "site 3"] and not any(name in str(told) for name in names)
    assert {point.site for point in points} <= {None, "site 2"}
    with RunReader.open() as reader:
        assert report(reader, three["run"]) == three


def test_a_result_writes_its_report_and_is_still_read_as_a_mapping(three, tmp_path):
    result = load(three["run"])
    assert result.report(tmp_path / "run.html").read_text() == document(three["run"])
    assert result.report["rounds"] == three["rounds"] and json.loads(json.dumps(result.report)) == dict(result.report)


def test_who_would_be_flagged_is_that_of_scikit_learn_and_of_a_hand_computation(three):
    flagged = section(read(document(three["run"])), "Flagged rows")
    with RunReader.open() as reader:
        payload = reader.summary(three["run"], "score-histograms")
    assert [title.words() for title in flagged.all("h3")][1] == "At an alert budget of 5 %"
    cells, figures = tables(flagged)[:2]
    edges = sorted({float(low) for site in payload["sites"].values()
                    for low in ScoreCounts.read(site, ScoreBins.of(payload)).low})  # fmt: skip
    for line, told in zip(cells, figures, strict=True):
        of = payload["all"] if line["Rows of"] == ALL else payload["sites"][line["Rows of"]]
        counts = ScoreCounts.read(of, ScoreBins.of(payload))
        y, score = rows_of(counts, counts.low)
        threshold = next(edge for edge in edges if probability(edge) == line["Flagged from"])
        tn, fp, fn, tp = confusion_matrix(y, score >= threshold).ravel()
        shown = [int(line[name]) for name in CELLS]
        assert shown == [tp, fp, fn, tn]
        assert told["Sensitivity"] == number(tp / (tp + fn)) and told["Specificity"] == number(tn / (tn + fp))
        assert told["Net benefit"] == number(tp / len(y) - fp / len(y) * threshold / (1 - threshold))
        assert line["Flagged"] == f"{tp + fp} of {len(y)}"
    budget = tables(flagged)[2]
    assert all(int(line["Flagged"].split()[0]) <= 0.05 * int(line["Flagged"].split()[2]) for line in budget)


def test_counts_at_a_studys_rates_are_the_records(small_sites, small_study):
    text = small_study.replace("[compare]\n", "[compare]\nfalse-positive-rates = [0.3, 0.1]\n")
    record = run(Study.parse(text), sites=small_sites(3, rows=200)).report
    points = record["operating-points"]
    asked = section(read(document(record["run"])), "Flagged rows at the study's false positive rates")
    assert [title.words() for title in asked.all("h3")] == [
        "At false alarms in 30 % of training rows without the outcome",
        "At false alarms in 10 % of training rows without the outcome",
    ]  # fmt: skip
    for place in range(2):
        for line in tables(asked)[2 * place]:
            mine = points["all"] if line["Rows of"] == ALL else points["sites"][line["Rows of"]]
            assert [int(line[name]) for name in CELLS] == [mine[place][key] for key in ("tp", "fp", "fn", "tn")]


def test_a_count_that_a_policy_holds_back_is_not_in_the_report_either(small_sites, small_study):
    text = small_study.replace("[compare]\n", "[compare]\nfalse-positive-rates = [0.1]\n")
    record = run(Study.parse(text), sites=small_sites(3, rows=300, policy=Policy())).report
    points, least = record["operating-points"], Policy().cell_minimum
    held = [of for one in points["sites"].values() for of in one if of["tp"] is None]
    assert len(held) > 0
    for at in section(read(document(record["run"])), "Flagged rows at the study's false positive rates").all("table"):
        for line in table(at):
            shown = [int(line[name]) for name in CELLS if line.get(name, "n/a") != "n/a"]
            assert len(shown) in (0, 4) and all(count == 0 or count >= least for count in shown)
