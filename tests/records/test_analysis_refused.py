"""An analysis in which a site took no part, and the pages that tell of training: what is said, and where."""

from typing import Any

import pytest

from flfed.notebook.result import CallableReport, Result
from flfed.records.document.document import document
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.words import render
from tests.records.analyses import SHAPES, Found, in_store
from tests.records.documents import read, section, table
from tests.records.one_answer import page, words

MISSING = "1 of 3 sites took no part: site-3 (its policy does not allow the data set small)."
OF_TRAINING = ("compared", "comparison", "asked to train", "by round", "Table 1", "splits", "checked for leaks")
"""What was said on pages of a study that trains nothing."""

pytestmark = pytest.mark.usefixtures("shown")


@pytest.fixture
def found(store, url) -> Found:
    return in_store(store, url, SHAPES["all"], refused="site-3")


def in_order(said: str, *lines: str) -> bool:
    """Whether each line is there, the one after the other."""
    places = [said.index(line) for line in lines]
    return places == sorted(places)


@pytest.mark.parametrize("name", ["p40_curves", "p50_rounds", "p60_data"])
@pytest.mark.parametrize("payload", [SHAPES["all"], None], ids=["completed", "failed"])
def test_a_page_on_training_sends_to_the_overview(store, url, name: str, payload: Found | None):
    said = words(page(name, in_store(store, url, payload, refused="site-3")["run"]))
    assert said.count(render("pages.uncompared.elsewhere")) == 1
    assert not any(line in said for line in OF_TRAINING)


@pytest.mark.parametrize("name", ["p40_curves", "p50_rounds", "p60_data"])
def test_a_run_with_a_model_is_not_sent_away(three: dict[str, Any], name: str):
    assert render("pages.uncompared.elsewhere") not in words(page(name, three["run"]))


def test_who_took_no_part_stands_below_the_figure_and_before_the_tables(found, flfed):
    figure, *notes = statistic_in_words(found["statistics"])
    # Before the choice of rows that the tables follow.
    opened = page("p20_overview", found["run"])
    kinds = [block.type for block in opened.main if block.type in ("warning", "arrow_table", "selectbox")]
    assert words(opened).count(MISSING) == 1 and figure in words(opened)
    said = section(read(document(found["run"])), "Question and answer").words()
    assert said.count(MISSING) == 1 and in_order(said, figure, MISSING, "Rows by sex", "Shares, with 95 % CI", *notes)
    printed = flfed("run", "show", found["run"])[1]
    assert printed.count(MISSING) == 1 and in_order(printed, figure, MISSING, *notes)
    shown = repr(Result(report=CallableReport(found)))
    assert in_order(shown, figure, MISSING, notes[0]) and "compared" not in shown and "rounds" not in shown
    assert kinds == ["warning", "selectbox", "selectbox", "selectbox"]


def test_notes_of_a_document_come_after_its_last_table(store, url):
    every = in_store(store, url, SHAPES["all"])
    said = section(read(document(every["run"])), "Question and answer").words()
    _, *notes = statistic_in_words(every["statistics"])
    titles = [one.title for one in statistic_tables(every["statistics"])]
    assert len(notes) > 4 and len(titles) > 4 and "took no part" not in said
    # The fault: notes above the tables, each of which is pages long.
    assert max(said.rindex(title) for title in titles) < min(said.index(note) for note in notes)


def test_a_document_has_no_column_of_rows_that_no_site_tells(found):
    lines = table(section(read(document(found["run"])), "Sites").all("table")[0])
    assert [line["Site"] for line in lines] == ["site-1", "site-2", "site-3"]
    assert not {"Rows", "Test rows"} & lines[0].keys() and lines[2]["Status"].startswith("refused")


def test_the_results_of_a_site_say_what_a_study_without_a_model_has():
    assert "A study without a model compares none" in render("site_app.results.none")
