"""What of a site's figures is written down, and under which name: in store, files and logs, and by subtraction."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as draw

from flfed.errors import FlfedError
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.sharing import SharedAs
from flfed.federation.server.server import FederatedRun
from flfed.records.reports.narrative import comparison_rows
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.store.entries import EventRow
from flfed.rows.data.site import Policy, Site
from flfed.study.study import Study
from flfed.updates.aggregation.rounds import summable
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply

pytestmark = [pytest.mark.slow, pytest.mark.studies]

LONE = "site-02"
Shares = Mapping[str, str]


@pytest.fixture
def sites(small_sites: Callable[..., list[Site]]) -> Callable[..., list[Site]]:
    """A function that makes open sites of which some share their figures otherwise: `sites(4, {"site-02": ...})`."""

    def make(count: int, shares: Shares, rows: int = 150) -> list[Site]:
        policy = Policy(disclosure="open", resplit=True, outputs=("score-histogram",))
        made = small_sites(count, rows=rows, policy=policy)
        return [
            replace(site, policy=policy.model_copy(update={"share_metrics": shares.get(site.name, "named")}))
            for site in made
        ]

    return make


def figures_of(run, site: str) -> dict[str, float]:
    """Return every figure of its own model's worth that a site sent in a run."""
    found: dict[str, float] = {}
    for kind in (TRAIN, EVALUATE):
        for number, heard in enumerate(h for h in run.sent(kind, "to-server") if h.site == site):
            reply = TrainReply.from_record(heard.message.content)
            found |= {f"{kind} {number} loss": reply.loss} if reply.steps else {}
            if (scores := reply.scores) is not None:
                found |= {f"{kind} {number} {scores.rows} {name}": value for name, value in scores.metrics.items()}
                found |= {f"{kind} {number} {scores.rows} var {n}": value for n, value in scores.variances.items()}
    for heard in (h for h in run.sent(COMPARE, "to-server") if h.site == site):
        reply = CompareReply.from_record(heard.message.content)
        for figure in (*reply.arms, *reply.differences):
            found |= {f"{figure.arm} {figure.metric} {end}": getattr(figure, end) for end in ("value", "low", "high")}
    # A share such as 0.75 comes about by chance, and the loss of the model of zeros is the same everywhere.
    common = {name for name, value in found.items() if not math.isfinite(value) or len(repr(value)) <= 12}
    return {name: value for name, value in found.items() if name not in common and abs(value - math.log(2)) > 1e-12}


