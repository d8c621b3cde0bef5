"""What a node answers: accepted or refused by its own policy, and nothing of a row in any error."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from flfed.federation.client.client import HANDLERS, SiteClient
from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByTime
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Csv, Frame
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.training.fit import fit
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.requests import FitRequest
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.updates.messages.compare import AUDIT, COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import KEYS, OPEN
from flfed.updates.messages.summarise import BINS, SCORES, STATISTIC, SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from flfed.updates.messages.vertical import ALIGN, PARTIAL

Ask = Callable[..., Message]


@dataclass(frozen=True, eq=False)
class Counted(Frame):
    """A frame that counts how often it is read."""

    reads: list[int] = field(default_factory=list)

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        self.reads.append(1)
        return super().read(folders)


@dataclass(frozen=True, eq=False)
class Raising(Frame):
    """A frame whose reading fails with a cell in the error's text."""

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        raise ValueError(f"could not convert string to float: {self.table['person'].iloc[0]!r}")


def side_of(*sites: Site, today: Callable[[], datetime.date] = datetime.date.today) -> SiteClient:
    by_name = {site.name: site for site in sites}
    return SiteClient(lambda name, _: by_name[name], today=today)


def enrolment() -> EnrolRequest:
    return EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())


def enrol_reply(message: Message) -> EnrolReply:
    return EnrolReply.from_record(message.content)


def first_model(session: SiteSession) -> tuple[dict[str, np.ndarray], Any]:
    """Return arrays that are not zero, and the encoder of this site alone."""
    encoder = fit_encoder(session.layout, summarise(session.table.training, session.layout))
    inputs = session.training(encoder).x.shape[1]
    return {"weight": np.linspace(-0.5, 0.5, inputs)[:, None], "bias": np.array([0.25])}, encoder


def test_a_site_that_takes_part_says_its_band_of_rows_and_no_count(small_sites, small_study, ask: Ask):
    site = small_sites(1, rows=60)[0]
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    rows = len(site.read().training)
    assert (reply.accepted, reply.reason, reply.site) == (True, "", "site-01")
    assert (reply.rows_low, reply.rows_high) == (10, 99)
    assert 10 < rows < 99
    assert rows not in [value for value in vars(reply).values() if not isinstance(value, bool)]


@pytest.mark.parametrize(("rows", "band"), [(9, (1, 9)), (10, (10, 99)), (99, (10, 99)), (100, (100, 999))])
def test_the_band_is_one_power_of_ten(small_sites, small_study, ask: Ask, rows: int, band: tuple[int, int]):
    site = small_sites(1, rows=3 * rows)[0]
    exact = site.read().training
    while len(exact) != rows:  # a holdout by hash cannot be told how many rows to leave
        surplus = len(exact) - rows
        table = site.source.table
        drop = table.index[table["person"].isin(exact["person"][:surplus])]
        site = replace(site, source=Frame(table.drop(drop)))
        exact = site.read().training
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert (reply.rows_low, reply.rows_high) == band


def test_a_breach_of_the_schema_is_refused_with_column_rule_and_count(small_sites, small_study, ask: Ask):
    def spoil(number: int, table: pd.DataFrame) -> pd.DataFrame:
        table["x1"] = table["x1"].astype(object)
        table.loc[:6, "x1"] = "Jane Roe"  # 7 rows
        return table

    site = small_sites(1, change=spoil)[0]
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert not reply.accepted
    assert reply.reason == "column 'x1' is not a number in fewer than 10 rows"


@pytest.mark.parametrize(("cell_minimum", "said"), [(10, "15 rows"), (20, "fewer than 20 rows")])
def test_a_count_in_a_refusal_is_held_to_the_sites_own_cell_minimum(small_sites, small_study, ask, cell_minimum, said):
    def spoil(number: int, table: pd.DataFrame) -> pd.DataFrame:
        table["x1"] = table["x1"].astype(object)
        table.loc[:14, "x1"] = "Jane Roe"  # 15 rows
        return table

    site = small_sites(1, change=spoil, policy=Policy(cell_minimum=cell_minimum))[0]
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert reply.reason == f"column 'x1' is not a number in {said}"


def test_a_missing_file_is_refused_without_its_path(small_sites, small_study, ask: Ask, tmp_path: Path):
    site = replace(small_sites(1)[0], source=Csv(str(tmp_path / "ward-of-jane-roe" / "table.csv")))
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert not reply.accepted
    assert reply.reason == "it cannot open its table for this study; at the site: flfed site check site-01"


def test_an_expired_study_is_refused_and_reads_no_row(small_sites, small_study, ask: Ask):
    study = small_study.replace("seed = 7", "seed = 7\nexpires = 2026-06-30")
    site = small_sites(1)[0]
    source = Counted(site.source.table)
    site = replace(site, source=source)
    last, after = (side_of(site, today=lambda d=d: datetime.date(2026, *d)) for d in ((6, 30), (7, 1)))
    late = enrol_reply(ask(after, site.name, ENROL, enrolment(), study))
    assert (late.accepted, late.reason) == (False, "the study expired on 2026-06-30")
    assert len(source.reads) == 0
    assert enrol_reply(ask(last, site.name, ENROL, enrolment(), study)).accepted
    assert len(source.reads) == 1


