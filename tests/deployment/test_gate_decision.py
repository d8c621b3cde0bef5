"""What the gate refuses, with which words, and that no row is read for it."""

import datetime
import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from flfed.deployment.site_state import approval
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import (
    ENROL,
    EnrolRequest,
)
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN
from tests.deployment.altered import with_array, with_value

FEDPROX = 'name = "fedprox"\nmu = 0.1'


def changed(message: Message, change: Callable[[RecordDict], None]) -> Message:
    """Return the message with its content changed, as a server may change it."""
    change(message.content)
    return message


def test_what_a_strategy_sends_is_let_in_and_reads_no_row(gated):
    site = gated()
    assert site.refusal(site.trained()) is None
    assert site.refusal(site.trained(round=5)) is None
    assert site.refusal(site.trained(round=6, evaluate=True)) is None
    assert site.refusal(site.message(ENROL, EnrolRequest(dataset="small", schema_sha256="0" * 64))) is None
    assert site.refusal(site.message(SUMMARISE, SummariseRequest())) is None
    request = site.trained().content.message
    assert site.refusal(site.message(COMPARE, CompareRequest(arrays=request.arrays, encoder=request.encoder))) is None
    assert len(site.site.source.reads) == 1  # the freezing


@pytest.mark.parametrize(("decide", "expected"), [
    (lambda site: None, "the study is not approved here"),
    (lambda site: approval.refuse(site.folder, site.study, by="B"), "the study was refused here on 20"),
    (
        lambda site: (site.approve(), approval.withdraw(site.folder, "small", by="B")),
        "the study was withdrawn here on 20",
    ),
    (
        lambda site: site.approve(Study.parse(site.study.text.replace("seed = 7", "seed = 8"))),
        "study 'small' was changed since it was decided about here: it needs a new approval",
    ),
    (lambda site: site.approve(schema_sha256="0" * 64), "its schema of 'small' changed after the approval"),
    (
        lambda site: site.approve(rows_sha256="0" * 64),
        "its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY",
    ),
    (lambda site: (site.approve(), approval.pause(site.folder, by="B")), "the site is paused by its operator"),
])  # fmt: skip
def test_a_study_without_a_standing_approval_for_these_rows_is_refused(gated, decide, expected: str):
    site = gated(approved=False)
    decide(site)
    for message in (site.trained(), site.message(ENROL, EnrolRequest(dataset="small", schema_sha256="0" * 64))):
        assert site.refusal(message)[: len(expected)] == expected
    reply = site.answer(site.trained())
    assert reply.error.reason.startswith(expected)
    assert [line.kind for line in site.lines()] == ["refused"]
    assert len(site.site.source.reads) == 1


def test_what_an_operator_decides_as_root_belongs_to_the_gates_user(gated):
    site = gated(approved=False)
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(site.folder.gate, user, -1)
    approval.refuse(site.folder, site.study, by="B")
    approval.pause(site.folder, by="B")
    written = [site.folder.approvals, *site.folder.approvals.iterdir(), site.folder.gate / "paused"]
    assert len(written) == 3
    assert {path.stat().st_uid for path in written} == {user}


def test_a_pause_ends_and_a_withdrawal_stays(gated):
    site = gated()
    approval.pause(site.folder, by="B")
    assert approval.resume(site.folder)
    assert site.refusal(site.trained()) is None
    approval.withdraw(site.folder, "small", by="B")
    assert site.refusal(site.trained()).startswith("the study was withdrawn here")
    site.approve()
    assert site.refusal(site.trained()) is None


def test_one_blank_more_in_the_text_is_another_study(gated):
    site = gated()
    said = site.refusal(site.trained(), study=site.study.text + " ")
    assert said == "study 'small' was changed since it was decided about here: it needs a new approval"


def test_a_study_is_answered_on_its_last_day_and_not_after(gated, small_study: str):
    site = gated(small_study.replace("seed = 7", "seed = 7\nexpires = 2026-11-20"))
    assert site.refusal(site.trained()) is None
    site.today = datetime.date(2026, 11, 21)
    assert site.refusal(site.trained()) == "the study expired on 2026-11-20"


def test_rows_that_are_frozen_anew_or_gone_need_a_new_approval(gated):
    site = gated()
    message = site.trained()
    site.site.source.table.loc[0, "x1"] += 1.0
    assert site.refusal(message) is None  # the source is not looked at: the frozen rows are served
    site.freeze()
    assert (
        site.refusal(message)
        == "its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY"
    )
    site.approve()
    assert site.refusal(message) is None
    shutil.rmtree(site.folder.frozen)
    assert site.refusal(message) == "it has no frozen rows of 'small'"


