"""Studies of a statistic, without a model: the figures of one table, whatever the sites; and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from statsmodels.stats.contingency_tables import Table2x2
from typer.testing import CliRunner

from flfed import Study, registry, run
from flfed.cli.run_tables import print_report
from flfed.cli.runs import app as commands
from flfed.cli.runs import object_of
from flfed.errors import FlfedError, UsageError
from flfed.experiments.verify import verify
from flfed.export.run_folder import export
from flfed.records.document.document import document
from flfed.records.reports.privacy_tables import mechanism_lines
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.statistics.listed.covariance import Covariance
from flfed.rows.statistics.listed.odds_ratio import OddsRatio
from flfed.rows.statistics.statistic import Statistic, Sums, entries, of_entries
from flfed.updates.messages.kinds import STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.records.analyses import STUDY as ANALYSIS
from tests.small_runs import tables

STUDY = """
format = 1
name = "small-statistic"
purpose = "Look at two columns of made rows"
legal-basis = "made for tests"

[dataset]
name = "small"
"""
ODDS = f'{STUDY}\n[statistic]\nname = "odds-ratio"\nby = "flag"\n'
COVARIANCE = f'{STUDY}\n[statistic]\nname = "covariance"\ncolumns = ["x1", "x2"]\n'
Small = Callable[..., list[Site]]


def test_the_trial_has_the_odds_ratio_of_the_publications_table():
    study = Study.load("stroke-aspirin")
    found = run(study).report["statistics"]
    assert [(of["group"], of["events"], of["rows"]) for of in found["groups"]] == [
        ("no", 6125, 9646), ("yes", 6000, 9639),
    ]  # fmt: skip
    expected = Table2x2([[6000, 3639], [6125, 3521]])
    low, high = expected.oddsratio_confint()
    ratio = found["odds-ratio"]
    assert (ratio["value"], ratio["low"], ratio["high"]) == pytest.approx((expected.oddsratio, low, high), rel=1e-9)
    assert found["p"]["value"] == pytest.approx(expected.log_oddsratio_pvalue(), rel=1e-9)
    # The mean of the countries' own is another, and two have none.
    own = [of["odds-ratio"] for of in found["by-site"].values()]
    assert own.count(None) == 2
    assert abs(float(np.exp(np.mean([np.log(of["value"]) for of in own if of]))) - ratio["value"]) > 0.02
    # An expected figure that was changed does not hold.
    assert verify(study).holds
    assert not verify(Study.parse(study.text.replace("value = 0.9478271111,", "value = 0.9482,"))).holds


def test_means_and_covariances_are_those_of_one_table_however_large_the_mean(small_sites: Small):
    sites = small_sites(4)
    rows = tables(sites)[["x1", "x2"]].dropna()
    found = run(Study.parse(COVARIANCE), sites=sites).report["statistics"]
    assert (found["columns"], found["rows"], found["sites"]) == (["x1", "x2"], len(rows), 4)
    assert found["rows-left-out"] == len(tables(sites)) - len(rows) > 0
    np.testing.assert_allclose(found["mean"], rows.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["covariance"], np.cov(rows.T), rtol=1e-12)
    own = np.mean([np.cov(tables([site])[["x1", "x2"]].dropna().T) for site in sites], axis=0)
    assert np.abs(own - np.cov(rows.T)).max() > 1e-3


def test_sums_of_any_order_and_number_of_sites_are_one(small_sites: Small):
    sites = small_sites(4)
    of_all = run(Study.parse(ODDS), sites=sites).report["statistics"]
    assert of_all == run(Study.parse(ODDS), sites=sites[::-1]).report["statistics"]
    assert sum(of["rows"] for of in of_all["groups"]) + of_all["rows-without-a-group"] == len(tables(sites))


@pytest.mark.parametrize("policy", [Policy(), Policy(disclosure="open", share="sum")])
def test_a_site_whose_exact_sums_stay_takes_no_part(small_sites: Small, policy: Policy):
    sites = small_sites(3)
    kept = [replace(sites[0], policy=policy), *sites[1:]]
    done = run(Study.parse(ODDS), sites=kept).report
    assert done["statistics"]["sites"] == 2
    assert set(done["statistics"]["by-site"]) == {"site-02", "site-03"}
    with pytest.raises(FlfedError, match="only one site takes part"):
        run(Study.parse(ODDS), sites=kept[:2])


@pytest.mark.parametrize(("added", "said"), [
    ('[model]\nname = "logistic"\n', r"the study has a table \[model\]"),
    ("[plan]\nlr = 0.1\n", r"the study has a table \[plan\]"),
    ('[privacy]\nsecure-aggregation = "ckks"\n', "not available in this version"),
    ('[privacy]\nname = "record-dp"\n', "not available in this version"),
])  # fmt: skip
def test_what_belongs_to_a_model_is_refused_beside_a_statistic(added: str, said: str):
    with pytest.raises(UsageError, match=said):
        Study.parse(f"{ODDS}\n{added}")


@pytest.mark.parametrize(("text", "said"), [
    (ODDS.replace('"flag"', '"x1"'), "by='x1' must be a column of the dataset: flag, colour"),
    (ODDS.replace('"flag"', '"colour"'), "must have two values each"),
    (COVARIANCE.replace('"x2"', '"colour"'), "columns='colour' must be a column of the dataset"),
    (COVARIANCE.replace('"x2"', '"x1"'), "two or more different columns"),
    (ODDS.replace("by =", "arm ="), "arm"), (ODDS.replace('by = "flag"', ""), "it needs by"),
])  # fmt: skip
def test_a_column_that_the_statistic_cannot_be_of_is_refused_before_anything_runs(small_sites, text, said):
    sites = small_sites(2)
    with pytest.raises(UsageError) as error:
        run(Study.parse(text), sites=sites)
    assert said in str(error.value)


def test_a_run_of_it_is_told_in_a_table_a_document_and_before_an_approval(small_sites: Small, capsys, tmp_path):
    sites = small_sites(3)
    done = run(Study.parse(ODDS), sites=sites).report
    print_report(done)
    for text in (capsys.readouterr().out, document(done["run"])):
        assert "all 3 sites" in text
        assert "the odds of the outcome are" in text
        assert "nothing was trained and nothing is predicted" in text
        assert "Nothing was compared" not in text
        # It sends no update, and has no model to attack.
        assert "sums can learn about its rows." in text
        assert re.search("flfed audit|attack|update", text) is None
    reason = "its study has a statistic or an analysis, and trains none"
    assert export(done["run"], tmp_path / "kept").reason == reason
    assert "odds-ratio" in (tmp_path / "kept" / "report.json").read_text()
    words = " ".join(details(Study.parse(ODDS), sites[0], ["site-02", "site-03"]))
    assert "The statistic is odds-ratio" in words
    assert "of each group, how many rows have the outcome" in words
    assert "Rounds: none, and one exchange" in words
    assert "update" not in words
    with RunReader.open() as reader:
        mechanisms = mechanism_lines(done["privacy"], reader.sites(done["run"]))
    assert "update" not in json.dumps(mechanisms)


class MissingValues(Covariance):
    """A statistic that another package could bring. Reveals: how many rows lack one of the columns."""

    label = "rows that lack a value"

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        return {"rows-left-out": int(sum(sums["missing"][0] for sums in sites))}


def test_a_statistic_of_another_package_is_shown_by_its_own_names(small_sites: Small, capsys):
    sites = small_sites(3)
    lacking = sum(own[["x1", "x2"]].isna().any(axis=1).sum() for own in (tables([site]) for site in sites))
    with registry.lending("statistic", [MissingValues]):
        done = run(Study.parse(COVARIANCE.replace('"covariance"', '"missing-values"')), sites=sites).report
    print_report(done)
    for text in (capsys.readouterr().out, document(done["run"])):
        assert re.search(rf"all sites\W[^\n]*\b{lacking}\b", re.sub("<[^>]*>", " ", text))
        assert "The figures of missing-values are" in " ".join(text.split())


@pytest.fixture
def gated(small_sites: Small) -> Consortium:
    found = Consortium(small_sites(3), Study.parse(ODDS))
    for name in found.sites:
        found.approve(name, sums=False, pins={})
    return found


def test_gates_let_the_sums_leave_once_a_run_and_write_a_line(gated: Consortium):
    here = run(gated.study, sites=list(gated.sites.values())).report["statistics"]
    ended = Coordinator(gated).run()
    assert ended.status == "completed", ended.reason
    lines = [line for line in gated.lines("site-01") if line.kind == STATISTIC.rpartition(".")[2]]
    assert len(lines) == 1
    with RunReader.open() as reader:
        assert reader.summary(ended.run, "statistics") == here


SECRET = '\n[privacy]\nsecure-aggregation = "on"\n'


def objects(value: object) -> Iterator[object]:
    """Yield a value, and all that is in it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from objects(one)