def test_a_study_that_expires_during_a_run_is_answered_no_more(small_sites, small_study, ask: Ask):
    study = small_study.replace("seed = 7", "seed = 7\nexpires = 2026-06-30")
    days = [datetime.date(2026, 6, 30), datetime.date(2026, 7, 1)]
    side = side_of(small_sites(1)[0], today=lambda: days.pop(0))
    assert enrol_reply(ask(side, "site-01", ENROL, enrolment(), study)).accepted
    reply = ask(side, "site-01", SUMMARISE, SummariseRequest(), study)
    assert reply.error.reason == "the study expired on 2026-06-30"


def test_a_site_of_another_dataset_is_refused_and_reads_no_row(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    source = Counted(site.source.table)
    site = replace(site, dataset="wine", source=source)
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert reply.reason == "its table is mapped to dataset 'wine', the study asks 'small'"
    assert len(source.reads) == 0


def test_another_schema_of_the_same_name_is_refused(small_sites, small_study, ask: Ask):
    other = EnrolRequest(dataset="small", schema_sha256="0" * 64)
    reply = enrol_reply(ask(side_of(small_sites(1)[0]), "site-01", ENROL, other, small_study))
    assert reply.reason == "its schema of 'small' differs from the coordinator's"


@pytest.mark.parametrize(("disclosure", "accepted"), [("institution", False), ("open", True)])
def test_an_institution_with_fewer_training_rows_than_a_cell_stays_out(
    small_sites, small_study, ask: Ask, disclosure: str, accepted: bool
):
    site = small_sites(1, rows=8, policy=Policy(disclosure=disclosure))[0]
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert reply.accepted is accepted
    assert reply.reason == ("" if accepted else "it has fewer than 10 training and holdout rows")


@pytest.mark.parametrize(("share", "reason"), [(0.9, "training"), (0.02, "validation"), (0.5, "")])
def test_no_part_of_an_institutions_rows_is_smaller_than_a_cell(small_sites, small_study, ask, share, reason):
    # 80 rows, about 56 of them for training: 90 % for validation leave about 6, 2 % about 1.
    study = small_study.replace("[plan]", f"[plan]\nvalidation = {share}")
    site = small_sites(1, rows=80, policy=Policy())[0]
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), study))
    assert reply.accepted is not bool(reason)
    assert reply.reason == (f"it has fewer than 10 {reason} rows" if reason else "")


@pytest.mark.parametrize("kind", [SUMMARISE, TRAIN, EVALUATE, COMPARE])
def test_a_server_cannot_skip_the_enrolment_of_a_site_that_refuses(small_sites, small_study, ask: Ask, kind: str):
    # Too few rows: refused at enrolment, and refused as well to whoever asks without enrolling.
    whole, tiny = small_sites(1)[0], small_sites(1, rows=8, policy=Policy())[0]
    arrays, encoder = first_model(SiteSession(whole, Study.parse(small_study)))
    request = {SUMMARISE: SummariseRequest(), COMPARE: CompareRequest(arrays=arrays, encoder=encoder)}.get(
        kind, TrainRequest(arrays=arrays, encoder=encoder, round=1, rounds=5)
    )
    reply = ask(side_of(tiny), tiny.name, kind, request, small_study)
    assert reply.has_error()
    assert reply.error.reason == "it has fewer than 10 training and holdout rows"
    assert not ask(side_of(whole), whole.name, kind, request, small_study).has_error()


@pytest.mark.parametrize(
    ("kind", "said"),
    [(ENROL, "site-01: ValueError: see the site's log"), (SUMMARISE, "ValueError: see the site's log")],
)
def test_an_exception_crosses_as_its_type_and_its_text_is_not_logged(small_sites, small_study, ask, caplog, kind, said):
    site = small_sites(1)[0]
    site = replace(site, source=Raising(site.source.table))
    request = enrolment() if kind == ENROL else SummariseRequest()
    with caplog.at_level(logging.DEBUG):
        reply = ask(side_of(site), site.name, kind, request, small_study)
    assert reply.error.reason == said
    assert f"ValueError while answering {kind}" in caplog.text
    assert site.source.table["person"].iloc[0] not in caplog.text


