"""Real institutions that compare one list of cards: a run by it completes, and one by an altered list does not."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.deployment.cards import CardList, read_cards
from flfed.signatures import gate_fingerprint, signing_public
from tests.consortium.test_secure_sums import SUMS, cohorts, command, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
MEMBERS = ("alpha", "beta", "gamma")


def compared(consortium: Any, site: str, file: Path, reading: str, code: int = 0) -> str:
    """Let a person at a site type what was read out in the call, and approve the studies by the list."""
    heard = ",".join(name for name in MEMBERS if name != site)
    said: str = consortium.sites[site].run(
        f"site cards {site} {file} --fingerprint {reading} --from {heard}", code=code
    )
    return said


def approve(consortium: Any, site: str, study: str, file: Path, code: int = 0) -> str:
    said: str = consortium.sites[site].run(
        f"site approve {consortium.file(study)} --site {site} --with {file} --yes", code=code
    )
    return said


def trained(consortium: Any, run: str) -> list[str]:
    """Return the sites of whose rows an update of a run left."""
    found = []
    for name in MEMBERS:
        if any(line.get("run") == run and line["kind"] == "train" for line in consortium.sites[name].lines()):
            found.append(name)
    return found


def test_a_run_by_a_compared_list_completes_and_one_by_an_altered_list_is_refused(consortium: Any):
    exchange = consortium.root / "exchange"
    consortium.coordinator.run("coordinator cards --output consortium.cards")
    true = exchange / "consortium.cards"
    reading = read_cards(true).fingerprint()
    first, second = consortium.study(SUMS), consortium.study(SUMS, ("lr = 0.1", "lr = 0.2"))
    for name in MEMBERS:
        assert reading in consortium.sites[name].run(f"site cards {name} {true}")
        compared(consortium, name, true, reading)
        approve(consortium, name, first, true)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    ran, said = command(consortium, words(consortium, first, MEMBERS))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert cohorts(consortium, ran["run"], MEMBERS) == {"alpha,beta,gamma"}
    assert trained(consortium, ran["run"]) == list(MEMBERS)

    # Of the second study the coordinator hands alpha a list with a key of its own in beta's place.
    invented = gate_fingerprint(signing_public(Ed25519PrivateKey.generate()))
    altered_gates = read_cards(true).gates | {"beta": invented}
    altered = exchange / "altered.cards"
    altered.write_bytes(CardList("Test consortium", altered_gates).content())
    assert "the other site has another list" in compared(consortium, "alpha", altered, reading, code=2)
    said = approve(consortium, "alpha", second, altered, code=2)
    assert "beta, gamma did not read out the fingerprint of this list" in said
    for name in ("beta", "gamma"):
        approve(consortium, name, second, true)
    _, said = command(consortium, words(consortium, second, MEMBERS), code=2)
    assert "secure aggregation needs 3 sites, and 2 take part (alpha:" in said and "needs a new approval" in said
    # And where a site approves it, without a call and as a change of sites, no gate takes part: alpha is asked first.
    whys = {
        "alpha": "the gate of site 'beta' has another key than the one that is pinned here",
        "gamma": "site 'gamma' had sums of the dataset with other sites",
    }
    for deceived, why in whys.items():
        for name in MEMBERS:
            altered_here = {"pins": altered_gates, "changed_sites": True}
            given = altered_here if name == deceived else {"pins": read_cards(true).gates}
            consortium.approve(name, second, MEMBERS, sums=True, **given)
        before = {name: len(consortium.sites[name].lines()) for name in MEMBERS}
        _, said = command(consortium, words(consortium, second, MEMBERS), code=1)
        assert f"alpha: {why}" in said
        kinds = {name: {line["kind"] for line in consortium.sites[name].lines()[before[name] :]} for name in MEMBERS}
        assert "error" in kinds["alpha"] and "enrol" in kinds["beta"] & kinds["gamma"]
        assert not {"keys", "train", "summarise"} & set().union(*kinds.values())