def has_figures_only(found: dict[str, object]) -> bool:
    """Tell whether a report has no key of models, no verdict and no empty object."""
    everything = list(objects(found))
    return {} not in everything and "cannot be told" not in everything and not {"sites", "global"} & set(found)


@pytest.mark.parametrize("text", [ODDS, COVARIANCE, ODDS + SECRET, ANALYSIS], ids=["odds", "sums", "secret", "noised"])
def test_json_of_a_statistic_has_its_figures_only(text: str, small_sites: Small, tmp_path: Path):
    done = run(Study.parse(text), sites=small_sites(4))
    shown = CliRunner().invoke(commands, ["show", done.run, "--json"])
    found = json.loads(shown.stdout)
    assert has_figures_only(found)
    assert (found["run"], found["status"], found["faults"]) == (done.run, "completed", [])
    assert found["statistics"] == {key: of for key, of in done.report["statistics"].items() if of != {}}
    assert found["privacy"]["mechanism"] == done.report["privacy"]["mechanism"]
    export(done.run, tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "report.json").read_text()) == found


def test_json_of_a_statistic_that_failed_says_why(small_sites: Small):
    sites = [replace(site, policy=Policy(disclosure="institution")) for site in small_sites(3)]
    with pytest.raises(FlfedError):
        run(Study.parse(ODDS), sites=sites)
    found = object_of("latest")
    assert has_figures_only(found) and found["status"] == "failed" and "statistics" not in found
    assert found["reason"] and len(found["faults"]) == 3


