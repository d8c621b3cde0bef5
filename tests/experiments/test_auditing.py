"""An audit of a run in this process: the attacks' own figures, at the run's own sites, written down as they may be."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flfed import registry
from flfed.errors import FlfedError, UsageError
from flfed.experiments.audit import Auditor, audit
from flfed.export.model_folder import SharedModel
from flfed.federation.client.audit import promised_to_rows, verdict_of
from flfed.federation.client.protection import protection_of
from flfed.federation.engines.engine import find_sites
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.run import Result, run
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.comparison.attack_runner import Finding, attack
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import AUDIT
from flfed.updates.messages.enrol import ENROL
from tests.experiments.test_canary import found_in, needles, planted, searched

pytestmark = [pytest.mark.slow, pytest.mark.studies]

__all__ = ["planted"]  # a fixture of that file

MEMBERSHIP, INVERSION = "membership-inference", "gradient-inversion"
OPEN = Policy(disclosure="open", resplit=True)
DP = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.3\n'


def direct(study: Study, site: Site, run_name: str, *attacks: str, repeat: int = 0) -> dict[tuple[str, str], Finding]:
    """Return what attacks find at a site that is opened here, by hand, and attacked alone."""
    final = checkpoints.final(run_name)
    work = SiteSession(site, study, repeat, protection=protection_of(study))
    promised = promised_to_rows(study)
    asked = attack(work, final.arrays, final.encoder, attacks, seed=work.seed, promised=promised)
    return {(found.attack, found.metric): found for found in run_client(asked)}


def stored(name: str) -> dict[tuple[str, str, str], tuple[float | None, ...]]:
    """Return the figures in the store by site, attack and metric."""
    with RunReader.open() as reader:
        found = reader.audits(name)
    return {(e.site, e.attack, e.metric): (e.value, e.low, e.high, e.payload["promise"]) for e in found}


def same(figures: tuple[float | None, ...], found: Finding) -> None:
    given = [np.nan if value is None else value for value in figures]
    wanted = [found.value, found.low, found.high, found.promise]
    wanted = [value if np.isfinite(value) else np.nan for value in wanted]
    np.testing.assert_allclose(given, wanted, rtol=1e-9, atol=1e-9)


@pytest.fixture
def small(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., tuple[list[Site], Result]]:
    """A function that runs the small study over sites, some with another policy: `small({"site-02": {...}})`."""

    def go(policies: dict[str, dict[str, object]] | None = None, text: str = "", **options: object):
        made = small_sites(3, rows=80)
        given = {name: Policy(**{**OPEN.model_dump(), **keys}) for name, keys in (policies or {}).items()}
        sites = [replace(site, policy=given.get(site.name, OPEN)) for site in made]
        return sites, run(Study.parse(text or small_study).replace({"rounds": 3}), sites=sites, **options)

    return go


def test_the_figures_in_the_store_are_those_of_the_attacks_on_a_shipped_study():
    study = Study.load("preterm-birth").replace({"rounds": 4})
    ended = run(study)
    found = audit("latest", attacks=[MEMBERSHIP, INVERSION])
    assert (found.run, found.promise, found.faults) == (ended.run, None, {})
    written = stored(ended.run)
    sites = find_sites(study)
    assert {site for site, _, _ in written} == {site.name for site in sites}
    for site in sites:
        alone = direct(study, site, ended.run, MEMBERSHIP, INVERSION)
        assert {(name, metric) for of, name, metric in written if of == site.name} == set(alone)
        for (name, metric), finding in alone.items():
            same(written[site.name, name, metric], finding)
    # One row in a step is read off the update of a linear model: the attack is no idle one.
    assert written[sites[0].name, INVERSION, "share-recovered"][0] == 1.0


def test_an_audit_adds_to_the_record_and_changes_nothing_else(small):
    sites, ended = small()
    found = audit(ended.run, attacks=[MEMBERSHIP], sites=sites)
    with RunReader.open() as reader:
        after = report(reader, ended.run)
        opened = [e for e in reader.events([ended.run]) if (e.kind, e.reason) == ("holdout-opened", "audit")]
        crossed = reader.bytes_sent([ended.run])
    assert {k: v for k, v in after.items() if k != "audit"} == {k: v for k, v in ended.report.items() if k != "audit"}
    assert {event.site for event in opened} == {site.name for site in sites}
    assert crossed["to-site"] > 0 and len(stored(ended.run)) == len(found.findings) == 6
    assert found.as_object()["findings"][0].keys() == {
        "attack", "site", "metric", "value", "low", "high", "promise", "verdict", "says", "method", "rows",
    }  # fmt: skip
    # The same attack again gives the same figures, so that asking more often tells no more.
    again = audit(ended.run, attacks=[MEMBERSHIP], sites=sites)
    assert [row.value for row in again.findings] == [row.value for row in found.findings]
    assert len(stored(ended.run)) == 6


def test_every_word_of_our_attacks_and_figures_is_written_down_as_it_was_said(small, small_study):
    text = Study.parse(small_study + DP).replace({"plan.steps": 5, "privacy.delta": 1e-3}).text
    strict = {"site-02": {"disclosure": "institution", "resplit": False, "audits": True, "delta": 1e-3}}
    sites, ended = small(strict, text=text)
    found = audit(ended.run, sites=sites)
    with RunReader.open() as reader:
        words = [*reader.figures(ended.run), *reader.differences(ended.run), *reader.events([ended.run])]
    assert {finding.attack for finding in found.findings} == set(registry.names("attack"))
    assert len(found.findings) > 20 and len(words) > 40
    assert "said something else" not in repr([*found.findings, *words])


def test_a_repeat_is_attacked_on_its_own_split_and_of_a_series_the_first(small):
    sites, ended = small(repeats=2)
    first, name = (f"{ended.run}-r{number:02d}" for number in (1, 2))
    series = audit("latest", attacks=[MEMBERSHIP], sites=sites)
    assert (series.run, series.repeat, series.repeats) == (first, 0, 2)
    alone = audit(first, attacks=[MEMBERSHIP], sites=sites)
    assert alone.repeats == 1 and [row.value for row in alone.findings] == [row.value for row in series.findings]
    assert audit(name, attacks=[MEMBERSHIP], sites=sites).as_object()["repeat"] == 1
    with RunReader.open() as reader:
        study = Study.parse(reader.series(name).study_text)
    right = direct(study, sites[0], name, MEMBERSHIP, repeat=1)
    other = direct(study, sites[0], name, MEMBERSHIP, repeat=0)
    figures = stored(name)[sites[0].name, MEMBERSHIP, "auc-of-loss"]
    same(figures, right[MEMBERSHIP, "auc-of-loss"])
    assert figures[0] != pytest.approx(other[MEMBERSHIP, "auc-of-loss"].value, abs=1e-6)


def test_a_study_that_cuts_its_dataset_is_cut_alike(small_study):
    cut = '[dataset]\nname = "diabetes"\npartition = { by = "iid", sites = 3, seed = 5 }\n'
    study = Study.parse(small_study.replace('[dataset]\nname = "small"\n', cut)).replace(
        {"rounds": 2, "model.name": "linear"}
    )
    ended = run(study)
    audit("latest", attacks=[MEMBERSHIP])
    written = stored(ended.run)
    for site in find_sites(study):
        alone = direct(study, site, ended.run, MEMBERSHIP)[MEMBERSHIP, "auc-of-loss"]
        same(written[site.name, MEMBERSHIP, "auc-of-loss"], alone)


def ended_text(name: str) -> str:
    with RunReader.open() as reader:
        return reader.series(name).study_text


def test_a_site_that_lets_nobody_attack_is_told_of_and_the_others_are_attacked(small):
    sites, ended = small({"site-02": {"audits": False}})
    found = audit(ended.run, attacks=[MEMBERSHIP], sites=sites)
    assert {row.site for row in found.findings} == {"site-01", "site-03"}
    assert found.faults == {
        "site-02": f"{MEMBERSHIP}: its policy does not let a model be attacked with its rows (audits)"
    }
    with RunReader.open() as reader:
        notes = [e for e in reader.events([ended.run]) if e.kind == "note" and e.reason.startswith("not attacked: ")]
        assert report(reader, ended.run)["faults"] == []
    assert [(event.site, event.round) for event in notes] == [("site-02", 4)]
    none = [replace(site, policy=Policy(**{**site.policy.model_dump(), "audits": False})) for site in sites]
    with pytest.raises(FlfedError, match="no site could be attacked .*site-01: .*audits") as caught:
        audit(ended.run, attacks=[MEMBERSHIP], sites=none)
    assert caught.value.exit_code == 1


def test_a_site_whose_budget_is_spent_is_attacked_still(small, small_study: str):
    # The run's whole epsilon is spent, and another round would be too much: an audit asks for none.
    held = {"disclosure": "institution", "epsilon": 2.0, "delta": 1e-3, "cell_minimum": 5, "resplit": False}
    text = Study.parse(small_study + DP).replace({"plan.steps": 5, "privacy.delta": 1e-3}).text
    sites, ended = small({"site-02": held}, text)
    with pytest.raises(FlfedError, match="privacy budget: epsilon"):
        run(Study.parse(text), sites=sites[:2])
    found = audit(ended.run, attacks=[MEMBERSHIP], sites=sites)
    assert ({row.site for row in found.findings}, found.faults) == ({"site-01", "site-02", "site-03"}, {})


@pytest.mark.parametrize("scaler", ["global", "schema"])
def test_rows_that_changed_since_the_run_are_not_attacked(small, small_study, scaler):
    sites, ended = small(text=Study.parse(small_study).replace({"encode.scaler": scaler}).text)
    table = sites[0].source.table
    fewer = replace(sites[0], source=replace(sites[0].source, table=table.iloc[:-5]))
    other = table.assign(x1=table["x1"].where(table["x1"] > 50, 50.0))
    with pytest.raises(UsageError, match="the training rows of the sites differ from those of run"):
        audit(ended.run, attacks=[MEMBERSHIP], sites=[fewer, *sites[1:]])
    with pytest.raises(UsageError, match="the training rows of the sites differ from those of run"):
        audit(ended.run, attacks=[MEMBERSHIP], sites=[replace(fewer, source=replace(fewer.source, table=other)),
                                                      *sites[1:]])  # fmt: skip
    assert stored(ended.run) == {}
    # Where not all sites are there, their sums cannot be compared: then the numbers of rows are.
    found = audit(ended.run, attacks=[MEMBERSHIP], sites=[fewer, sites[1]])
    changed = "its number of rows differs from that in the run: an attack on other rows would not show anything"
    assert found.faults == {"site-01": changed}
    assert {row.site for row in found.findings} == {"site-02"}


def test_rows_are_those_of_the_run_whatever_the_last_bit_of_their_sums(small, home):
    sites, ended = small()
    with sqlite3.connect(home / "runs.db") as store:
        store.execute("UPDATE summary SET payload = json_set(payload, '$.sha256', '0') WHERE name = 'training-sums'")
    assert audit(ended.run, attacks=[MEMBERSHIP], sites=sites).faults == {}


def test_of_a_series_the_first_repeat_that_has_a_model_is_attacked(small, home):
    sites, ended = small(repeats=2)
    with RunReader.open() as reader:
        first, second = (entry.run for entry in reader.runs_of(ended.run))
    with sqlite3.connect(home / "runs.db") as store:
        store.execute("UPDATE run SET status = 'failed' WHERE id = ?", (first,))
    found = audit(ended.run, attacks=[MEMBERSHIP], sites=sites)
    assert (found.run, found.repeat, found.repeats) == (second, 1, 2)


def test_a_promise_stands_beside_what_was_reached(small, small_study):
    text = small_study.replace("epochs = 1", "steps = 2") + DP
    sites, ended = small(text=text)
    found = audit(ended.run, attacks=[MEMBERSHIP, INVERSION], sites=sites)
    assert found.promise is not None and found.promise.epsilon <= 2.0
    promised = {row.payload["promise"] for row in found.findings if row.attack == MEMBERSHIP}
    epsilon, delta = found.promise.epsilon, found.promise.delta
    assert list(promised) == pytest.approx([1 - (1 - delta) ** 2 / (1 + np.exp(epsilon))], abs=1e-12)
    assert {row.payload["verdict"] for row in found.findings if row.attack == MEMBERSHIP} == {"within the promise"}
    recovered = [row for row in found.findings if row.metric == "share-recovered"]
    assert [(row.value, row.payload["promise"]) for row in recovered] == [(0.0, 0.0)] * 3
    assert found.beyond() == []
    study = Study.parse(ended_text(ended.run))
    same(stored(ended.run)["site-01", MEMBERSHIP, "auc-of-lira"], direct(study, sites[0], ended.run, MEMBERSHIP)[
        MEMBERSHIP, "auc-of-lira"])  # fmt: skip


def test_a_verdict_follows_from_the_promise():
    given = {"attack": "a", "metric": "m", "value": 0.9, "low": 0.8, "high": 1.0, "method": "", "rows": 9, "says": ""}
    verdicts = [
        verdict_of(Finding(promise=promise, beyond=promise < 0.8, **given)) for promise in (float("nan"), 0.85, 0.7)
    ]
    assert verdicts == ["no promise", "within the promise", "beyond the promise"]
    unknown = given | {"low": float("nan")}
    assert verdict_of(Finding(promise=0.85, beyond=False, **unknown)) == "not known"
    assert verdict_of(Finding(promise=float("nan"), beyond=False, **unknown)) == "no promise"
    assert AUDIT == "query.audit"


@pytest.mark.parametrize(("changes", "said"), [
    ({"attacks": ["membership"]}, "attack 'membership' is not known; did you mean 'membership-inference'"),
    ({"only": ["site-1"]}, "site 'site-1' took no part in the run; did you mean 'site-01'"),
    ({"sites": None}, "was run on sites that a program passed; audit it from Python"),
])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_attacked(small, changes, said):
    sites, ended = small()
    with pytest.raises(UsageError, match=said):
        audit(ended.run, **{"sites": sites, **changes})
    assert stored(ended.run) == {}


def test_a_run_without_its_model_is_not_audited(small):
    sites, ended = small()
    checkpoints.forget(ended.run)
    with pytest.raises(UsageError, match="the model of run .* is not in"):
        audit(ended.run, sites=sites)
    with pytest.raises(UsageError, match="'20990101-000000-abcd' is not in the store"):
        audit("20990101-000000-abcd", sites=sites)


def test_nothing_of_a_cell_crosses_or_is_written_down_in_an_audit(
    planted, small_study, conduct, home, caplog, capfd
):  # fmt: skip
    sites = planted(Policy())[:3]
    done = conduct(sites, small_study)
    outcome, before = done.outcome, len(done.grid.heard)
    [entry] = done.reader.runs_of(done.run)
    schema = datasets.load("small").schema
    model = SharedModel(
        run=done.run, study=done.study, schema=schema, arrays=outcome.arrays, encoder=outcome.encoder, figures={}
    )
    recorded = {site.site: site for site in done.reader.sites(done.run)}
    with RunStore.open() as store:
        recorder = Recorder(store.added_to(done.run), entry.primary, entry.rounds)
        found = Auditor(done.grid, model, entry, recorded, recorder, store, None).conduct(registry.names("attack"))
    assert found.faults == {} and {row.site for row in found.findings} == {site.name for site in sites}
    assert {heard.kind for heard in done.grid.heard[before:]} == {ENROL, AUDIT}
    wanted = needles([outcome.encoder])
    assert found_in(searched(done, home, caplog, capfd), wanted) == []
    assert found_in([("the table", Path(sites[0].source.path).read_bytes())], wanted) != []
