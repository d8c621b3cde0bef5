"""The conductor: who takes part, whose sums are used, what a fault costs, and what crossed."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Error, Message

from flfed.errors import RunStopped
from flfed.federation.server.run import resume, run
from flfed.paths import home
from flfed.records.statistics.verdict import number
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.rows.data.sources import Csv, Frame
from flfed.rows.features.summarise import summarise
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.aggregation.guard import summary_defect
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply
from flfed.updates.messages.train import EVALUATE, TRAIN

Conduct = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Raising(Frame):
    """A frame whose reading fails with a cell in the error's text."""

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        raise ValueError(f"could not convert string to float: {self.table['person'].iloc[0]!r}")


def tampering(kind: str, node: int, change: Callable[[Message], Message | None]) -> Callable[[Message], Message | None]:
    """Return a change of one node's replies of one kind."""

    def apply(reply: Message) -> Message | None:
        hit = reply.metadata.message_type == kind and reply.metadata.src_node_id == node
        return change(reply) if hit else reply

    return apply


def with_summary(**fields: Any) -> Callable[[Message], Message]:
    """Return a change that replaces arrays of a site's sums."""

    def change(reply: Message) -> Message:
        summary = SummariseReply.from_record(reply.content).summary
        made = {name: make(getattr(summary, name)) for name, make in fields.items()}
        reply.content = SummariseReply(summary=replace(summary, **made)).to_record()
        return reply

    return change


def failing(reply: Message, reason: str = "ValueError: see the site's log") -> Message:
    answered = Message(Error(code=1, reason=reason), reply_to=reply)
    answered.metadata.__dict__.update(
        _src_node_id=reply.metadata.src_node_id, _message_type=reply.metadata.message_type
    )
    return answered


def test_the_record_names_who_takes_part_and_who_refused(small_sites, small_study, conduct: Conduct, tmp_path: Path):
    def spoil(number: int, table: pd.DataFrame) -> pd.DataFrame:
        if number == 1:
            table.loc[:8, "colour"] = "purple"
        return table

    sites = small_sites(4, change=spoil)
    sites[3] = replace(sites[3], source=Csv(str(tmp_path / "absent.csv")))
    done = conduct(sites, small_study)
    assert done.outcome.status == "completed"
    found = {site.site: (site.status, site.reason) for site in done.reader.sites(done.run)}
    assert found == {
        "site-01": ("accepted", ""),
        "site-02": ("refused", "column 'colour' has a value that the schema does not allow in fewer than 10 rows"),
        "site-03": ("accepted", ""),
        "site-04": ("refused", "it cannot open its table for this study; at the site: flfed site check site-04"),
    }
    assert done.reasons("refused") == {site: reason for site, (status, reason) in found.items() if status == "refused"}
    asked = Counter(heard.site for heard in done.sent(TRAIN, "to-site"))
    assert asked == {"site-01": 5, "site-03": 5}


def test_a_node_that_fails_at_enrolment_is_recorded_and_the_run_goes_on(small_sites, small_study, conduct: Conduct):
    sites = small_sites(3)
    sites[0] = replace(sites[0], source=Raising(sites[0].source.table))
    done = conduct(sites, small_study)
    assert done.outcome.status == "completed"
    assert done.reasons("fault") == {None: "a node did not enrol: site-01: ValueError: see the site's log"}


def test_one_site_alone_is_too_few_and_the_reason_says_why(small_sites, small_study, conduct: Conduct, tmp_path: Path):
    sites = small_sites(2)
    sites[1] = replace(sites[1], source=Csv(str(tmp_path / "absent.csv")))
    done = conduct(sites, small_study)
    assert str(done.error).startswith("only one site takes part, at least 2 are needed (site-02: it cannot open its")
    assert len(done.sent(SUMMARISE, "to-site")) == 0


@pytest.mark.parametrize("reason", ["ValueError: see the site's log", "site-02: ValueError: see the site's log"])
def test_where_too_few_sites_answer_each_ones_name_stands_once(small_sites, small_study, conduct: Conduct, reason: str):
    done = conduct(small_sites(2), small_study, change=tampering(SUMMARISE, 2, partial(failing, reason=reason)))
    assert str(done.error).endswith("are needed (site-02: ValueError: see the site's log)")


def test_two_nodes_of_one_name_end_the_run(small_sites, small_study, conduct: Conduct):
    def as_first(reply: Message) -> Message:
        claimed = replace(EnrolReply.from_record(reply.content), site="site-01")
        reply.content = claimed.to_record()
        return reply

    done = conduct(small_sites(3), small_study, change=tampering(ENROL, 2, as_first))
    assert str(done.error) == "two nodes report that they are site 'site-01'; a site's name must be unique"