def test_an_approval_or_rows_that_others_may_write_are_not_believed(gated):
    site = gated()
    (path,) = site.folder.approvals.glob("*.json")
    os.chmod(path, 0o660)
    said = "its approvals cannot be read safely; at the site: flfed site status site-01"
    assert site.refusal(site.trained()) == said
    os.chmod(path, 0o600)
    path.write_text("{}")
    assert site.refusal(site.trained()) == said
    path.unlink()
    site.approve()
    for file in (site.folder.frozen / "small").iterdir():
        os.chmod(file, 0o644)
    assert site.refusal(site.trained()) == "its frozen rows cannot be served; at the site: flfed site status site-01"


@pytest.mark.parametrize(("policy", "text", "expected"), [
    ({"strategies": ("fedavg",)}, FEDPROX, "its policy allows strategies fedavg, the study asks for 'fedprox'"),
    ({"models": ("mlp",)}, "", "its policy allows models mlp, the study asks for 'logistic'"),
    ({"codecs": ("int8",)}, "", "its policy allows codecs int8, the study asks for 'none'"),
    ({"rounds": 4}, "", "its policy allows 4 rounds, the study has 5"),
    ({"minimum_cohort": 4}, "", "the run asks 3 sites, its policy needs at least 4"),
    ({"co_sites": ("site-02",)}, "", "its policy does not name site-03 as a co-site"),
])  # fmt: skip
def test_what_the_policy_does_not_allow_is_refused(gated, small_study: str, policy, text: str, expected: str):
    site = gated(small_study.replace('name = "fedavg"', text or 'name = "fedavg"'))
    assert site.refusal(site.trained()) is None
    site.policy(**policy)
    assert site.refusal(site.trained()) == expected


@pytest.mark.parametrize(("sites", "expected"), [
    ("site-01,site-02", "the run asks 2 sites, its policy needs at least 3"),
    ("site-01,site-02,site-03,site-99", "the run adds site-99, which the approval does not name"),
    ("site-02,site-03,site-04", "the run's list of sites does not name this one, or names one twice"),
    ("site-01,site-01,site-02", "the run's list of sites does not name this one, or names one twice"),
    ("", "the run does not name the sites that it asks"),
    ("site-01, site-02,site-03", "the run does not name the sites that it asks"),
    ("site-01,../../etc,site-03", "the run does not name the sites that it asks"),
])  # fmt: skip
def test_a_cohort_is_of_enough_sites_that_the_approval_names(gated, sites: str, expected: str):
    site = gated(policy=Policy())
    assert site.site.policy.least_cohort() == 3
    assert site.refusal(site.trained()) is None
    assert site.refusal(site.trained(), sites=sites) == expected


def test_on_public_data_two_sites_do_and_nobody_needs_to_approve(gated):
    site = gated(approved=False, policy=Policy(disclosure="open", approval="none"), sites=2)
    assert site.site.policy.least_cohort() == 2
    assert site.refusal(site.trained()) is None
    approval.refuse(site.folder, site.study, by="B")
    assert site.refusal(site.trained()).startswith("the study was refused here")
    with pytest.raises(ValueError, match="approval = 'none' needs disclosure = 'open'"):
        Policy(approval="none")


def test_a_text_that_nobody_approved_cannot_harm_where_it_is_parsed(gated):
    site = gated(approved=False, policy=Policy(disclosure="open", approval="none"))
    message = site.trained()
    no_toml = "the study cannot be used (the study is not valid TOML: "
    assert site.refusal(message, study="a = " + "[" * 20_000) == f"{no_toml}it is nested more than 32 levels deep)"
    digits = site.refusal(message, study="a = 1" + "0" * 5000)
    assert digits == f"{no_toml}a whole number in it is larger than 64 bits hold)"
    assert site.refusal(message, study="x" * 200_000) == "the run brings no study"
    assert site.refusal(message, study=3) == "the run brings no study"
    for run in ("", "../x", 7):
        assert site.refusal(message, run=run) == "the run has no name of letters, digits and hyphens"
    assert site.refusal(message, repeat=-1).startswith("the run's repeat must be a whole number")
    huge = site.study.text.replace('"logistic"', '"mlp"\nhidden = [4000000000, 4000000000]')
    count = "16,000,000,032,000,000,001 parameters are more than the 16,777,216"
    assert site.refusal(message, study=huge).startswith(f"the study's model cannot be made ([model] mlp: {count}")
    cut = site.study.text.replace('name = "small"\n[model]', 'name = "small"\npartition = { by = "iid" }\n[model]')
    assert site.refusal(message, study=cut) == "the study cuts one table into research sites, which no institution is"


def test_a_message_of_another_kind_or_to_another_site_is_refused(gated):
    site = gated()
    assert site.refusal(site.message("query.rows", SummariseRequest())).startswith(
        "a message of kind 'query.rows' is not"
    )
    error = Message(Error(code=1, reason="x"), reply_to=site.message(TRAIN, SummariseRequest()))
    error.metadata.__dict__["_message_type"] = TRAIN
    assert site.refusal(error) == "the message has no content"
    context = site.context()
    context.node_config["site"] = "site-02"
    assert site.gate.refusal(site.trained(), context) == ("this is site 'site-01', and its node has another name")


def without(section: str) -> Callable[[RecordDict], None]:
    return lambda content: content.pop(section)


