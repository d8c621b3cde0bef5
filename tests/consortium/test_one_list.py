"""Secure sums at real institutions over many studies: one list of sites a dataset, and how a site joins it."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.boosting import trees_study
from tests.consortium.test_secure_sums import BEST, FOUR, KILLED, SUMS, command, kill, newest, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]
MEMBERS = FOUR
THREE = FOUR[:3]
JOINING = "delta"
POLICY = 'format = 1\ndisclosure = "institution"\noutputs = ["single-cells-in-sums"]\n'
WAITED = ("rounds = 3", "rounds = 3\ndeadline = 20")
STATISTIC = """
format = 1
name = "small-statistic"
purpose = "Look at two columns"
legal-basis = "none needed"
[dataset]
name = "small"
[statistic]
name = "covariance"
columns = ["x1", "x2"]
[privacy]
secure-aggregation = "on"
"""


@pytest.fixture(scope="module")
def serving(consortium: Any) -> dict[str, Any]:
    """The processes that serve the sites, all of which let cells of few rows into sums."""
    for name in FOUR:
        (consortium.root / "packages" / "sites" / name / "policy.toml").write_text(POLICY)
    found = {name: consortium.sites[name].serve(f"site serve {name}") for name in FOUR}
    consortium.online(4)
    return found


def approve(consortium: Any, study: str, names: Sequence[str], consenting: str = "") -> None:
    """Let people at all of some sites approve a study by the command, of whom one may consent to sums without it."""
    pins = consortium.pins(names)
    for name in names:
        others = ",".join(f"{other}={pins[other]}" for other in names if other != name)
        consent = f" --without {consenting}" if consenting == name else ""
        consortium.sites[name].run(
            f"site approve {consortium.file(study)} --site {name} --with {others}{consent} --yes"
        )


def completed(consortium: Any, study: str, names: Sequence[str]) -> dict[str, Any]:
    ran, said = command(consortium, words(consortium, study, names))
    assert ran["status"] == "completed", said
    return ran


def lists_of_rows(consortium: Any, names: Sequence[str] = FOUR) -> set[str]:
    """Return the lists that sites opened for sums over rows."""
    lines = [line for name in names for line in consortium.sites[name].lines()]
    asked = {line["question-sha256"] for line in lines if line["kind"] in ("bins", "statistic")}
    return {line["listed"] for line in lines if line["kind"] == "unmask" and line["question-sha256"] in asked}


def trees(consortium: Any, *changes: tuple[str, str], rounds: int = 2) -> str:
    # Of the rows that BEST judges by: other ones, of which few differ, would be refused.
    more = {"strategy.rounds": rounds, "strategy.min-rows": 10, "plan.validation": 0.3}
    return trees_study(consortium.study(SUMS, *changes), **more)


def test_studies_follow_one_another_and_a_site_joins_them_by_consent(consortium: Any, serving: dict[str, Any]):
    three = ",".join(THREE)
    features = ('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "colour"]\n[model]')
    linear = [
        consortium.study(SUMS), consortium.study(SUMS, ("lr = 0.1", "lr = 0.2")), consortium.study(SUMS, features),
        consortium.study(SUMS, ("lr = 0.1", "lr = 0.3"), *BEST),
    ]  # fmt: skip
    for study in linear:
        approve(consortium, study, THREE)
        ran = completed(consortium, study, THREE)
        assert ran["faults"] == []
        # Each institution has its own comparison, and so its answer whether joining paid.
        assert all("roc_auc_score" in ran["sites"][name]["difference"] for name in THREE)
    # The same study once more, with a coordinator that is killed in its second round.
    command(consortium, words(consortium, linear[1], THREE), KILLED, code=-9)
    assert command(consortium, ["study", "resume", newest(consortium).run, "--json"])[0]["status"] == "completed"
    grown = trees(consortium)
    for study in (grown, STATISTIC):
        approve(consortium, study, THREE)
        completed(consortium, study, THREE)
    assert lists_of_rows(consortium) == {three}

    joined = trees(consortium, rounds=3)
    approve(consortium, joined, FOUR)
    # Without its consent it is in no sum over rows: the list of before stands.
    completed(consortium, joined, FOUR)
    assert lists_of_rows(consortium) == {three}
    approve(consortium, joined, FOUR, consenting=JOINING)
    completed(consortium, joined, FOUR)
    assert lists_of_rows(consortium) == {three, ",".join(sorted(FOUR))}


def test_where_one_is_away_a_linear_study_goes_on_and_trees_wait_and_say_for_whom(consortium, serving):
    linear = consortium.study(SUMS, ("lr = 0.1", "lr = 0.4"), WAITED)
    grown = trees(consortium, WAITED, rounds=4)
    for study in (linear, grown):
        approve(consortium, study, FOUR, consenting=JOINING)
    completed(consortium, grown, FOUR)
    kill(serving, "alpha")
    consortium.online(3)
    completed(consortium, linear, FOUR)
    _, said = command(consortium, words(consortium, grown, FOUR), code=1)
    assert "site alpha is in a list of this question that was opened before, and not in this run" in said
    serving["alpha"] = consortium.sites["alpha"].serve("site serve alpha")
    consortium.online(4)
    completed(consortium, grown, FOUR)
