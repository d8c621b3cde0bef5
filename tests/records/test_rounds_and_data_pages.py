"""The page Rounds: what it says is what the record has, to the shown digit."""

import pytest

from flfed.records.dashboard import page_files
from flfed.records.store.entries import SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.text import size_in_words
from tests.records.test_dashboard import overview, words

pytestmark = pytest.mark.usefixtures("shown")

AUC = "roc_auc_score"


def page(name: str, run: str):
    found = overview(run, str(page_files()[name].relative_to(page_files()[name].parents[4])))
    assert not found.exception
    return found


def test_the_cost_of_the_rounds_is_the_sum_of_what_was_written_down(heart: str):
    with RunReader.open() as reader:
        metrics = [reader.metrics(heart, number) for number in range(1, 41)]
        seconds = sum(row.value for rows in metrics for row in rows if row.arm == "clock")
    said = words(page("rounds", heart))
    assert seconds == pytest.approx(40 * 0.2)
    assert "40 rounds: " in said and "The rounds took 8.0 seconds in all." in said


def test_who_missed_rounds_is_said_with_the_count(store, url):
    from tests.records.test_rounds import faults, sent

    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=10, primary=AUC, task="binary")
    for site in ("a", "b", "c"):
        run.sites([SiteRow(site)])
    for number in range(1, 11):
        rows = [row for site in ("a", "b", "c") for row in sent(number, site)]
        run.round(number, seconds=0.5, sent=rows, events=faults(number))
    run.finish(status="completed", seconds=5.0)
    said = words(page("rounds", run.run))
    assert "1 of 3 sites sent a valid update in every round in which they were asked." in said
    assert "2 sites, a among them, missed most: 1 of 10." in said
    to_server = sum(
        row.bytes for n in range(1, 11) for s in "abc" for row in sent(n, s) if row.direction == "to-server"
    )
    assert f"10 rounds: the sites sent {size_in_words(to_server)} and received" in said
    assert "The rounds took 5.0 seconds in all." in said