DEFECTS = [
    (with_array("bias", np.zeros(100_000)), "section 'arrays' has an array 'bias' that is too large (800128 bytes"),
    (with_array("bias", np.zeros((1, 1))), "section 'arrays' has an array 'bias' of another shape than (1,)"),
    (with_array("bias", np.zeros(1, np.float32)), "section 'arrays' has an array 'bias' of another type than float64"),
    (with_array("bias", np.array([np.inf])), "section 'arrays' has an array 'bias' with values that are not finite"),
    (with_array("other", np.zeros(1)), "section 'arrays' has 1 array too many"),
    (without("arrays"), "it has no section 'arrays'"),
    (with_array("scale", np.zeros(5), "encoder"), "section 'encoder' has an array 'scale' with values that are not ab"),
    (with_array("center", np.zeros(6), "encoder"), "section 'encoder' has an array 'center' of another shape"),
    (with_value("more", "x", 1), "it has 1 section too many"),
    (with_value("config", "round", 6), "section 'config' has a value 'round' that does not fit"),
    (with_array("bias", np.array([np.nan])), "section 'arrays' has an array 'bias' with values that are not finite"),
    (with_value("config", "round", True), "section 'config' has a value 'round' that does not fit"),
    (with_value("config", "rounds", 6), "section 'config' has a value 'rounds' that does not fit"),
    (with_value("config", "lr-scale", 2.0), "section 'config' has a value 'lr-scale' that does not fit"),
    (with_value("config", "fit", False), "section 'config' has a value 'fit' that does not fit"),
    (with_value("config", "fit", 1), "section 'config' has a value 'fit' that does not fit"),
    (with_value("config", "protocol", 3), "section 'config' has a value 'protocol' that does not fit"),
    (with_value("config", "rows", "all"), "section 'config' has 1 value too many"),
    (with_value("settings", "mu", 0.1), "it has 1 section too many"),
]


@pytest.mark.parametrize(("change", "expected"), DEFECTS)
def test_an_incoming_model_is_exactly_what_the_study_says(gated, change, expected: str):
    site = gated()
    said = site.refusal(changed(site.trained(), change))
    assert said.removeprefix("the train message does not fit the study: ").removeprefix("its ").startswith(expected)
    assert len(said) > 50


def test_where_the_schema_makes_the_encoder_no_other_is_let_in(gated, small_study: str):
    site = gated(Study.parse(small_study).replace({"encode.scaler": "schema"}).text)
    assert site.refusal(site.trained()) is None
    moved = changed(site.trained(), with_array("center", np.zeros(5), "encoder"))
    said = "its section 'encoder' has an array 'center' that is not the one that follows from the study"
    assert said in site.refusal(moved)


def test_the_settings_of_a_strategy_are_those_of_the_study(gated, small_study: str):
    site = gated(small_study.replace('name = "fedavg"', FEDPROX))
    assert site.refusal(site.trained()) is None
    for change in (with_value("settings", "mu", 0.2), with_value("settings", "mu", float("nan"))):
        assert site.refusal(changed(site.trained(), change)).endswith(
            "its section 'settings' has a value 'mu' that does not fit"
        )
    assert site.refusal(changed(site.trained(), without("settings"))).endswith("it has no section 'settings'")
    more = with_value("settings", "nu", 0.1)
    assert site.refusal(changed(site.trained(), more)).endswith("its section 'settings' has 1 value too many")


def test_bytes_that_are_no_array_are_refused_and_not_decoded(gated):
    site = gated()

    def spoil(content: RecordDict) -> None:
        with_array("bias", np.zeros(1))(content)
        content["arrays"]["bias"].data = b"\x80\x04K\x01."  # a pickle

    said = site.refusal(changed(site.trained(), spoil))
    assert said == "the train message does not fit the study: its section 'arrays' cannot be read"


def test_an_evaluation_trains_nothing(gated):
    site = gated()
    message = changed(site.trained(round=6, evaluate=True), with_value("config", "fit", True))
    assert message.metadata.message_type == EVALUATE
    assert site.refusal(message).endswith("its section 'config' has a value 'fit' that does not fit")


HOSTILE = """
import pathlib, sys
pathlib.Path({marker!r}).write_text("executed")
from flfed.rows.data import site_discovery
table = site_discovery.load("site-01").source.read(())
client = server = None
"""


def test_rows_come_from_what_is_frozen_and_only_for_this_site(gated):
    site = gated()
    assert site.refusal(site.trained()) is None
    site.site.source.table.loc[:, "x1"] = 0.0
    served = site.gate.find_site("site-01", site.study)
    assert served.inspect()[0]["x1"].std() > 5
    assert len(site.site.source.reads) == 1
    with pytest.raises(Exception, match="this gate is of site 'site-01', not 'site-02'"):
        site.gate.find_site("site-02", site.study)
    with pytest.raises(Exception, match="the folder is of site"):
        type(site.gate)(site.folder, replace(site.site, name="other"))
