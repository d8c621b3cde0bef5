"""What every mechanism of the listing promises: the rules are in `flfed.testing`, for other packages' too."""

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flfed import registry
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.registry import load, names
from flfed.study.plan import Plan
from flfed.study.study import WITHOUT_IMPORT, Study
from flfed.testing import MECHANISM_RULES, RuleBroken, Subject, check_mechanism, keep
from flfed.updates.mechanism import Mechanism, mechanism_of, uncharged_outputs
from flfed.updates.privacy.record_dp import RecordDp
from flfed.updates.privacy.site_dp import SiteDp

MECHANISMS = names("mechanism")


@pytest.mark.parametrize("rule", MECHANISM_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_keeps_every_rule_of_the_contract(name, rule):
    keep(rule, Subject(load("mechanism", name)))


def test_the_listing_has_our_two_and_every_rule_says_why_there_is_one():
    assert {"record-dp", "site-dp"} <= set(MECHANISMS)
    assert len(MECHANISM_RULES) >= 12
    assert all(len(inspect.getdoc(rule).split()) > 5 for rule in MECHANISM_RULES)


@pytest.mark.parametrize("name", sorted(WITHOUT_IMPORT.keys() - {"none"}))
def test_whether_a_mechanism_protects_rows_is_the_same_without_its_module(name):
    assert load("mechanism", name).protects_rows == WITHOUT_IMPORT[name]


def test_a_private_study_is_parsed_without_numpy():
    code = "import sys; from flfed import Study; Study.load('breast-cancer-dp-3'); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_ours_keep_the_contract_with_other_settings_too():
    check_mechanism(RecordDp, {"epsilon": 0.5, "clip": 0.01, "sampling": 1.0, "unit": "row"})
    check_mechanism(SiteDp, {"noise": 2.0, "clip": 30.0})


@pytest.mark.parametrize("mechanism", [Mechanism(), RecordDp(unit="row", delta=1e-4), RecordDp(), SiteDp()])
def test_what_a_ledger_counts_is_told_without_the_accountant_as_the_promise_has_it(mechanism: Mechanism):
    plan = Plan(steps=4)
    release, promise = mechanism.round_release(plan, 3), mechanism.promise(plan, 3)
    told = None if release is None else (promise.unit, promise.delta)
    assert mechanism.charged(plan, 3) == told == Mechanism.charged(mechanism, plan, 3)


# One for each rule, that breaks it and none before it.


class Unbased:
    """Source: none. Guarantee: none; neighbours: none."""


class Unsourced(RecordDp):
    """Guarantee: none; neighbours are tables."""


class Vague(RecordDp):
    """Guarantee: all is safe. Source: none."""


class Loose(RecordDp):
    """Source: none. Guarantee: none; neighbours: none."""

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__(clip=clip)


class Tabular(RecordDp):
    """Source: none. Guarantee: none; neighbours: none."""


class Boasting(RecordDp):
    """Source: none. Guarantee: half of what it spends; neighbours: tables."""

    def promise(self, plan, rounds):
        made = super().promise(plan, rounds)
        return replace(made, epsilon=made.epsilon / 2)


class Flat(RecordDp):
    """Source: none. Guarantee: all is spent at once; neighbours: tables."""

    def spent(self, plan, rounds, asked, *, quick=False):
        return super().spent(plan, rounds, rounds)


class Loud(RecordDp):
    """Source: none. Guarantee: of half the clip; neighbours: tables."""

    def promise(self, plan, rounds):
        return replace(super().promise(plan, rounds), clip=self.clip / 2)


class Long(SiteDp):
    """Source: none. Guarantee: of half the norm that updates have; neighbours: sites."""

    def merged(self, deltas, **given):
        return SiteDp(noise=self._noise(given["rounds"]), clip=2 * self.clip).merged(deltas, **given)


class Quiet(SiteDp):
    """Source: none. Guarantee: of more noise than there is; neighbours: sites."""

    def merged(self, deltas, *, normals, **given):
        return super().merged(deltas, normals=lambda count: 0.6 * normals(count), **given)


class Judging(SiteDp):
    """Source: none. Guarantee: whom the others' norms leave; neighbours: sites."""

    refuses_by_norm = True


class Silent(RecordDp):
    """Source: none. Guarantee: without its reserve; neighbours: tables."""

    def uncharged(self, study):
        return super().uncharged(study)[1:]


def test_every_rule_is_broken_by_one_that_breaks_only_it(monkeypatch: pytest.MonkeyPatch):
    broken = (Unbased, Unsourced, Loose, Vague, Tabular, Boasting, Flat, Loud, Long, Quiet, Judging, Silent)
    for rule, kind in zip(MECHANISM_RULES, broken, strict=True):
        # Where a class is defined, all that its file imports comes along: this file's is not what is looked at.
        monkeypatch.setattr(kind, "__module__", "flfed.rows.data.site" if kind is Tabular else RecordDp.__module__)
        with pytest.raises(RuleBroken) as told:
            check_mechanism(kind)
        assert rule.__name__.replace("_", " ") in str(told.value), (rule, str(told.value))


# What a study may ask for.

STUDY = """
format = 1
name = "asking"
purpose = "ask for a mechanism"
legal-basis = "no data"
[dataset]
name = "wine"
[model]
name = "logistic"
[plan]
steps = 10
[strategy]
name = "fedavg"
rounds = 5
[privacy]
name = "record-dp"
sampling = 0.2
"""
SITE_DP = STUDY.replace("record-dp", "site-dp").replace("sampling = 0.2\n", "")


def test_a_study_that_keeps_the_promise_passes_and_its_mechanism_is_built_of_its_settings():
    study = Study.parse(STUDY).replace({"privacy.epsilon": 8, "privacy.unit": "row"})
    check(study)
    made = mechanism_of(study)
    assert isinstance(made, RecordDp) and (made.epsilon, made.sampling, made.unit) == (8.0, 0.2, "row")
    assert mechanism_of(Study.parse(STUDY.partition("[privacy]")[0])) is None


@pytest.mark.parametrize(("changes", "said"), [
    ({"plan.steps": 0}, r"record-dp: needs \[plan\] steps"),
    ({"plan.clip": 1.0}, "clip limits whole gradients"),
    ({"encode.scaler": "per-site"}, r"One more row changes the gradients of all, and \[privacy\] record-dp bounds"),
    ({"privacy.epsilon": 0.0}, r"epsilon=0.0 must be in \(0, 100\]"),
    ({"privacy.epsilon": float("nan")}, "epsilon=nan"), ({"privacy.delta": 0.5}, "delta=0.5 must be"),
    ({"privacy.sampling": 1.5}, "sampling=1.5 must be"), ({"privacy.clip": 0.0}, "clip=0.0 must be"),
    ({"privacy.epsilon": 0.0001, "privacy.delta": 1e-9, "plan.steps": 10000}, "no noise up to 1000"),
])  # fmt: skip
def test_a_study_under_which_the_promise_fails_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        check(Study.parse(STUDY).replace(changes))


@pytest.mark.parametrize(("changes", "said"), [
    ({"strategy.weights": "rows"}, "weights='rows' lets one site count more; site-dp needs 'equal'"),
    ({"privacy.noise": 0.1}, "noise=0.1 must be 0"),
    ({"privacy.epsilon": 1e-4, "strategy.rounds": 1000}, "no noise up to 1000"),
])  # fmt: skip
def test_site_dp_refuses_what_breaks_its_promise(changes, said):
    check(Study.parse(SITE_DP).replace({"strategy.weights": "equal", "plan.steps": 0, "plan.clip": 1.0}))
    with pytest.raises(UsageError, match=said):
        check(Study.parse(SITE_DP).replace(changes))


def test_a_promise_follows_from_rounds_times_steps_and_not_from_what_was_asked():
    made, plan = RecordDp(epsilon=3.0, sampling=0.05), Plan(steps=20)
    promise = made.promise(plan, 20)
    # PRIVACY.md: epsilon 3, delta 1e-5, q 0.05, 400 steps need noise 1.626 by PRV, 1.621 by PLD.
    assert promise.steps == 400 and 1.620 <= promise.noise <= 1.627
    assert 2.99 <= promise.epsilon <= 3.0
    assert made.round_release(plan, 20).steps == 20
    assert made.promise(plan, 40).noise > promise.noise  # per-run counting of some steps only would not see it


def test_what_is_uncharged_follows_from_the_study():
    plain = Study.parse(STUDY)
    chosen = plain.replace({"plan.validation": 0.2, "strategy.select": "best"})
    before, after = uncharged_outputs(plain), uncharged_outputs(chosen)
    assert any("on each site's training rows, with" in said for said in before)
    assert any("on each site's validation rows, with" in said for said in after)
    assert any("which round's model is the result" in said for said in after)
    assert len(after) == len(before) + 1
    # Without a mechanism the updates themselves are the first to be named; record-dp has noise on them.
    assert len(Mechanism().uncharged(plain)) == len(before) + 1
    found = RecordDp().uncharged(plain)
    assert len(found) == len(before) + 2 and "three digits" in found[-1]


def test_a_budget_is_named_among_what_leaves_only_where_the_run_counts_epsilon():
    said = "A site's budget of epsilon, and how much of it all studies have spent."
    for text, leaves in ((STUDY, True), (SITE_DP, False), (STUDY.partition("[privacy]")[0], False)):
        study = Study.parse(text)
        assert (said in (mechanism_of(study) or Mechanism()).uncharged(study)) == leaves, study.privacy.name


def installed(folder: Path, module: str, source: str, entry: str) -> None:
    """Put a package of one module into a folder, as an installation does."""
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry)