@pytest.mark.studies
@pytest.mark.parametrize(("fields", "reason"), [
    ({"rows": lambda rows: rows * np.nan}, "its sums are not finite"),
    ({"cells": lambda cells: cells[1:]}, "its sums have another layout (cells)"),
    ({"cells": lambda cells: -cells}, "its counts are negative"),
    ({"rows": lambda rows: np.array([1e9])}, "its rows are above the declared band (at most 999)"),
    ({"cells": lambda cells: cells * 1e6}, "its counts do not add up to its rows"),
    ({"left": lambda left: left + 1}, "its counts do not add up to its rows"),
    ({"lower": lambda lower: lower + 500}, "its counts do not add up to its rows"),
    ({"moments": lambda moments: moments + [0, 1e5, 0]}, "its sums do not go together"),
    ({"moments": lambda moments: moments * [1, 1, 0]}, "its sums do not go together"),
    ({"sites": lambda sites: sites * 50}, "it is not the sum of one site"),
    ({"cells_known": lambda known: known * 5}, "it is not the sum of one site"),
    ({"leaks": lambda leaks: leaks + 1e6}, "its leak sums do not go together"),
])  # fmt: skip
def test_sums_that_would_spoil_the_encoder_are_unusable_and_honest_ones_are_not(plain, closed, fields, reason):
    for done in (plain, closed):
        layout = done.sessions()[0].layout
        for heard in done.sent(SUMMARISE, "to-server"):
            honest = SummariseReply.from_record(heard.message.content).summary
            assert summary_defect(honest, layout, rows_high=999) is None
            made = {name: make(getattr(honest, name)) for name, make in fields.items()}
            assert summary_defect(replace(honest, **made), layout, rows_high=999) == reason


def test_unusable_sums_of_one_site_leave_it_out_and_the_encoder_is_of_the_others(small_sites, small_study, conduct):
    # site 2 has some 50 training rows and enrolled with the band 10 to 99
    huge = with_summary(rows=lambda rows: np.array([100.0]))
    done = conduct(small_sites(3), small_study, change=tampering(SUMMARISE, 2, huge))
    assert done.outcome.status == "completed"
    assert done.reasons("fault") == {"site-02": "its rows are above the declared band (at most 99)"}
    others = [w for w in done.sessions() if w.site.name != "site-02"]
    expected = fit_encoder(others[0].layout, merge([summarise(w.table.training, w.layout) for w in others]))
    np.testing.assert_allclose(done.outcome.encoder.center, expected.center, rtol=1e-12)
    assert {heard.site for heard in done.sent(TRAIN, "to-site")} == {"site-01", "site-03"}


def test_a_reply_that_never_comes_is_a_fault_with_a_name(small_sites, small_study, conduct: Conduct):
    done = conduct(small_sites(3), small_study, change=tampering(SUMMARISE, 3, lambda reply: None))
    assert done.outcome.status == "completed"
    assert done.reasons("fault") == {"site-03": "no reply before the deadline"}


def test_a_reply_that_is_no_message_of_ours_is_a_fault_with_a_name(small_sites, small_study, conduct: Conduct):
    def empty(reply: Message) -> Message:
        del reply.content["summary"]
        return reply

    done = conduct(small_sites(3), small_study, change=tampering(SUMMARISE, 1, empty))
    assert done.reasons("fault") == {"site-01": "the message has no arrays 'summary'"}
    assert done.outcome.status == "completed"


def test_a_site_that_cannot_compare_costs_its_own_figures_and_the_pooled_ones(small_sites, small_study, conduct):
    done = conduct(small_sites(3), small_study, change=tampering(COMPARE, 2, failing), tables=True)
    assert done.outcome.status == "completed"
    assert done.reasons("fault") == {"site-02": "no comparison: ValueError: see the site's log"}
    assert "no pooled reference: not every site could be compared" in done.reasons("note").values()
    figures = done.reader.figures(done.run)
    assert {f.site for f in figures} == {None, "site-01", "site-03"}
    assert "pooled" not in {f.arm for f in figures}
    union = next(f for f in figures if (f.site, f.arm, f.metric) == (None, "global", "roc_auc_score"))
    assert union.method == "merged score histograms"
    assert 0.5 < union.value < 1


def test_bad_sums_of_a_comparison_are_left_out_and_its_figures_kept(small_sites, small_study, conduct: Conduct):
    def spoil(reply: Message) -> Message:
        good = CompareReply.from_record(reply.content)
        reply.content = replace(good, summary=replace(good.summary, cells=good.summary.cells * np.nan)).to_record()
        return reply

    done = conduct(small_sites(3), small_study, change=tampering(COMPARE, 2, spoil))
    assert done.reasons("fault") == {"site-02": "holdout rows: its sums are not finite"}
    table = done.reader.summary(done.run, "table-1")
    assert table["note"].endswith("counted: site-02.")
    figures = {(f.site, f.metric): f for f in done.reader.figures(done.run) if f.arm == "global"}
    assert figures["site-02", "roc_auc_score"].value > 0.5
    assert figures[None, "roc_auc_score"].n == sum(figures[f"site-0{k}", "roc_auc_score"].n for k in (1, 2, 3))


