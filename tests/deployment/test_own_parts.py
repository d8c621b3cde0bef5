"""Own parts of the model at institutions: three gates, a killed coordinator, and the site's whole model afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flfed import run
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint
from flfed.updates.checkpoints.site_state import RunState, StateFiles, path_of, site_model
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.train import EVALUATE, TRAIN
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator

RUN = "20261120-abcd"
SITES = ("site-01", "site-02", "site-03")
MLP = {"model.name": "mlp", "model.hidden": [8]}


def consortium_of(small_sites: Any, small_study: str, strategy: str, **more: Any) -> Consortium:
    """Return three institutions that approved a study with a network."""
    study = Study.parse(small_study).replace({"strategy.name": strategy, "compare.site-model": "same", **MLP, **more})
    return Consortium(small_sites(3, rows=80), study)


def figures(run: str) -> Mapping[str, Any]:
    """Return the AUC of each site's arms, and that over all."""
    with RunReader.open() as reader:
        told = report(reader, run)
    arms = ("global", "personalised")
    return {f"{site} {arm}": told["sites"][site][arm]["roc_auc_score"]["value"] for site in SITES for arm in arms}


@pytest.mark.studies
@pytest.mark.parametrize("strategy", ["ditto", "fedper"])
def test_three_gates_end_where_one_process_does_also_after_a_crash(small_sites, small_study, strategy, monkeypatch):
    consortium = consortium_of(small_sites, small_study, strategy)
    coordinator = Coordinator(consortium)
    whole = coordinator.run()
    assert whole.status == "completed", whole.reason
    wanted, told = checkpoint.final(whole.run).arrays, figures(whole.run)
    here = run(consortium.study, sites=list(consortium.sites.values()))
    for name, value in checkpoint.final(here.run).arrays.items():
        np.testing.assert_allclose(wanted[name], value, rtol=0, atol=1e-12)
    assert figures(here.run) == pytest.approx(told, abs=1e-12)
    assert not any(StateFiles(site, whole.run).folder.exists() for site in SITES)  # the rounds are forgotten
    for fault, kind, number in (
        ("crash", TRAIN, 8),
        ("killed", TRAIN, 8),
        ("kept", TRAIN, 8),
        ("crash", EVALUATE, 2),
        ("killed", EVALUATE, 2),
        ("crash", COMPARE, 3),
        ("left", COMPARE, 2),
    ):
        asked: list[str] = []

        def at(
            site: str, of: str, fault: str = fault, kind: str = kind, number: int = number, asked: Any = asked
        ) -> Any:
            asked.append(of)
            return fault if of == kind and asked.count(of) == number else False

        begun = coordinator.run(absent=at)
        ended = coordinator.run(begun.run) if begun.status != "completed" else begun
        assert ended.status == "completed", (fault, kind)
        for name, value in checkpoint.final(ended.run).arrays.items():
            assert (value == wanted[name]).all(), (fault, kind)
        if fault != "left":
            assert figures(ended.run) == told, (fault, kind)
    # Sites that forget what is their own after the rounds, or between them, have other figures.
    with monkeypatch.context() as patched:
        patched.setattr(RunState, "last", lambda self: {})
        assert figures(coordinator.run().run) != told
    monkeypatch.setattr(StateFiles, "before", lambda self, round: {})
    assert figures(coordinator.run().run) != told


@pytest.mark.parametrize("strategy", ["ditto", "fedper"])
def test_a_site_compares_again_and_takes_its_whole_model_out_after_it_forgot_the_rounds(
    small_sites: Any, small_study: str, strategy: str, tmp_path: Path, flfed: Any, monkeypatch: pytest.MonkeyPatch
):
    consortium = consortium_of(small_sites, small_study, strategy)
    coordinator = Coordinator(consortium)
    done = coordinator.run()
    told = {site: reply for site, message, reply in coordinator.grid.sent if message.metadata.message_type == COMPARE}
    code, said, _ = flfed("site", "model", "site-01", done.run, "--output", tmp_path / "mine")
    assert code == 0 and "model.safetensors" in said
    mine, shared = load_file(tmp_path / "mine" / "model.safetensors"), checkpoint.final(done.run).arrays
    kept = site_model("site-01", done.run, 0)
    assert kept is not None and mine.keys() == shared.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value, kept.own.get(name, shared[name]))
        assert (np.abs(value - shared[name]).max() > 0) == (name in kept.own)
    assert path_of("site-01", done.run, 0).stat().st_mode & 0o077 == 0
    code, _, said = flfed("run", "export", done.run, "--output", tmp_path / "ours")
    exported = (tmp_path / "ours" / "README.txt").read_text()
    assert (
        ("are each site's own" in exported)
        == (strategy == "fedper")
        == (not (tmp_path / "ours" / "model.safetensors").exists())
    )

    def compared() -> dict[str, float]:
        crashed: list[str] = []

        def at(site: str, kind: str) -> Any:
            crashed.append(kind)
            return "crash" if crashed.count(COMPARE) == 3 else False

        begun = coordinator.run(absent=at)
        return dict(figures(coordinator.run(begun.run).run))

    before = compared()  # two of the three had compared, and forgot the rounds
    assert before == figures(done.run) and len(told) == 3


def test_the_approval_says_what_stays(small_sites: Any, small_study: str):
    (site,) = small_sites(1)
    for strategy, said in (
        ("fedper", "This site has its own weight-1, bias-1 of the model. It trains them on its own rows"),
        ("ditto", "Beside the shared model this site trains a model of its own on the same rows."),
        ("fedavg", ""),
    ):
        study = Study.parse(small_study).replace({"strategy.name": strategy, **MLP})
        words = " ".join(details(study, site, []))
        assert (said in words) and ("No message contains" in words) == bool(said)


@pytest.mark.studies
@pytest.mark.parametrize("sums", ["on", "ckks"])
@pytest.mark.parametrize("strategy", ["ditto", "fedper"])
def test_under_secure_sums_gates_keep_what_is_a_sites_own_too(small_sites, small_study, strategy, sums):
    study = Study.parse(small_study).replace({"strategy.name": strategy, "compare.site-model": "same", **MLP})
    here = run(study, sites=small_sites(3, rows=80))
    consortium = Consortium(small_sites(3, rows=80), study.replace({"privacy.secure-aggregation": sums}))
    done = Coordinator(consortium).run()
    assert done.status == "completed", done.reason
    assert figures(done.run) == pytest.approx(figures(here.run), abs=1e-3)
    kept = {site: site_model(site, done.run, 0) for site in SITES}
    own = {site: {} if found is None else found.own for site, found in kept.items()}
    assert all(np.abs(value).max() > 0 for arrays in own.values() for value in arrays.values()) and all(own.values())