def test_sums_in_secret_give_the_same_figures_and_none_of_a_site(small_sites: Small):
    sites = small_sites(4)
    plain = run(Study.parse(ODDS), sites=sites).report["statistics"]
    assert run(Study.parse(ODDS + SECRET), sites=sites).report["statistics"] == {**plain, "by-site": {}}
    plain = run(Study.parse(COVARIANCE), sites=sites).report["statistics"]
    found = run(Study.parse(COVARIANCE + SECRET), sites=sites).report["statistics"]
    np.testing.assert_allclose(found["covariance"], plain["covariance"], rtol=1e-12)
    np.testing.assert_allclose(found["mean"], plain["mean"], rtol=1e-12)
    assert (found["rows"], found["rows-left-out"], found["by-site"]) == (plain["rows"], plain["rows-left-out"], {})


@pytest.mark.parametrize(
    "statistic", [OddsRatio(by="flag"), Covariance(columns=["x1", "x2"])], ids=["odds-ratio", "covariance"]
)
def test_no_row_adds_more_than_one_to_a_sum_in_secret(small_sites: Small, statistic: Statistic):
    (site,) = small_sites(1)
    table, schema = tables([site]), datasets.load("small").schema
    most = np.max([np.abs(entries(statistic, statistic.sums(table[at : at + 1], schema), schema)) for at in range(80)])
    assert 0 < most <= 1
    sums = statistic.sums(table, schema)
    for name, found in of_entries(statistic, entries(statistic, sums, schema), schema).items():
        np.testing.assert_allclose(found, sums[name], rtol=1e-14)
        assert found.dtype == sums[name].dtype


