"""What every mechanism of the listing promises, and what a study may ask for."""

import inspect
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import registry
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.registry import load, names
from flfed.rows.features.encode import Encoded
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps
from flfed.study.study import WITHOUT_IMPORT, Study
from flfed.study.template import StudyTemplate
from flfed.testing.rules import Subject, the_docstring_names_a_source, the_signature_is_the_config_schema
from flfed.updates.accounting import Release, epsilon
from flfed.updates.arrays import Arrays
from flfed.updates.mechanism import Mechanism, mechanism_of, uncharged_outputs
from flfed.updates.privacy.record_dp import RecordDp
from flfed.updates.privacy.site_dp import SiteDp
from flfed.words import render

DTYPES = ("float64", "float32")
ROUNDS = 3
STEPS = 4
SITES = 12
ROWS = 20
CLOSE = 1e-9
PLAN = Plan(steps=STEPS)


MECHANISMS = names("mechanism")
OURS = {
    "record-dp": {"epsilon": 0.5, "clip": 0.01, "sampling": 1.0, "unit": "row"},
    "site-dp": {"noise": 2.0, "clip": 30.0},
}
"""Other settings, with which the contract holds too."""


@pytest.fixture(params=[*((name, {}) for name in MECHANISMS), *OURS.items()], ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    name, settings = request.param
    return Subject(load("mechanism", name), settings)


def test_a_mechanism_says_its_source_and_takes_what_a_study_may_set(subject: Subject) -> None:
    the_docstring_names_a_source(subject)
    the_signature_is_the_config_schema(subject)


def test_it_builds_on_mechanism(subject: Subject) -> None:
    """A run asks it what `Mechanism` answers.

    What it does not change has the answer there.
    """
    assert issubclass(subject.kind, Mechanism)


def test_the_docstring_names_a_guarantee_and_its_neighbours(subject: Subject) -> None:
    """A promise says against whom it holds and which two tables look alike.

    So does the lack of one.
    """
    text = inspect.getdoc(subject.kind) or ""
    assert "Guarantee:" in (inspect.getdoc(subject.kind) or "")
    assert "neighbours" in text.partition("Guarantee:")[2].lower()


def test_its_promise_is_what_its_rounds_spend(subject: Subject) -> None:
    """The accountant's ε of all rounds is the promised one: a run never spends more than it says."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    release = made.round_release(PLAN, ROUNDS)
    steps = made.private_steps(PLAN, ROUNDS)
    if promise is None:
        assert release is None
        assert made.spent(PLAN, ROUNDS, 1) is None
        return
    possible = 0 < promise.delta < 1 and 0 < promise.epsilon < math.inf
    assert possible
    if release is not None:
        every = epsilon([release] * ROUNDS, promise.delta)
        assert every <= promise.epsilon + CLOSE
    if steps is not None:
        taken = Release(steps.noise, steps.sampling, PLAN.steps)
        assert release is not None
        assert release == taken
        promised_steps = (promise.noise, promise.sampling, promise.steps)
        really = (steps.noise, steps.sampling, PLAN.steps * ROUNDS)
        # An outcome is protected in sums over whole rows.
        assert promise.unit in (steps.unit, "outcome")
        assert promised_steps == really


def test_spending_grows_from_nothing_to_the_promise(subject: Subject) -> None:
    """A run that ends early has spent no more than was promised, and its first round is not free."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    if promise is None:
        return
    spent = [made.spent(PLAN, ROUNDS, number) for number in range(ROUNDS + 1)]
    assert spent[0] == 0
    assert spent[1] > 0
    assert all(a <= b for a, b in pairwise(spent))
    assert abs(spent[-1] - promise.epsilon) <= CLOSE


def test_a_row_moves_a_step_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one row, the summed gradients of a step are within the clip that is promised."""
    made = subject.make()
    steps = made.private_steps(PLAN, ROUNDS)
    promise = made.promise(PLAN, ROUNDS)
    if steps is None:
        return
    clip = (promise or steps).clip
    whole = _summed(steps, np.arange(ROWS))
    apart = [_apart(whole, _summed(steps, np.delete(np.arange(ROWS), row))) for row in range(ROWS)]
    assert max(apart) <= clip * (1 + CLOSE)


def test_a_site_moves_the_mean_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one site's update, means over the sites asked are within `clip / asked`."""
    made = subject.make()
    deltas = _deltas()
    whole = _merged(made, deltas, 0.0)
    promise = made.promise(PLAN, ROUNDS)
    if whole is None or promise is None:
        return
    most = 0.0
    for site in deltas:
        without = {other: delta for other, delta in deltas.items() if other != site}
        most = max(most, _apart(whole, _merged(made, without, 0.0) or {}))
    bound = promise.clip / SITES
    assert most <= bound * (1 + CLOSE)
    assert list(whole) == list(_like())


def test_the_mean_has_the_noise_of_the_promise(subject: Subject) -> None:
    """Draws of one are what a deviation of `noise * clip / asked` makes of them, in every coordinate."""
    made = subject.make()
    still, noisy = (_merged(made, _deltas(), draw) for draw in (0.0, 1.0))
    promise = made.promise(PLAN, ROUNDS)
    if still is None or noisy is None or promise is None:
        return
    expected = promise.noise * promise.clip / SITES
    gap = max(float(np.abs(noisy[name] - still[name] - expected).max()) for name in still)
    assert gap <= CLOSE * expected


def test_one_site_is_not_judged_by_the_others(subject: Subject) -> None:
    """Where a site is hidden, an update set aside for the others' norms would reveal it, by more than its clip."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    if promise is not None and promise.unit == "site":
        assert made.refuses_by_norm is False


def test_it_says_what_is_not_in_its_promise(subject: Subject) -> None:
    """Whoever believes the promise reads beside it every release without noise."""
    study = _study()
    made = subject.make()
    uncharged_sentences = made.uncharged(study)
    needed = list(uncharged_outputs(study))
    if made.round_release(study.plan, study.rounds) is not None:
        needed.append(render("mechanisms.uncharged.budgets"))
    lacking = [sentence for sentence in needed if sentence not in uncharged_sentences]
    assert not lacking
    texts = [*uncharged_sentences, *subject.make().warnings(study, SITES)]
    assert all(isinstance(text, str) and text.strip().endswith(".") for text in texts)


def _study() -> Study:
    """Return a study that every mechanism should take.

    It names none, as another package's may not be installed.
    """
    study = Study.parse(StudyTemplate(name="checked", dataset="none", rounds=ROUNDS).text())
    return replace(study.replace({"plan.steps": STEPS}), privacy=replace(study.privacy, name="checked"))


def _rows(selection: np.ndarray) -> Encoded:
    """Return rows of a real task, some of them far out, without those that are left out."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(ROWS, 4)) * rng.choice([0.1, 1.0, 50.0], size=(ROWS, 1))
    y = rng.integers(0, 2, ROWS)
    return Encoded(x=x[selection], y=y[selection].astype(float), weight=np.ones(len(selection)))


def _summed(steps: PrivateSteps, selection: np.ndarray) -> Arrays:
    """Return the summed gradient of one step over all of some rows, without its noise."""
    bare = replace(steps, noise=0.0, sampling=1.0)
    plan = Plan(steps=1, lr=1.0)
    rng = np.random.default_rng(9)
    arrays = {"weight": rng.normal(size=(4, 1)), "bias": rng.normal(size=1)}
    request = FitRequest(
        model=Logistic(), task="binary", arrays=arrays, rows=_rows(selection), plan=plan, lr=1.0,
        rng=rng, private=bare, chance=SeededNoise(rng), delta=True,
    )  # fmt: skip
    return {name: -len(selection) * value for name, value in private_fit(request).arrays.items()}


def _like() -> Arrays:
    return {"weight": np.zeros((4, 2)), "bias": np.zeros(2)}


def _deltas() -> dict[str, Arrays]:
    """Return updates of which some are far longer than any bound, and one is nothing."""
    rng = np.random.default_rng(10)
    scales = [0.0, 1e-3, *rng.lognormal(0, 3, SITES - 2)]
    deltas = {}
    for n, scale in enumerate(scales):
        deltas[f"site-{n:02d}"] = {name: scale * rng.normal(size=value.shape) for name, value in _like().items()}
    return deltas


def _merged(made: Any, deltas: Mapping[str, Arrays], draw: float) -> Arrays | None:
    merged: Arrays | None = made.merged(
        deltas, plan=PLAN, rounds=ROUNDS, asked=SITES, normals=lambda count: np.full(count, draw)
    )
    return merged


def _apart(a: Arrays, b: Arrays) -> float:
    """Return the L2 norm of the difference over all arrays together."""
    return math.sqrt(sum(float(np.square(a[name] - b[name]).sum()) for name in a))


@pytest.mark.parametrize("name", sorted(WITHOUT_IMPORT.keys() - {"none"}))
def test_whether_a_mechanism_protects_rows_is_the_same_without_its_module(name):
    assert load("mechanism", name).protects_rows == WITHOUT_IMPORT[name]


def test_a_private_study_is_parsed_without_numpy():
    code = "import sys; from flfed import Study; Study.load('breast-cancer-dp-3'); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("mechanism", [Mechanism(), RecordDp(unit="row", delta=1e-4), RecordDp(), SiteDp()])
def test_what_a_ledger_counts_is_told_without_the_accountant_as_the_promise_has_it(mechanism: Mechanism):
    plan = Plan(steps=4)
    release, promise = mechanism.round_release(plan, 3), mechanism.promise(plan, 3)
    told = None if release is None else (promise.unit, promise.delta)
    assert mechanism.charged(plan, 3) == told == Mechanism.charged(mechanism, plan, 3)


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
    the_docstring_names_a_source(Subject(load("mechanism", "even-clip")))
    made = mechanism_of(Study.parse(STUDY).replace({"privacy.name": "even-clip", "privacy.clip": 0.25}))
    assert made.private_steps(Plan(steps=2), 1).clip == 0.25