def test_bytes_of_every_kind_and_direction_are_in_the_record_at_their_round(plain):
    done = plain
    crossed: Counter[tuple[str, str, str]] = Counter()
    for heard in done.grid.heard:
        crossed[heard.site, heard.direction, heard.kind] += count_bytes(heard.message.content)
    recorded = {(row["site"], row["direction"], row["kind"]): row["bytes"] for row in sent_rows(done)}
    assert recorded == crossed
    assert {kind for _, _, kind in recorded} == {ENROL, SUMMARISE, TRAIN, EVALUATE, COMPARE}
    assert min(recorded.values()) > 0
    assert done.reader.bytes_sent([done.run]) == {
        way: sum(size for (_, direction, _), size in crossed.items() if direction == way)
        for way in ("to-site", "to-server")
    }
    rounds: dict[str, set[int]] = {}
    for row in sent_rows(done, by_round=True):
        rounds.setdefault(row["kind"], set()).add(row["round"])
    assert rounds == {ENROL: {0}, SUMMARISE: {0}, TRAIN: {1, 2, 3, 4, 5}, EVALUATE: {6}, COMPARE: {6}}


def sent_rows(done: Any, *, by_round: bool = False) -> list[dict[str, Any]]:
    """Return the sums of the table of bytes, read by plain SQL."""
    from sqlalchemy import text

    keys = "round, site, direction, kind" if by_round else "site, direction, kind"
    query = text(f"SELECT {keys}, SUM(bytes) AS bytes FROM sent WHERE run_id = :run GROUP BY {keys}")
    with done.reader._engine.connect() as connection:
        return [dict(row) for row in connection.execute(query, {"run": done.run}).mappings()]


def test_disclosure_institution_says_what_it_cost(closed):
    done = closed
    cost = done.reader.summary(done.run, "disclosure")
    note = done.reasons("note")[None]
    assert note.startswith("disclosure 'institution' moved AUC over all test rows by ")
    sessions = done.sessions()
    exact = fit_encoder(sessions[0].layout, merge([summarise(w.table.training, w.layout) for w in sessions]))
    used = done.outcome.encoder
    moved = abs(used.center[0] - exact.center[0]) / exact.scale[0]
    assert cost["columns-moved"]["x1"] == pytest.approx(moved, rel=1e-9)
    assert set(cost["columns-moved"]) == {column.name for column in sessions[0].layout.columns}
    far = sum(by > 0.1 for by in cost["columns-moved"].values())
    assert f"in the encoder {far} of {len(cost['columns-moved'])} columns moved" in note
    # counts in bins of 5 mm leave, so a mean is off by less than half a bin, here a quarter of a deviation
    assert 0 < abs(used.center[0] - exact.center[0]) < 2.5
    assert abs(cost["primary-moved"]) < 0.05
    assert f"by {number(cost['primary-moved'], signed=True)}, beside exact sums; in the encoder" in note


def test_what_disclosure_costs_is_the_same_under_secure_sums(closed, small_sites, small_study, conduct):
    study = small_study + '\n[privacy]\nsecure-aggregation = "on"\n'
    done = conduct(small_sites(3, rows=80, policy=Policy()), study, tables=True)
    cost, plain = (run.reader.summary(run.run, "disclosure") for run in (done, closed))
    assert done.reader.summary(done.run, "secure-sums")["kind"] == "rehearsed"
    assert cost["columns-moved"] == plain["columns-moved"]
    assert cost["primary-moved"] == pytest.approx(plain["primary-moved"], abs=1e-3)


def test_disclosure_open_costs_nothing_and_says_nothing(plain):
    assert plain.reader.summary(plain.run, "disclosure") is None
    assert plain.reasons("note") == {}


def test_an_unrecorded_second_federation_leaves_no_rounds_in_the_record(closed):
    # The cost of suppression is measured by a second federation: 2 x 5 rounds are asked, 5 are recorded.
    done = closed
    assert len(done.sent(TRAIN, "to-site")) == 2 * 5 * 3
    assert done.reader.runs_of(done.run)[0].rounds == 5
    assert sum(row["kind"] == TRAIN for row in sent_rows(done, by_round=True)) == 2 * 5 * 3