def test_added_counts_below_0_are_told_and_do_not_wrap():
    with pytest.raises(FlfedError, match="a count is below 0"):
        of_entries(OddsRatio(by="flag"), np.array([3.0, 2.0, -1.0, 4.0, 0.0]), datasets.load("wine").schema)


@pytest.fixture
def in_secret(small_sites: Small) -> Consortium:
    """Four sites behind gates, of which one is an institution that lets cells leave so."""
    policies = [
        Policy(disclosure="open"), Policy(disclosure="open"), Policy(outputs=("single-cells-in-sums",)),
        Policy(disclosure="open"),
    ]  # fmt: skip
    sites = [replace(site, policy=policy) for site, policy in zip(small_sites(4), policies, strict=True)]
    return Consortium(sites, Study.parse(COVARIANCE + SECRET))


def test_gates_mask_the_sums_and_open_those_of_all_alone(in_secret: Consortium):
    open_rows = [replace(site, policy=Policy(disclosure="open")) for site in in_secret.sites.values()]
    here = run(Study.parse(COVARIANCE), sites=open_rows).report["statistics"]
    coordinator = Coordinator(in_secret)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None and has_figures_only(object_of(ended.run))
    assert (found["sites"], found["rows"], found["by-site"]) == (4, here["rows"], {})
    np.testing.assert_allclose(found["covariance"], here["covariance"], rtol=1e-12)
    # What crossed looks like chance: no site's own number of rows is in it.
    replies = [reply for _, sent, reply in coordinator.grid.sent if sent.metadata.message_type == STATISTIC]
    assert len(replies) == 4
    for reply in replies:
        answer = StatisticReply.from_record(reply.content)
        assert not answer.sums and answer.masked is not None
        assert answer.masked.sums.max() > 2**60
    words = " ".join(details(in_secret.study, in_secret.sites["site-01"], ["site-02", "site-03", "site-04"]))
    assert "Sums: secure aggregation adds up the statistic's sums." in words and "update" not in words


def test_without_a_site_there_is_no_sum_and_a_run_that_is_gone_on_with_has_that_of_all(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    whole = coordinator.run()
    with pytest.raises(FlfedError, match="site-04"):
        coordinator.run(absent=lambda site, kind: site == "site-04" and kind == STATISTIC)
    with RunReader.open() as reader:
        stopped = next(iter(reader.runs()))
        assert reader.summary(stopped.run, "statistics") is None
    ended = coordinator.run(stopped.run)
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        assert reader.summary(ended.run, "statistics") == reader.summary(whole.run, "statistics")


def test_a_column_of_one_value_has_no_deviation(small_sites: Small):
    table, schema = tables(small_sites(1)).assign(x1=0.1 + 0.2), datasets.load("small").schema
    statistic = Covariance(columns=["x1", "x2"])
    parts = [statistic.sums(table[at::3], schema) for at in range(3)]
    found = statistic.figures(parts, schema, parts[0])
    assert found["sd"]["x1"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_a_coordinator_that_is_killed_goes_on_to_the_same_sum(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    whole = coordinator.run()
    # Killed at the last site, when the others have answered.
    begun = coordinator.run(absent=lambda site, asked: "crash" if (site, asked) == ("site-04", STATISTIC) else False)
    assert begun.status != "completed"
    ended = coordinator.run(begun.run)
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        assert reader.summary(ended.run, "statistics") == reader.summary(whole.run, "statistics")


def test_an_institution_that_did_not_approve_sums_sends_none_of_its_own(in_secret: Consortium):
    for site in in_secret.sites:
        in_secret.approve(site, sums=False, pins={})
    with pytest.raises(UsageError, match="did not approve sums under keys"):
        Coordinator(in_secret).run()
    # A coordinator that asks all the same is refused by the site itself.
    grid = SummingGrid(in_secret, run="asked")
    (reply,) = grid.send_and_receive(
        [Message(StatisticRequest().to_record(), dst_node_id=grid.nodes["site-03"], message_type=STATISTIC)]
    )
    assert reply.has_error() and "its policy keeps exact sums" in reply.error.reason
    assert all(line.facts.get("asked") == STATISTIC for line in in_secret.lines("site-03")[-1:])
