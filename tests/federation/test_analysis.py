"""Studies of an analysis: noised counts under one ε, charged before they are drawn and sent again as they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message

from flfed import Study, run
from flfed.deployment.operator.study_description import plain_words
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.noised_answer import FOLDER, colluding_epsilon
from flfed.federation.client.protection import charge_of
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import ledger_of
from flfed.records.ledger.line import Line
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.statistics.private.analysis import ANSWER, NoisedAnalysis
from flfed.study.analysis import Analysis
from flfed.updates.accounting import Release, epsilon, noise_for
from flfed.updates.messages.kinds import ENROL, STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest
from tests.deployment.summing import Consortium, Coordinator, SummingGrid

STUDY = """
format = 1
name = "small-analysis"
purpose = "Describe made rows"
legal-basis = "made for tests"

[dataset]
name = "small"

[analysis]
columns = ["x1", "x2", "flag", "colour", "y"]
cross = [["flag", "y"]]

[privacy]
name = "record-dp"
epsilon = 1.0
delta = 1e-5
"""
GROUPED = STUDY.replace("cross =", 'groups = "flag"\ncross =')
Small = Callable[..., list[Site]]


def tables(sites: list[Site]) -> pd.DataFrame:
    """All rows of all sites, held-out ones too."""
    read = [site.read() for site in sites]
    return pd.concat([part for of in read for part in (of.training, of.holdout("test"))], ignore_index=True)


def lines(site: str, kind: str = "spent") -> list[Line]:
    return [line for line in ledger_of(SiteFolder(site)).lines() if line.kind == kind]


def analysis_of(text: str, noise: float = 1.0) -> NoisedAnalysis:
    return NoisedAnalysis.of_study(Study.parse(text), noise)


def exact(text: str, table: pd.DataFrame, noise: float = 1.0) -> dict[str, Any]:
    """The figures of a table without noise on its numbers."""
    schema, analysis = datasets.load("small").schema, analysis_of(text, noise)
    sums = analysis.sums(table, schema)
    return analysis.figures([sums], schema, sums)


def test_without_noise_figures_are_those_of_pandas(small_sites: Small):
    table = tables(small_sites(4, rows=200))
    found = exact(GROUPED, table, 1e-9)
    columns = found["columns"]
    assert found["rows"]["value"] == len(table)
    assert columns["x1"]["mean"]["value"] == pytest.approx(table["x1"].mean(), abs=1e-4)
    assert columns["x1"]["sd"]["value"] == pytest.approx(table["x1"].std(ddof=0), rel=1e-4)
    assert columns["x2"]["missing"]["value"] == pytest.approx(table["x2"].isna().mean())
    # A bin is 100 / 16 wide, and values are taken as even within it.
    assert columns["x1"]["quantiles"]["50%"]["value"] == pytest.approx(table["x1"].median(), abs=0.5)
    for label, of in columns["colour"]["shares"].items():
        assert of["value"] == pytest.approx((table["colour"] == label).mean())
    means = table.groupby("flag")["x1"].mean()
    assert found["groups"]["compared"]["x1"]["mean"]["1 - 0"]["value"] == pytest.approx(means[1] - means[0], abs=1e-3)
    assert found["groups"]["of"]["1"]["rows"]["value"] == (table["flag"] == 1).sum()
    counts = pd.crosstab(table["flag"], table["y"])[["no", "yes"]].to_numpy()
    np.testing.assert_allclose(found["cross"][0]["counts"], counts)


def test_chi_square_and_intervals_are_those_of_statsmodels_where_noise_is_none(small_sites: Small):
    from scipy.stats import chi2_contingency
    from statsmodels.stats.weightstats import DescrStatsW

    table = tables(small_sites(4, rows=200))
    found = exact(STUDY, table, 1e-9)
    counts = pd.crosstab(table["flag"], table["y"]).to_numpy()
    expected = chi2_contingency(counts, correction=False)
    assert found["cross"][0]["independence"]["chi2"] == pytest.approx(expected.statistic, rel=1e-6)
    assert found["cross"][0]["independence"]["p"] == pytest.approx(expected.pvalue, rel=1e-5)
    low, high = DescrStatsW(table["x1"]).zconfint_mean()
    of_mean = found["columns"]["x1"]["mean"]
    # Their divisor of the variance is one row less.
    assert (of_mean["low"], of_mean["high"]) == pytest.approx((low, high), abs=0.01)


def test_rows_of_one_person_weigh_one_together(small_sites: Small):
    schema = datasets.load("small").schema.model_copy(update={"group": "person"})
    table = tables(small_sites(1, rows=60))
    many = pd.concat([table, table.iloc[[0] * 9]], ignore_index=True)  # one person of ten rows
    analysis = analysis_of(STUDY)
    one, ten = (analysis.sums(each, schema)[ANSWER] for each in (table, many))
    np.testing.assert_allclose(ten, one, atol=1e-4)
    # Rows without a person may all be one's.
    unknown = table.assign(person=np.nan)
    assert analysis.sums(unknown, schema)[ANSWER][0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("text", [STUDY, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("rows_each", [1, 3], ids=["one-row", "three-rows"])
def test_no_person_moves_an_answer_by_more_than_its_sensitivity(small_sites: Small, text: str, rows_each: int):
    schema: Schema = datasets.load("small").schema
    table = tables(small_sites(1, rows=90))
    if rows_each > 1:
        schema = schema.model_copy(update={"group": "person"})
        table = table.assign(person=[f"P{at // rows_each}" for at in range(len(table))])
    # Values at the ends of their range move the sums most.
    table.loc[:10, "x1"], table.loc[:10, "x2"] = 100.0, -5.0
    analysis = analysis_of(text)
    whole, most = analysis.sums(table, schema)[ANSWER], analysis.layout(schema).sensitivity
    moved = []
    for person in table["person"].unique():
        gone = analysis.sums(table[table["person"] != person], schema)[ANSWER]
        moved.append(float(np.linalg.norm(whole - gone)))
    assert max(moved) <= most
    # Rows of one person in two groups are told apart there, and move each less.
    assert max(moved) > (0.9 if rows_each == 1 else 0.5) * most
    # The wrong one: each number counted as if it were the only one.
    assert max(moved) > 2


def test_a_study_spends_its_epsilon_and_no_more():
    charge = charge_of(Study.parse(STUDY))
    assert charge is not None
    spent = epsilon([charge.release], charge.delta)
    assert 0.98 <= spent <= 1.0
    assert charge.release == Release(noise_for(1.0, 1e-5, 1.0, 1), 1.0, 1)
    # Not composed, one ε for each of five analyses is 2.4 of all.
    assert epsilon([charge.release] * 5, charge.delta) == pytest.approx(2.4, abs=0.05)
    assert epsilon([charge.release] * 10, charge.delta) == pytest.approx(3.6, abs=0.1)


def test_an_answer_is_charged_once_and_sent_again_as_it_was(small_sites: Small):
    sites = small_sites(3)
    first = run(Study.parse(STUDY), sites=sites).report
    assert [len(lines(site.name)) for site in sites] == [1, 1, 1]
    assert first["privacy"]["epsilon"] <= 1.0
    assert {of["epsilon"] for of in first["privacy"]["sites"].values()} == {first["privacy"]["epsilon"]}
    again = run(Study.parse(STUDY), sites=sites).report
    assert again["statistics"] == first["statistics"]
    assert [len(lines(site.name)) for site in sites] == [1, 1, 1]
    # Another text is another question, and costs again.
    other = run(Study.parse(STUDY.replace("made rows", "rows")), sites=sites).report
    assert other["statistics"] != first["statistics"]
    assert [len(lines(site.name)) for site in sites] == [2, 2, 2]


def test_other_rows_and_damaged_files_are_answered_and_charged_anew(small_sites: Small):
    sites = small_sites(2)
    first = run(Study.parse(STUDY), sites=sites).report["statistics"]
    less = [replace(sites[0], source=Frame(sites[0].source.table.iloc[1:])), sites[1]]  # type: ignore[union-attr]
    second = run(Study.parse(STUDY), sites=less).report["statistics"]
    assert second["by-site"]["site-02"] == first["by-site"]["site-02"]
    assert second["by-site"]["site-01"] != first["by-site"]["site-01"]
    assert [len(lines(site.name)) for site in sites] == [2, 1]
    (kept,) = (SiteFolder("site-02").gate / FOLDER).glob("[0-9a-f]*")
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:-8])
    run(Study.parse(STUDY), sites=less)
    assert [len(lines(site.name)) for site in sites] == [2, 2]


def test_a_crash_between_charge_and_answer_never_lowers_the_sum(small_sites: Small, tmp_path):
    sites = small_sites(2)
    gate = SiteFolder("site-01")
    gate.make()
    answers = gate.gate / FOLDER
    answers.mkdir(mode=0o700)
    # A folder stands where the answer would be written: it is charged, and cannot be kept.
    (answers / f"{Study.parse(STUDY).sha256()}-0-0").mkdir()
    failed = run(Study.parse(STUDY), sites=small_sites(3)).report
    assert failed["statistics"]["sites"] == 2
    (answers / f"{Study.parse(STUDY).sha256()}-0-0").rmdir()
    run(Study.parse(STUDY), sites=sites)
    assert len(lines("site-01")) >= 1


def test_a_budget_that_is_spent_refuses_another_analysis_and_not_the_same_one(small_sites: Small):
    policy = Policy(epsilon=1.2)  # two of ε 1 are 1.44 together
    sites = [replace(site, policy=policy) for site in small_sites(3)]
    first = run(Study.parse(STUDY), sites=sites).report
    assert first["status"] == "completed"
    with pytest.raises(FlfedError, match="privacy budget: epsilon 1 of 1.2 is spent"):
        run(Study.parse(STUDY.replace("made rows", "rows")), sites=sites)
    assert run(Study.parse(STUDY), sites=sites).report["statistics"] == first["statistics"]
    assert [len(lines(site.name)) for site in sites] == [1, 1, 1]


def test_research_sites_follow_from_the_seed_and_have_no_ledger(home):
    text = STUDY.replace('name = "small"', 'name = "breast-cancer"\npartition = { by = "iid", sites = 3 }').replace(
        'columns = ["x1", "x2", "flag", "colour", "y"]\ncross = [["flag", "y"]]', ""
    )
    first, second = (run(Study.parse(text)).report["statistics"] for _ in range(2))
    assert first == second
    other = run(Study.parse(text.replace("format = 1", "format = 1\nseed = 7"))).report["statistics"]
    assert other["rows"] != first["rows"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[privacy]", "[plan]\nlr = 0.1\n[privacy]"), r"the study has a table \[plan\]"),
        (('name = "record-dp"', 'name = "site-dp"'), "needs .privacy. name = 'record-dp'"),
        (("delta = 1e-5", "delta = 1e-5\nclip = 0.5"), "clip is of steps of training"),
        (("delta = 1e-5", 'delta = 1e-5\nsecure-aggregation = "ckks"'), "must be 'on' or 'off'"),
        (("columns =", "column ="), "did you mean 'columns'"),
        (("columns =", "bins = 2\ncolumns ="), "bins=2 must be 4 to 256"),
        (('"x1", "x2"', '"x1", "x1"'), "names a column twice"),
        (("cross =", "quantiles = [0.5, 1.5]\ncross ="), "different numbers between 0 and 1"),
        (('[["flag", "y"]]', '[["flag", "flag"]]'), "different pairs of two columns"),
        (('[["flag", "y"]]', '["flag", "y"]'), "must have lists of two"),
        (("cross =", "within = { x1 = [90, 20] }\ncross ="), "must be two numbers, low and high"),
    ],
)
def test_what_an_analysis_cannot_be_is_refused_when_it_is_read(change: tuple[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        Study.parse(STUDY.replace(*change, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"x1", "x2"', '"x1", "x3"'), "names 'x3', which is no number, flag, category or target"),
        (('"x1", "x2"', '"x1", "person"'), "names 'person'"),
        (("cross =", 'groups = "x1"\ncross ='), "must be a flag, category or target"),
        (("cross =", "within = { x1 = [20, 200] }\ncross ="), "must lie in the schema's range"),
        (("cross =", "within = { colour = [20, 200] }\ncross ="), "column 'colour' is no number"),
    ],
)
def test_a_column_that_is_none_is_refused_before_anything_runs(small_sites: Small, change: tuple[str, str], said: str):
    with pytest.raises(UsageError) as error:
        run(Study.parse(STUDY.replace(*change, 1)), sites=small_sites(2))
    assert said in str(error.value)


def test_columns_that_nobody_confirmed_are_refused(small_sites: Small):
    sites = small_sites(2)
    folder = datasets.load("small").folder
    text = (folder / "schema.toml").read_text()
    (folder / "schema.toml").write_text(text.replace('target = "y"', 'target = "y"\nunconfirmed = ["x1"]', 1))
    with pytest.raises(UsageError, match="nobody has confirmed the ranges or values of x1"):
        run(Study.parse(STUDY), sites=sites)
    assert run(Study.parse(STUDY.replace('"x1", ', "")), sites=sites).report["status"] == "completed"


def test_a_site_that_shares_in_sums_only_takes_no_part(small_sites: Small):
    sites = small_sites(3)
    kept = [replace(sites[0], policy=Policy(disclosure="open", share_metrics="aggregate-only")), *sites[1:]]
    assert set(run(Study.parse(STUDY), sites=kept).report["statistics"]["by-site"]) == {"site-02", "site-03"}


@pytest.fixture
def gated(small_sites: Small) -> Consortium:
    """Three institutions behind gates, each with a budget for two analyses and no more."""
    sites = [replace(site, policy=Policy(epsilon=1.6)) for site in small_sites(3)]
    found = Consortium(sites, Study.parse(STUDY))
    for name in found.sites:
        found.approve(name, sums=False, pins={})
    return found


def test_gates_let_one_noised_answer_leave_and_charge_it(gated: Consortium):
    coordinator = Coordinator(gated)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        first = reader.summary(ended.run, "statistics")
    assert first is not None and first["sites"] == 3
    assert [line.kind for line in gated.lines("site-01") if line.kind in ("spent", "statistic")] == [
        "spent",
        "statistic",
    ]
    (left,) = (line for line in gated.lines("site-01") if line.kind == "statistic")
    assert left.facts["charged-bytes"] > 0.5 * left.facts["bytes"]
    # No line has what exact rows would tell: the charge names them by a keyed hash.
    rows = {line.facts.get("rows-sha256", "") for line in gated.lines("site-01")}
    assert rows == {""}
    (spent,) = (line for line in gated.lines("site-01") if line.kind == "spent")
    assert len(spent.facts["rows"]) == 64
    words = " ".join(plain_words(gated.study, gated.sites["site-01"], ["site-02", "site-03"]))
    assert "epsilon 1 at delta 1e-05" in words and "charged to this site's account" in words
    assert "exact" not in words.replace("no count of fewer", "")
    # Asked again, by another run of the very text: the same numbers, and nothing more is spent.
    again = coordinator.run()
    with RunReader.open() as reader:
        assert reader.summary(again.run, "statistics") == first
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) == 1


def test_a_coordinator_or_a_site_that_dies_gets_the_same_answer(gated: Consortium):
    coordinator = Coordinator(gated)
    begun = coordinator.run(absent=lambda site, kind: "crash" if (site, kind) == ("site-03", STATISTIC) else False)
    assert begun.status != "completed"
    died = coordinator.run(
        begun.run, absent=lambda site, kind: "kept" if (site, kind) == ("site-03", STATISTIC) else False
    )
    assert died.status == "completed"
    whole = coordinator.run()
    with RunReader.open() as reader:
        two, three = (reader.summary(one.run, "statistics") for one in (died, whole))
    assert two is not None and three is not None
    assert (two["sites"], three["sites"]) == (2, 3)
    assert two["by-site"].items() <= three["by-site"].items()
    assert [sum(line.kind == "spent" for line in gated.lines(name)) for name in gated.sites] == [1, 1, 1]


SECRET = STUDY.replace("delta = 1e-5", 'delta = 1e-5\nsecure-aggregation = "on"')


@pytest.fixture
def in_secret(small_sites: Small) -> Consortium:
    """Four institutions behind gates, of which two share in sums only."""
    policies = [Policy(share_metrics="aggregate-only")] * 2 + [Policy(epsilon=1.2)] * 2
    sites = [replace(site, policy=policy) for site, policy in zip(small_sites(4, rows=400), policies, strict=True)]
    return Consortium(sites, Study.parse(SECRET))


def test_in_secret_each_site_adds_its_part_of_the_noise(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None
    charge = charge_of(Study.parse(SECRET))
    assert charge is not None
    sensitivity = analysis_of(SECRET).layout(datasets.load("small").schema).sensitivity
    # Of four sites three are in each sum, two of which have all of the noise; four have twice its variance.
    alone = charge.release.noise * sensitivity
    assert found["deviation"] == pytest.approx(alone * np.sqrt(4 / 2))
    assert (found["sites"], found["by-site"]) == (4, {})
    rows = sum(len(tables([site])) for site in in_secret.sites.values())
    assert abs(found["rows"]["value"] - rows) < 5 * found["deviation"]
    for site, (line,) in (
        (name, [one for one in in_secret.lines(name) if one.kind == "spent"]) for name in in_secret.sites
    ):
        # A third of four is one: what is left is what the promise counts on.
        assert line.facts["least-sites"] == 3, site
        assert line.facts["epsilon-colluding"] == pytest.approx(1.0, abs=0.02)
    words = " ".join(plain_words(in_secret.study, in_secret.sites["site-01"], ["site-02", "site-03", "site-04"]))
    assert "each site adds its part of the noise" in words
    again = coordinator.run()
    with RunReader.open() as reader:
        assert reader.summary(again.run, "statistics") == found


def test_in_secret_what_crosses_looks_like_chance_and_a_missing_site_is_left_out(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    ended = coordinator.run(absent=lambda site, kind: site == "site-04" and kind == STATISTIC)
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None
    charge = charge_of(Study.parse(SECRET))
    assert charge is not None
    sensitivity = analysis_of(SECRET).layout(datasets.load("small").schema).sensitivity
    assert found["sites"] == 3
    assert found["deviation"] == pytest.approx(charge.release.noise * sensitivity * np.sqrt(3 / 2))
    sent = [reply for _, message, reply in coordinator.grid.sent if message.metadata.message_type == STATISTIC]
    for reply in sent:
        answer = StatisticReply.from_record(reply.content)
        assert not answer.sums and answer.masked is not None and answer.masked.sums.max() > 2**60


def test_nine_sites_tell_what_a_third_of_them_could_take_off():
    charge = charge_of(Study.parse(SECRET))
    assert charge is not None
    # Seven of nine are in a sum: without three the noise is that of four, and six have all of it.
    found = colluding_epsilon(charge, 7, 9)
    assert found == pytest.approx(epsilon([Release(charge.release.noise * np.sqrt(4 / 6), 1.0, 1)], charge.delta))
    assert 1.15 < found < 1.35


def replies(consortium: Consortium, run: str) -> dict[str, bytes]:
    """What one site sends to enrol and to answer, with a plain request of each kind, as bytes; errors included."""
    grid, found = SummingGrid(consortium, run=run), {}
    from flfed.updates.messages.enrol import EnrolRequest

    enrolling = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
    for kind, content in ((ENROL, enrolling.to_record()), (STATISTIC, StatisticRequest().to_record())):
        for name, node in grid.nodes.items():
            (reply,) = grid.send_and_receive([Message(content, dst_node_id=node, message_type=kind)])
            said = reply.error.reason.encode() if reply.has_error() else repr(sorted(plain(reply).items())).encode()
            found[f"{name} {kind}"] = said
    return found


def plain(reply: Message) -> Mapping[str, Any]:
    return {
        f"{section}.{key}": (value.data if hasattr(value, "data") else value)
        for section, record in reply.content.items()
        for key, value in record.items()
    }


def test_two_sites_of_other_rows_with_the_same_noised_answer_send_the_same_bytes(small_sites: Small, monkeypatch):
    """Replay: all that leaves follows from the noised answer. Other rows, another number of them, other classes."""
    sent = []
    for rows in (60, 75):
        monkeypatch.setenv("FLFED_HOME", f"{os.environ['FLFED_HOME']}-{rows}")
        site = replace(small_sites(1, rows=rows)[0], policy=Policy(epsilon=1.6, minimum_cohort=2))
        if rows == 75:  # the second one's rows have one class alone, and a person who is no other's neighbour
            table = site.source.table.assign(y="no")  # type: ignore[union-attr]
            site = replace(site, source=Frame(table))
        consortium = Consortium([site, replace(small_sites(2)[1], policy=site.policy)], Study.parse(STUDY))
        for name in consortium.sites:
            consortium.approve(name, sums=False, pins={})
        before = replies(consortium, "first")  # draws and keeps an answer
        (kept,) = (consortium.folders["site-01"].gate / FOLDER).glob("[0-9a-f]*")
        content = kept.read_bytes()
        recorded = np.arange((len(content) - 48) // 8, dtype="<f8")
        kept.write_bytes(content[:48] + recorded.tobytes())
        after = replies(consortium, "second")
        assert before["site-01 query.statistic"] != after["site-01 query.statistic"]
        sent.append({key: value for key, value in after.items() if key.startswith("site-01")})
    assert sent[0] == sent[1]
    assert b"rows-high', 4294967295" in sent[0]["site-01 query.enrol"]


def test_what_follows_from_exact_rows_would_show_in_the_replay(small_sites: Small):
    """The faults: a band of rows, a refusal of few rows or of one class, and the exact answer differ by rows."""
    analysis, schema = analysis_of(STUDY), datasets.load("small").schema
    first, second = (tables(small_sites(1, rows=rows)) for rows in (60, 75))
    assert len(first) != len(second)
    assert (analysis.sums(first, schema)[ANSWER] != analysis.sums(second, schema)[ANSWER]).any()
    few = [replace(site, policy=Policy()) for site in small_sites(3, rows=4)]
    # An exact statistic refuses so few rows; an analysis answers, and the noise hides how many there are.
    found = run(Study.parse(STUDY), sites=few).report
    assert found["status"] == "completed"
    assert found["statistics"]["columns"]["x1"]["mean"] is None


def test_a_reply_that_is_no_answer_is_set_aside(gated: Consortium):
    def lie(site: str, kind: str, reply: Message) -> Message:
        if (site, kind) != ("site-02", STATISTIC):
            return reply
        answer = StatisticReply.from_record(reply.content).sums[ANSWER]
        return Message(StatisticReply(sums={ANSWER: answer * np.nan}).to_record(), reply_to=reply)

    ended = Coordinator(gated).run(lie=lie)
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None
    assert set(found["by-site"]) == {"site-01", "site-03"}


def test_columns_default_to_all_that_can_be_counted(small_sites: Small):
    small_sites(1)
    schema = datasets.load("small").schema
    analysis = NoisedAnalysis(of=Analysis(), noise=1.0)
    assert analysis.columns(schema) == ("x1", "x2", "flag", "colour", "y")
    # 1 for the rows, 5 histograms, and two sums of each of two numbers.
    assert analysis.layout(schema).sensitivity == pytest.approx(np.sqrt(1 + 5 + 4))
