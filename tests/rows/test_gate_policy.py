"""The keys of a policy that a gate decides by: what is allowed unless it says so, and what it may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flfed import registry
from flfed.errors import UsageError
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import parse_settings
from flfed.study.study import Study, names

ASKED: dict[str, Any] = {
    "strategy": "fedavg", "model": "logistic", "codec": "none", "mechanism": "none", "rounds": 40
}  # fmt: skip


@pytest.mark.studies
@pytest.mark.parametrize("name", names())
def test_every_shipped_study_is_allowed_by_every_shipped_policy_and_by_the_strictest(name: str):
    study = Study.load(name)
    names = {"strategy": study.strategy.name, "model": study.model.name, "mechanism": study.privacy.name}
    asked = {**names, "codec": "none", "rounds": study.rounds}
    policies = [Policy(), *(sites.load(site).policy for site in sites.names())]
    assert len(policies) >= 18
    assert {policy.not_allowed(**asked) for policy in policies} == {None}
    assert {policy.approval for policy in policies} == {"person"}


@pytest.mark.parametrize(("given", "asked", "expected"), [
    ({}, {}, None), ({"strategies": ["fedavg"]}, {}, None),
    ({"strategies": []}, {}, "its policy allows strategies none at all, the study asks for 'fedavg'"),
    ({"models": ["mlp", "linear"]}, {}, "its policy allows models mlp, linear, the study asks for 'logistic'"),
    ({}, {"codec": "top-k"}, None), ({"codecs": ["none", "int8"]}, {}, None),
    ({"codecs": ["none", "int8"]}, {"codec": "int8"}, None),
    ({"codecs": ["none"]}, {"codec": "top-k"}, "its policy allows codecs none, the study asks for 'top-k'"),
    ({"codecs": ["int8"]}, {}, "its policy allows codecs int8, the study asks for 'none'"),
    ({}, {"mechanism": "record-dp"}, None),
    ({"mechanisms": ["record-dp"]}, {}, "its policy allows mechanisms record-dp, the study asks for 'none'"),
    ({"mechanisms": ["none"]}, {}, None), ({}, {"rounds": 1000}, None),
    ({}, {"rounds": 1001}, "its policy allows 1000 rounds, the study has 1001"),
    ({"rounds": 40}, {}, None),
    ({"rounds": 39}, {}, "its policy allows 39 rounds, the study has 40"),
])  # fmt: skip
def test_a_list_narrows_what_may_be_asked(given: dict[str, Any], asked: dict[str, Any], expected: str | None):
    assert Policy.model_validate(given).not_allowed(**{**ASKED, **asked}) == expected


def test_what_another_package_brings_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "other-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[flfed.strategy]\nodd = no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.others("strategy")["odd"] == "other 1.0"
    asked = {**ASKED, "strategy": "odd"}
    shipped = ", ".join(name for name in registry.names("strategy") if name not in registry.others("strategy"))
    assert Policy().not_allowed(**asked) == f"its policy allows strategies {shipped}, the study asks for 'odd'"
    assert Policy(strategies=("odd",)).not_allowed(**asked) is None


@pytest.mark.parametrize(("given", "mechanism", "delta", "expected"), [
    ({}, "none", None, None), ({}, "record-dp", 1e-5, None),
    ({}, "record-dp", 1.1e-5, "its policy allows delta up to 1e-05, the study asks for 1.1e-05"),
    ({"delta": 1e-3}, "record-dp", 1e-3, None), ({"epsilon": 3}, "record-dp", 1e-6, None),
    ({"epsilon": 3}, "site-dp", None, "its policy allows studies with record-level differential privacy only"),
    ({"epsilon": 3, "disclosure": "open"}, "none", None, None), ({"disclosure": "open"}, "record-dp", 0.01, None),
    ({"mechanisms": ["record-dp"], "disclosure": "open"}, "none", None, "its policy allows mechanisms record-dp"),
    ({"mechanisms": []}, "none", None, "its policy allows mechanisms none at all, the study asks for 'none'"),
])  # fmt: skip
def test_a_budget_needs_a_mechanism_that_it_can_count(given, mechanism, delta, expected):
    said = Policy.model_validate(given).privacy_refusal(mechanism=mechanism, delta=delta)
    assert (said and said[: len(expected or "")]) == expected


@pytest.mark.parametrize(("given", "cohort"), [
    ({}, 3), ({"disclosure": "open"}, 2), ({"minimum-cohort": 2}, 2), ({"minimum-cohort": 5}, 5),
    ({"disclosure": "open", "minimum-cohort": 4}, 4),
])  # fmt: skip
def test_the_fewest_sites_are_three_where_rows_are_of_patients(given: dict[str, Any], cohort: int):
    assert Policy.model_validate(given).least_cohort() == cohort


@pytest.mark.parametrize(("line", "expected"), [
    ('strategies = ["fedvag"]', "strategy 'fedvag' is not known; did you mean 'fedavg'?"),
    ('models = ["resnet"]', "model 'resnet' is not known"),
    (
        'codecs = ["topk"]',
        "codec 'topk' is not known; did you mean 'top-k'? Known: none, int8, top-k",
    ),
    ("width = 0", "width=0 must be in (0, 1]"),
    ("width = 1.5", "width=1.5 must be in (0, 1]"),
    ('width = "half"', "width='half' must be a number"),
    ("minimum-cohort = 1", "minimum-cohort=1 must be >= 2"),
    ('co-sites = ["St. Mary"]', "co-sites value 1='St. Mary' must be of a-z, 0-9 and single hyphens"),
    ("rounds = 0", "rounds=0 must be >= 1"),
    ('mechanisms = ["recorddp"]', "mechanism 'recorddp' is not known; did you mean 'record-dp'? Known: none, "),
    ("epsilon = 0", "epsilon=0 must be > 0"),
    ("epsilon = inf", "epsilon=inf must be a finite number"),
    ("delta = 0.1", "delta=0.1 must be in (0, 0.1)"),
    ("daily-bytes = 0", "daily-bytes=0 must be >= 1"),
    ('approval = "none"', "approval = 'none' needs disclosure = 'open'"),
    ("aproval = 1", "aproval: this key is not known; did you mean 'approval'?"),
    ("frobnicate = 1", "frobnicate: this key is not known."),
    ('approval = "nobody"', "approval='nobody' must be one of 'person', 'none'"),
])  # fmt: skip
def test_a_wrong_key_says_what_is_allowed(tmp_path: Path, line: str, expected: str | None):
    path = tmp_path / "policy.toml"
    path.write_text(f"format = 1\n{line}\n")
    with pytest.raises(UsageError) as error:
        parse_settings(Policy, path)
    assert expected in str(error.value)