OWN_WAY = """
from flfed.updates.strategies.fedavg import FedAvg

class OwnWay(FedAvg):
    def aggregate_train(self, server_round, replies):
        return super().aggregate_train(server_round, replies)
"""


def test_site_dp_refuses_a_strategy_that_could_pass_its_noise_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed(tmp_path, "own_way", OWN_WAY, "[flfed.strategy]\nown-way = own_way:OwnWay\n")
    monkeypatch.syspath_prepend(tmp_path)
    study = Study.parse(SITE_DP).replace({"strategy.name": "own-way"})
    with pytest.raises(UsageError, match="own-way: aggregates without the noise of site-dp"):
        SiteDp().check(study)
    SiteDp().check(study.replace({"strategy.name": "fedprox"}))
    RecordDp().check(study)  # whose noise is in the updates already


def test_another_packages_mechanism_is_listed_built_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Path(inspect.getfile(RecordDp)).read_text().replace("RecordDp", "EvenClip")
    installed(tmp_path, "even_clip", source, "[flfed.mechanism]\neven-clip = even_clip:EvenClip\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "even-clip" in names("mechanism") and "even-clip" in registry.others("mechanism")
    check_mechanism(load("mechanism", "even-clip"))
    made = mechanism_of(Study.parse(STUDY).replace({"privacy.name": "even-clip", "privacy.clip": 0.25}))
    assert made.private_steps(Plan(steps=2), 1).clip == 0.25