def test_a_repeat_has_a_seed_of_its_own_for_the_servers_draws_too(small_sites, small_study, conduct: Conduct):
    text = small_study.replace('name = "logistic"', 'name = "logistic"\nstart = "uniform"').replace("= 5", "= 1")
    first, last = [], []
    for repeat in (0, 0, 1):
        done = conduct(small_sites(2), text, repeat=repeat)
        last.append(done.outcome.arrays_sha256())
        asked = done.sent(TRAIN, "to-site")
        first.append(asked[0].message.content.array_records["arrays"]["weight"].numpy())
        np.testing.assert_array_equal(first[-1], asked[1].message.content.array_records["arrays"]["weight"].numpy())
    np.testing.assert_array_equal(first[0], first[1])
    assert np.abs(first[0] - first[2]).max() > 0.01
    assert last[0] == last[1] != last[2]


def test_a_run_that_stops_keeps_its_last_good_model_and_compares_nothing(small_sites, small_study, conduct: Conduct):
    counted = Counter[str]()

    def fail_from_round_3(reply: Message) -> Message:
        if reply.metadata.message_type != TRAIN:
            return reply
        counted["replies"] += 1
        return failing(reply) if counted["replies"] > 2 * 3 and reply.metadata.src_node_id != 1 else reply

    done = conduct(small_sites(3), small_study, change=fail_from_round_3)
    assert done.outcome.status == "stopped"
    assert done.outcome.reason.startswith("round 3 had 1 good updates of 3 asked, 3 are needed (site-02: ValueError")
    assert (done.outcome.rounds, done.outcome.best_round) == (2, 2)
    assert done.sent(COMPARE, "to-site") == []
    after_two = done.sent(TRAIN, "to-site")[2 * 3].message.content.array_records["arrays"]
    np.testing.assert_array_equal(done.outcome.arrays["weight"], after_two["weight"].numpy())
    # The round that missed its quorum is no round of the record, though one site's update was good.
    assert done.reader.runs_of(done.run)[0].rounds == 2
    assert set(done.reasons("fault")) == {"site-02", "site-03"}


class Watched:
    """Watches what the sites said first, when it is written and when it is read: how much of it is alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        self.alive: list[int] = []
        begin, opened = checkpoints.begin, checkpoints._opened
        monkeypatch.setattr(checkpoints, "begin", lambda *given: self.wrote(given[2]) or begin(*given))
        monkeypatch.setattr(checkpoints, "_opened", lambda *given, **named: self.read(opened(*given, **named)))

    def wrote(self, summaries: Any) -> None:
        """Watch every site's sums, their arrays, and whose views these are."""
        arrays = [array for summary in summaries.values() for array in summary.arrays().values()]
        bases = [array.base for array in arrays if isinstance(array.base, np.ndarray)]
        self.seen += map(weakref.ref, [*summaries.values(), *arrays, *bases])

    def read(self, found: Any) -> Any:
        """Watch the sums of all sites that a file holds."""
        self.seen += [weakref.ref(value) for name, value in found[0].items() if name.startswith("summaries/")]
        return found

    def count(self, stage: str, round: int) -> None:
        """Count at the end of a round; the observer of a run. In round 3 it is ended."""
        gc.collect()
        self.alive.append(sum(ref() is not None for ref in self.seen))
        if (stage, round) == ("round", 3):
            raise KeyboardInterrupt


@pytest.mark.studies
@pytest.mark.parametrize("stacked", [True, False])
def test_what_the_sites_said_first_is_not_held_in_the_rounds_and_is_in_table_1(
    stacked: bool, small_sites, small_study, monkeypatch
):
    study, sites = Study.parse(small_study), small_sites(3)
    whole = run(study, sites=sites, stacked=stacked)
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "0")
    watched = Watched(monkeypatch)
    with pytest.raises(RunStopped):
        run(study, sites=sites, stacked=stacked, observer=watched.count)
    assert len(watched.seen) >= 3 * (1 + 10)
    assert watched.alive == [0] * 6
    written = len(watched.seen)
    done = resume("latest", sites=sites, observer=watched.count)
    assert len(watched.seen) == written + 10 + 10 + 10  # to go on, to compare the rows, and for Table 1
    assert watched.alive == [0] * (6 + 5)
    with RunReader.open() as reader:
        first, again = (reader.summary(of, "table-1") for of in (whole.run, done.run))
    assert first == again
    assert len(first["rows"]) > 3


def test_a_run_whose_start_file_was_lost_meanwhile_has_all_but_table_1(small_sites, small_study):
    def lose(stage: str, round: int) -> None:
        if stage == "evaluation":
            (start,) = home().glob("runs/*/start.safetensors")
            start.unlink()

    study, sites = Study.parse(small_study), small_sites(2)
    done = run(study, sites=sites, observer=lose)
    assert done.status == "completed"
    with RunReader.open() as reader:
        assert reader.summary(done.run, "table-1") is None
        assert len(reader.figures(done.run)) > 10
        (note,) = (event.reason for event in reader.events([done.run]) if event.kind == "note")
    assert note.startswith("no Table 1: ") and note.endswith("start.safetensors: is missing")