def written(home: Path) -> Iterator[bytes]:
    """Yield all that a run left on the disk, and the numbers of the store as SQLite keeps them."""
    for path in sorted(home.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def standing(figures: Mapping[str, float], places: Sequence[bytes]) -> list[str]:
    """Return the names of the figures that stand somewhere: as a number of either byte order, or as text."""
    forms = {
        name: (struct.pack(">d", value), struct.pack("<d", value), repr(value)[:12].encode())
        for name, value in figures.items()
    }
    return [name for name, wanted in forms.items() if any(form in place for place in places for form in wanted)]


def test_figures_in_sums_only_reach_no_store_no_file_and_no_log(sites, small_study, conduct, home, caplog, capfd):
    with caplog.at_level("DEBUG"):
        run = conduct(sites(4, {LONE: "aggregate-only"}), small_study, tables=True)
    output = capfd.readouterr()
    places = [*written(home), caplog.text.encode(), output.out.encode(), output.err.encode()]
    assert {path.stat().st_mode & 0o777 for path in (home / "runs").rglob("*.safetensors")} == {0o600}
    own, others = figures_of(run, LONE), figures_of(run, "site-01")
    assert len(own) > 30 and standing(own, places) == []
    assert len(standing(others, places)) == len(others)  # what is looked for can be found
    found = report(run.reader, run.run)["sites"][LONE]
    assert (found["rows"], found["holdout-rows"], found["global"], found["difference"]) == (None, None, {}, {})
    assert (
        site_verdict(found, "log_loss")[1]
        == "Log loss cannot be compared here: this site shares no figures of its own."
    )
    assert LONE not in str(run.reader.summary(run.run, "table-1")["rows"])


def test_nor_does_one_follow_by_subtraction(sites, small_study, conduct):
    """Of each figure over all sites: less those of the others, weighted, it is not the figure of the one."""
    named = conduct(sites(3, {}), small_study)
    alone = conduct(sites(3, {LONE: "aggregate-only"}), small_study, tables=True)
    followed = {run.run: 0 for run in (named, alone)}
    for run in (named, alone):
        for number in range(1, run.study.rounds):  # the first model is all zeros, and its loss the same everywhere
            rows = run.reader.metrics(run.run, number)
            scores = {
                h.site: TrainReply.from_record(h.message.content).scores
                for h in run.sent(TRAIN, "to-server")[3 * number :][:3]
            }
            every = sum(s.num_examples for s in scores.values())
            totals = {row.metric: row for row in rows if row.site is None and row.arm == "training"}
            assert {row.n for row in totals.values()} == {every if run is named else every - scores[LONE].num_examples}
            assert {"loss", "roc_auc_score"} <= totals.keys()
            rest = math.fsum(scores[s].num_examples * scores[s].metrics["loss"] for s in scores if s != LONE)
            own = (every * totals["loss"].value - rest) / scores[LONE].num_examples
            followed[run.run] += own == pytest.approx(scores[LONE].metrics["loss"], rel=1e-9)
    assert followed == {named.run: named.study.rounds - 1, alone.run: 0}
    over_all = report(alone.reader, alone.run)
    assert {figure["value"] for figure in over_all["global"].values()} == {None}
    assert all("a site that shares none" in figure["reason"] for figure in over_all["global"].values())
    assert [figure.n for figure in alone.reader.figures(alone.run) if figure.arm == "global" and not figure.site] == [
        None
    ] * len(over_all["global"])
    counted = [over_all["sites"][site]["rows"] for site in ("site-01", "site-03")]
    assert alone.reader.summary(alone.run, "table-1")["rows"][0]["All sites"] == str(sum(counted))
    assert "no pooled reference: withheld" in " ".join(event.reason for event in alone.reader.events([alone.run]))
    assert over_all["pooled"] is None and "over all sites is not known" in str(comparison_rows(over_all))
    mean = over_all["sites-mean"]["log_loss"]["value"]
    two = [over_all["sites"][site]["global"]["log_loss"]["value"] for site in ("site-01", "site-03")]
    assert mean == pytest.approx(sum(two) / 2, abs=1e-12)


def test_of_two_sites_in_sums_only_the_sum_is_exact_and_neither_is_told(sites, small_study, conduct, home):
    shares = {LONE: "aggregate-only", "site-03": "aggregate-only"}
    # Of 150 rows, one site's AUC happens to be another's too: 18 of 23.
    run = conduct(sites(3, shares, rows=156), small_study, tables=True)
    plain = conduct(sites(3, {}, rows=156), small_study, tables=True)
    both = report(run.reader, run.run), report(plain.reader, plain.run)
    for arm in ("global", "pooled", "personalised"):
        for metric, figure in both[1][arm].items():
            assert both[0][arm][metric]["value"] == pytest.approx(figure["value"], abs=1e-12)
    for site in shares:
        own = figures_of(run, site)
        assert own and standing(own, [repr(report(run.reader, run.run)).encode()]) == []
    # Another weighting of the same two would give two equations for two unknowns.
    only = both[0]["sites"]["site-01"]["global"]["log_loss"]["value"]
    assert both[0]["sites-mean"]["log_loss"]["value"] == only
    table = run.reader.summary(run.run, "table-1")["rows"]
    assert table[0]["All sites"] == plain.reader.summary(plain.run, "table-1")["rows"][0]["All sites"]
    assert set(table[0]) == {"Characteristic", "All sites", "site-01"}


def test_a_round_that_lacks_one_of_the_two_is_told_without_the_other(sites, small_study, conduct):
    left_out: list[Message] = []

    def change(reply: Message) -> Message | None:
        third = reply.metadata.message_type == TRAIN and reply.metadata.src_node_id == 3
        if third and not left_out:
            left_out.append(reply)
            return None
        return reply

    study = small_study.replace("rounds = 5", "rounds = 5\nquorum = 0.5")
    run = conduct(sites(4, {LONE: "aggregate-only", "site-03": "aggregate-only"}), study, change=change)
    first, second = (
        next(row for row in run.reader.metrics(run.run, number) if row.site is None and row.metric == "loss")
        for number in (0, 1)
    )
    rows = {h.site: TrainReply.from_record(h.message.content).scores.num_examples for h in run.sent(TRAIN, "to-server")}
    assert len(left_out) == 1
    assert first.n == rows["site-01"] + rows["site-04"]
    assert second.n == sum(rows.values())


def test_the_best_loss_of_a_checkpoint_is_without_the_one_site(sites, small_study, conduct):
    text = small_study.replace("validation = 0.0", "validation = 0.2").replace(
        "[strategy]", '[strategy]\nselect = "best"'
    )
    if "validation" not in text:
        text = text.replace("[plan]", "[plan]\nvalidation = 0.2")
    kept: dict[str, float] = {}

    for shares in ({}, {LONE: "aggregate-only"}):
        run = conduct(sites(3, shares), text)
        newest = checkpoints.newest(run.run, run.study.rounds)
        assert newest is not None
        kept[str(shares)] = newest.facts["strategy"]["best_loss"]
        assert newest.sharing == shares
        judges = newest.facts["strategy"]["judges"]
        assert judges == [site for site in ("site-01", "site-02", "site-03") if site not in shares]
        losses = []
        for number in range(run.study.rounds):
            replies = {
                h.site: TrainReply.from_record(h.message.content).scores
                for h in run.sent(TRAIN, "to-server")[3 * number :][:3]
            }
            scored = [replies[site] for site in judges]
            rows = sum(s.num_examples for s in scored)
            losses.append(math.fsum(s.num_examples * s.metrics["loss"] for s in scored) / rows)
        assert kept[str(shares)] == pytest.approx(min(losses), abs=2e-6)
    assert len(set(kept.values())) == 2


def test_a_note_of_how_many_rows_a_site_left_out_is_a_figure_too():
    told = _Kept()
    recorder = Recorder(told, "log_loss", 5)
    recorder.share({"b": "aggregate-only", "c": "aggregate-only"})
    reply = CompareReply(num_examples=9, holdout_rows=4, arms=(), differences=(), note="rows left out: 11")
    recorder.comparison({"a": reply, "b": reply, "c": reply}, None)
    notes = [row for rows in told.said for row in rows if isinstance(row, EventRow) and row.kind == "note"]
    assert [(note.site, note.reason) for note in notes] == [("a", "rows left out: 11")]


def test_a_study_may_be_stricter_than_the_sites(sites, small_study, conduct):
    text = small_study.replace("[compare]", '[compare]\nshare-metrics = "aggregate-only"')
    run, plain = conduct(sites(3, {}), text), conduct(sites(3, {}), small_study)
    found, named = report(run.reader, run.run), report(plain.reader, plain.run)
    assert all(site["global"] == {} for site in found["sites"].values())
    assert found["global"]["log_loss"] == named["global"]["log_loss"]
    assert {site.shared_as for site in run.reader.sites(run.run)} == {"aggregate-only"}


def test_what_a_site_asked_for_stays_when_its_run_is_gone_on_with(sites, small_study, conduct, home):
    """The checkpoint has it, also where the site does not come back."""
    run = conduct(sites(4, {"site-03": "aggregate-only"}), small_study)
    checkpoint = checkpoints.newest(run.run, run.study.rounds)
    assert checkpoint is not None and checkpoint.sharing == {"site-03": "aggregate-only"}
    recorder = Recorder(run_writer := _Kept(), "log_loss", 5)
    conductor = FederatedRun(_Nobody(), Study.parse(small_study), recorder, checkpoint=checkpoint)
    with pytest.raises(FlfedError):
        conductor.conduct()
    assert recorder.shared_as.in_sums_only == {"site-03"}
    assert "did not come back" in repr(run_writer.said)


class _Kept:
    """A run's writer that remembers what it is given."""

    run = "kept"

    def __init__(self) -> None:
        self.said: list[object] = []

    def sites(self, rows) -> None:
        self.said.append(list(rows))

    def events(self, rows) -> None:
        self.said.append(rows)

    def comparison(self, *rows) -> None:
        self.said.append(rows)

    def sent(self, round: int, rows) -> None:
        self.said.append(rows)


class _Nobody:
    """A grid without a node."""

    def get_node_ids(self) -> list[int]:
        return []

    def send_and_receive(self, messages, *, timeout=None) -> list[Message]:
        return []


@given(
    draw.frozensets(draw.sampled_from("abcdef")),
    draw.lists(draw.frozensets(draw.sampled_from("abcdef")), min_size=2, max_size=2),
)
def test_two_sums_never_differ_by_some_of_those_in_sums_only(hidden, asked):
    """Each sum has all of them, at least two, or none: subtracting one from another leaves no one and no few."""
    parts = [frozenset(summable(sorted(sites), hidden)) & hidden for sites in asked]
    assert all(part in (frozenset(), hidden) for part in parts) and all(len(part) != 1 for part in parts)
    kept = [frozenset(summable(sorted(sites), hidden)) - hidden for sites in asked]
    assert kept == [sites - hidden for sites in asked]


def test_more_reserve_is_taken_and_less_is_not():
    shared = SharedAs({"a": "aggregate-only"}).and_with({"a": "named", "b": "named", "c": "aggregate-only"})
    assert dict(shared.sharing) == {"a": "aggregate-only", "c": "aggregate-only"}
    assert shared.and_with({"b": "aggregate-only"}).in_sums_only == {"a", "b", "c"}
