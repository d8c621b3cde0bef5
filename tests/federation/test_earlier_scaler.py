"""Runs of the version in which `record-dp` without a scaler meant "global": read as they were trained."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import numpy as np
import pytest

from flfed.errors import RunStopped, UsageError
from flfed.experiments.audit import audit
from flfed.export.run_folder import shared_model
from flfed.federation.recording.recorded_study import study_of
from flfed.federation.server.run import resume, run
from flfed.paths import home
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.federation.test_resume import killer, newest

DP = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.3\n'
MEMBERSHIP = "membership-inference"
OPEN = Policy(disclosure="open", resplit=True)


@pytest.fixture
def text(small_study: str) -> str:
    """A study under record-dp whose text names no scaler."""
    return small_study.replace("epochs = 1", "steps = 2").replace("rounds = 1", "rounds = 3") + DP


@pytest.fixture
def sites(small_sites: Callable[..., list[Site]]) -> list[Site]:
    return small_sites(2, rows=80, policy=OPEN)


def named(text: str) -> Study:
    return Study.parse(text).replace({"encode.scaler": "global", "rounds": 3})


def written_before(name: str, text: str) -> str:
    """Make a run's record what the earlier version wrote: no scaler in the text, no hash of the sums."""
    plain = named(text).replace({"encode.scaler": None}).text
    with sqlite3.connect(home() / "runs.db") as store:
        store.execute("UPDATE series SET study_text = ?", (plain,))
        store.execute("DELETE FROM summary WHERE name = 'training-sums'")
    return name


@pytest.mark.slow
@pytest.mark.studies
def test_such_a_run_is_audited_and_exported_with_the_scaler_that_it_had(sites, text):
    done = written_before(run(named(text), sites=sites).run, text)
    found = audit(done, attacks=[MEMBERSHIP], sites=sites)
    assert {row.site for row in found.findings} == {"site-01", "site-02"}
    with RunReader.open() as reader:
        entry, series = reader.runs_of(done)[0], reader.series(done)
        assert "scaler" not in series.study_text
        assert shared_model(reader, entry, series, report(reader, done)).study.encode.scaler == "global"
        with pytest.raises(UsageError, match="'global' then and means 'schema' now"):
            shared_model(reader, entry, series, report(reader, done), sent=True)


@pytest.mark.slow
@pytest.mark.studies
def test_such_a_run_is_gone_on_with_through_the_encoder_that_it_began_with(sites, text):
    whole = checkpoints.final(run(named(text), sites=sites).run)
    with pytest.raises(RunStopped):
        run(named(text), sites=sites, observer=killer("round", 2))
    ended = written_before(newest(), text)
    resume(ended, sites=sites)
    again = checkpoints.final(ended)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_a_run_of_today_keeps_the_schema_s_scaler(text, sites):
    schema = datasets.load("small").schema
    own = schema_encoder(study_layout(Study.parse(text), schema))
    assert study_of(text, lambda: own, None).encode.scaler == "schema"
    assert study_of(text, lambda: None, None).text == text
