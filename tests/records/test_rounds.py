"""What happened round by round, as the database adds it up, against the rows it was given."""

import math

import pytest

from flfed.records.reports import round_totals as by_database
from flfed.records.reports.round_totals import band_of, nested_width
from flfed.records.store.entries import CurvePoint, EventRow, MetricRow, SentRow
from flfed.records.store.reader import RunReader
from flfed.records.text import size_in_words

SITES = ("a", "b", "c")


def sent(round: int, site: str) -> list[SentRow]:
    """`b` is not asked in even rounds, `c` does not answer in round 5."""
    if site == "b" and round % 2 == 0:
        return []
    size = 100 * round + SITES.index(site)
    back = [] if (site, round) == ("c", 5) else [SentRow(site, "to-server", "train", 2 * size)]
    return [SentRow(site, "to-site", "train", size), *back]


def faults(round: int) -> list[EventRow]:
    found = {3: ("a", "not finite"), 5: ("c", "no answer before the deadline")}.get(round)
    return [] if found is None else [EventRow(round, found[0], "fault", found[1])]


@pytest.fixture
def run(store, url, monkeypatch):
    """A run of ten rounds; what crossed before and after them counts for none."""
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="s", study_sha256="", study_text="")
    writer = store.begin_run(
        series, engine="inprocess", path="", seed=1, rounds_planned=10, primary="roc_auc_score", task="binary"
    )
    writer.sent(0, [SentRow(site, "to-site", "query.enrol", 9) for site in SITES])
    for number in range(1, 11):
        rows = [row for site in SITES for row in sent(number, site)]
        writer.round(number, seconds=number / 10, sent=rows, events=faults(number))
    writer.sent(11, [SentRow(site, "to-site", "evaluate", 9) for site in SITES])
    writer.events([EventRow(11, "a", "fault", "no comparison: no answer")])
    return writer


def test_rounds_asked_answered_and_rejected_are_counted_by_site(run):
    with RunReader.open() as reader:
        found = by_database.participation(reader, [run.run])
        twice = by_database.participation(reader, [run.run, run.run])
    # b is not asked in even rounds; the update of a in round 3 was rejected, while c sent none in round 5.
    assert [(share.site, share.asked, share.answered, share.rejected) for share in found] == [
        ("a", 10, 10, 1), ("b", 5, 5, 0), ("c", 10, 9, 0)
    ]  # fmt: skip
    assert found == twice  # one run, named twice, is one


def test_the_band_of_a_figure_follows_from_its_variance():
    # 0.8 ± 1.96 * 0.05, and cut at 1 where the metric ends there
    point = CurvePoint(1, "a", "training", 0.8, None, None, 0.0025)
    assert band_of(point, "roc_auc_score") == (pytest.approx(0.702, abs=1e-4), pytest.approx(0.898, abs=1e-4))
    high = CurvePoint(1, "a", "training", 0.95, None, None, 0.0025)
    assert band_of(high, "roc_auc_score")[1] == 1.0
    assert band_of(high, "r2_score")[1] == pytest.approx(1.048, abs=1e-4)
    assert band_of(CurvePoint(1, "a", "training", 0.8, 0.7, 0.9, 0.0025), "roc_auc_score") == (0.7, 0.9)
    assert band_of(CurvePoint(1, "a", "training", 0.8, None, None), "roc_auc_score") == (None, None)
    assert band_of(CurvePoint(1, "a", "training", None, None, None, math.nan), "roc_auc_score") == (None, None)


def test_the_variance_of_a_site_is_read_with_its_curve(run):
    run.metrics(10, [MetricRow("a", "training", "roc_auc_score", 0.8, variance=0.0025)])
    with RunReader.open() as reader:
        (point,) = reader.curves([run.run], arm="training", metric="roc_auc_score")
    assert point.variance == pytest.approx(0.0025)


def test_blocks_are_as_wide_as_a_screen_asks():
    assert [nested_width(rounds, 60) for rounds in (0, 1, 60, 61, 120, 121, 500)] == [1, 1, 1, 2, 2, 4, 16]


def test_bytes_of_a_round_are_means_of_the_rows_with_what_the_codec_saved_beside_them(run):
    rows = [row for number in range(1, 11) for site in SITES for row in sent(number, site)]
    out, back = ([row.bytes for row in rows if row.direction == way] for way in ("to-site", "to-server"))
    with RunReader.open() as reader:
        plain = by_database.round_bytes(reader, [run.run])
    assert plain == {
        "to-server": {"round": pytest.approx(sum(back) / 10), "message": pytest.approx(sum(back) / len(back))},
        "to-site": {"round": pytest.approx(sum(out) / 10), "message": pytest.approx(sum(out) / len(out))},
    }
    assert "uncompressed" not in by_database.bytes_in_words(plain)
    run.summary("codec", {"name": "top-k", "saved": 30})
    with RunReader.open() as reader:
        packed = by_database.round_bytes(reader, [run.run])
    assert packed["codec"] == "top-k" and packed["to-site"] == plain["to-site"]
    # A site that did not answer saved nothing.
    whole = sum(back) + len(back) * 30
    unpacked = {"round": pytest.approx(whole / 10), "message": pytest.approx(whole / len(back))}
    assert packed["to-server"] == {**plain["to-server"], "uncompressed": unpacked}
    said = f"(uncompressed: {size_in_words(round(whole / len(back)))})"
    assert said in by_database.bytes_in_words(packed)


def test_no_training_has_no_bytes_of_a_round(store, url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="s", study_sha256="", study_text="")
    writer = store.begin_run(
        series, engine="inprocess", path="", seed=1, rounds_planned=10, primary="roc_auc_score", task="binary"
    )
    with RunReader.open() as reader:
        assert by_database.round_bytes(reader, [writer.run]) is None
    assert by_database.bytes_in_words(None) == ""