def test_a_malformed_request_is_answered_with_what_it_lacks(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    reply = ask(side_of(site), site.name, TRAIN, RecordDict({"config": ConfigRecord({"protocol": 2})}), small_study)
    assert reply.error.reason == "the message has no arrays 'arrays'"


def test_the_sums_are_those_over_training_rows(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    reply = SummariseReply.from_record(
        ask(side_of(site), site.name, SUMMARISE, SummariseRequest(), small_study).content
    )
    training = site.read().training
    assert reply.summary.rows[0] == len(training)
    # moments of x1 about the middle of its range, 50, in half ranges of 50
    z = (training["x1"] - 50) / 50
    np.testing.assert_allclose(reply.summary.moments[0], [len(z), z.sum(), (z**2).sum()], rtol=1e-12)


def test_an_update_is_local_minus_global_of_the_plans_steps(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    study = Study.parse(small_study)
    own = SiteSession(site, study)
    arrays, encoder = first_model(own)
    request = TrainRequest(arrays=arrays, encoder=encoder, round=3, rounds=5, lr_scale=0.5)
    reply = TrainReply.from_record(ask(side_of(site), site.name, TRAIN, request, small_study).content)
    rows = own.training(encoder)
    direct = fit(
        FitRequest(
            model=own.model, task="binary", arrays=arrays, rows=rows, plan=study.plan, lr=0.1 * 0.5,
            rng=generator(7, site="site-01", purpose="fit", number=3),
        )
    )  # fmt: skip
    for name, before in arrays.items():
        np.testing.assert_allclose(reply.delta[name], direct.arrays[name] - before, atol=1e-15)
        assert np.abs(reply.delta[name]).max() > 1e-3
    assert (reply.num_examples, reply.steps) == (len(rows), direct.steps)
    assert reply.scores is not None
    loss = loss_of_rows("binary", rows.x @ arrays["weight"] + arrays["bias"], rows.y)
    assert reply.scores.metrics["loss"] == pytest.approx(loss, abs=1e-12)


def test_scoring_alone_sends_no_arrays(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    arrays, encoder = first_model(SiteSession(site, Study.parse(small_study)))
    request = TrainRequest(arrays=arrays, encoder=encoder, round=6, rounds=5, fit=False)
    message = ask(side_of(site), site.name, EVALUATE, request, small_study)
    reply = TrainReply.from_record(message.content)
    assert (reply.delta, reply.steps) == ({}, 0)
    assert "arrays" not in message.content
    assert reply.scores is not None and reply.scores.num_examples == reply.num_examples


def test_the_holdout_is_opened_for_the_comparison_and_nothing_else(small_sites, small_study, ask: Ask):
    site = small_sites(1)[0]
    source = Counted(site.source.table)
    side = side_of(replace(site, source=source))
    arrays, encoder = first_model(SiteSession(site, Study.parse(small_study)))
    train = TrainRequest(arrays=arrays, encoder=encoder, round=1, rounds=5)
    for kind, request in ((ENROL, enrolment()), (SUMMARISE, SummariseRequest()), (TRAIN, train), (EVALUATE, train)):
        assert not ask(side, site.name, kind, request, small_study).has_error()
    opened = side.sessions[(site.name, small_study, 0)].table.opened
    assert opened == []
    compared = ask(side, site.name, COMPARE, CompareRequest(arrays=arrays, encoder=encoder), small_study)
    assert set(opened) == {"compare"}
    assert len(source.reads) == 1  # one reading serves the whole run
    reply = CompareReply.from_record(compared.content)
    whole = site.read()
    assert (reply.num_examples, reply.holdout_rows) == (len(whole.training), len(whole.holdout("count")))


def test_a_repeat_draws_another_holdout_only_where_the_policy_allows(small_sites, small_study, ask: Ask):
    def keys(site: Site, repeat: int) -> set[str]:
        side = side_of(site)
        ask(side, site.name, ENROL, enrolment(), small_study, repeat)
        return set(side.sessions[(site.name, small_study, repeat)].table.training["person"])

    free, fixed = small_sites(1)[0], small_sites(1, policy=Policy(disclosure="open"))[0]
    assert keys(free, 0) != keys(free, 1)
    assert keys(fixed, 0) == keys(fixed, 1)


def test_there_is_a_handler_for_every_kind_of_message():
    assert sorted({ENROL, KEYS, *HANDLERS}) == sorted(
        [ENROL, SUMMARISE, BINS, STATISTIC, TRAIN, EVALUATE, KEYS, OPEN, SCORES, COMPARE, AUDIT] + [ALIGN, PARTIAL]
    )


@pytest.mark.parametrize(("by_time", "redrawn"), [(False, True), (True, False)])
def test_a_holdout_by_time_is_the_same_in_every_repeat_and_says_so(
    small_sites, small_study, ask: Ask, tmp_path: Path, by_time: bool, redrawn: bool
):
    # Else the spread of seeds over one holdout would be read as the spread over splits.
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text() + '\n[columns.seen]\nkind = "date"\n')
    days = pd.date_range("2026-01-01", periods=60).astype(str)
    site = small_sites(1, rows=60, change=lambda _, table: table.assign(seen=days))[0]
    site = replace(site, holdout=HoldoutByTime("seen", "2026-02-10", "2026-02-11")) if by_time else site
    reply = enrol_reply(ask(side_of(site), site.name, ENROL, enrolment(), small_study))
    assert (reply.accepted, reply.resplit) == (True, redrawn)
    keys = [site.read(repeat).holdout("compare")["person"].tolist() for repeat in (0, 1)]
    assert (keys[0] == keys[1]) is by_time
    assert len(keys[0]) >= 10
