"""Studies under one epsilon at three real institutions: servers, TLS, a ledger each."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.consortium.conftest import table
from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import command, words
from tests.federation.test_covered_study import STUDY as COVERED

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]

HEAD = """
format = 1
name = "charged"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
"""
ANALYSIS = f"""{HEAD}
[statistic]
name = "summary"
columns = ["x1", "colour"]
groups = "y"
[privacy]
name = "record-dp"
epsilon = 1.0
delta = 1e-5
"""
POLICY = 'format = 1\ndisclosure = "institution"\nepsilon = {budget}\n'


def serve_with_budget(consortium: Any, budget: float, studies: Sequence[str] = (ANALYSIS, COVERED)) -> None:
    """Serve institutions of 3,000 rows that have approved studies within a budget."""
    for number, name in enumerate(THREE):
        folder = consortium.root / "packages" / "sites" / name
        table(3000, number).to_csv(folder / "rows.csv", index=False)
        (folder / "policy.toml").write_text(POLICY.format(budget=budget))
        for study in studies:
            consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)


@pytest.fixture(scope="module")
def charged(consortium: Any) -> Any:
    """Institutions whose budget is of one analysis and one run."""
    serve_with_budget(consortium, 3.5)
    return consortium


def spent(consortium: Any, name: str) -> float:
    return float(consortium.sites[name].json(f"site budget {name}")["spent"])


def test_an_analysis_and_a_model_are_charged_once_and_told_alike(charged: Any):
    first, said = command(charged, words(charged, ANALYSIS, THREE))
    assert (first["status"], first["faults"]) == ("completed", []), said
    figures = first["statistics"]
    assert abs(figures["rows"]["value"] - 9000) < 400 and figures["columns"]["x1"]["mean"] is not None
    assert 0.9 < spent(charged, "alpha") <= 1.0
    ran, said = command(charged, words(charged, COVERED, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert held(charged, ran["run"]) == sent(charged, ran["run"])
    kinds = {kind for _, kind in held(charged, ran["run"])}
    assert {"statistic", "train", "scores"} <= kinds and not {"summarise", "evaluate", "compare"} & kinds
    for name in THREE:
        # Composed they are less than their sum.
        assert 3.0 <= spent(charged, name) <= 3.5
    # What is left holds no second run, and each site says so before anything is spent.
    before = {name: len(charged.sites[name].lines()) for name in THREE}
    _, said = command(charged, words(charged, COVERED, THREE), code=2)
    assert "and the run would make it" in said
    for name in THREE:
        assert not any(line["kind"] == "spent" for line in charged.sites[name].lines()[before[name] :])
