"""A run that begins with an earlier model, through a site's gate: its own copy, what comes in, what leaves."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message

from flfed import Study, run
from flfed.deployment.site_state.approval import keep_start, load_start, read_start_folder
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.run_folder import export
from flfed.federation.recording.source_model import named_start, source_model
from flfed.refusals import NotTakingPart, Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.warm_start import Source, read_source
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.train import with_encoder
from tests.approval_text import details
from tests.deployment.conftest import Gated

AUC = "roc_auc_score"
ABSENT = "it has no copy of the model that the study begins from"


@pytest.fixture
def earlier(small_sites: Any, small_study: str) -> Any:
    """A run of the sites, whose model a study begins with."""
    return run(Study.parse(small_study), sites=small_sites(3, rows=80))


@pytest.fixture
def begun(earlier: Any, small_study: str) -> Study:
    """The study that begins with that model; its text names the hash."""
    return named_start(Study.parse(small_study).replace({"model.warm-start": earlier.run}), approved=False)


@pytest.fixture
def folder(earlier: Any, tmp_path: Path) -> Path:
    """The model as the coordinator exports it."""
    return export(earlier.run, tmp_path / "model").folder


@pytest.fixture
def started(begun: Study, folder: Path, gated: Callable[..., Gated]) -> Callable[..., Gated]:
    """A function that returns a site which has taken the model in."""

    def make(**given: Any) -> Gated:
        site = gated(begun.text, **given)
        source = read_start_folder(site.folder, begun, folder)
        assert source is not None
        keep_start(site.folder, begun, source)
        return site

    return make


def with_other_encoder(folder: Path, to: Path) -> Path:
    """Write a model of the same arrays, for inputs that are scaled otherwise."""
    model = SharedModel.read(folder)
    moved = replace(model.encoder, center=model.encoder.center + 1.0, scale=model.encoder.scale * 7.0)
    replace(model, encoder=moved).write(to)
    return to


def comparison(conducted: tuple[Any, Any]) -> tuple[Message, Message]:
    """Return what the gate was asked at the end of a run, with the encoder, and its reply."""
    outcome, grid = conducted
    assert outcome.status == "completed"
    (asked,) = [one for one in grid.asked if one.metadata.message_type == COMPARE]
    (reply,) = [one for one in grid.replied if one.metadata.message_type == COMPARE]
    asked.content = with_encoder(asked.content, outcome.encoder.arrays())
    return asked, reply


def of_start(reply: Message) -> dict[str, float]:
    """Return the figures of the model that the run began with."""
    return {one.metric: one.value for one in CompareReply.from_record(reply.content).arms if one.arm == "warm-start"}


def test_no_start_comes_in_with_the_comparison_and_the_arms_are_of_the_sites_own_copy(
    started: Callable[..., Gated], earlier: Any, conducted_through: Any
):
    asked, reply = comparison(conducted_through(started()))
    assert sorted(asked.content) == ["arrays", "config", "encoder"]
    assert not reply.has_error()
    # The sites are those of the earlier run, and so is the encoder: the figures of its last model, to float32.
    of_earlier = earlier.report["sites"]["site-01"]["global"][AUC]["value"]
    assert of_start(reply)[AUC] == pytest.approx(of_earlier, abs=1e-6)
    assert "warm-start-tuned" in {one.arm for one in CompareReply.from_record(reply.content).arms}


def test_147_comparisons_with_a_start_of_the_coordinators_give_no_figure(started, conducted_through):
    site = started(policy=Policy(runs=1), rows=120)
    asked, _ = comparison(conducted_through(site))
    rng = np.random.default_rng(1)
    shapes = {"weight": (5, 1), "bias": (1,)}
    for _ in range(147):
        chosen = {name: Array(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
        asked.content["start"] = ArrayRecord(chosen)
        assert "has 1 section too many" in site.answer(asked).error.reason


def test_a_source_of_the_same_arrays_with_another_encoder_is_another_model(
    begun: Study, started: Callable[..., Gated], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site, other = started(), with_other_encoder(folder, tmp_path / "other")
    # Neither the site nor an honest coordinator takes it.
    with pytest.raises(UsageError, match="another model"):
        read_start_folder(site.folder, begun, other)
    with pytest.raises(UsageError, match="another model"):
        source_model(begun.replace({"model.warm-start": str(other)}))
    # Whoever puts it in the place of the site's copy stops the site's comparison.
    keep_start(site.folder, begun, Source.of_facts(**parts_of(other)))
    with pytest.raises(NotTakingPart, match=ABSENT):
        load_start(site.folder, begun)
    # The wrong implementation, whose hash is of the arrays alone.
    monkeypatch.setattr(Source, "sha256", lambda source: arrays_sha256(source.arrays))
    loose = begun.replace({"model.start-sha256": arrays_sha256(SharedModel.read(folder).arrays)})
    assert read_start_folder(site.folder, loose, other) is not None


def parts_of(folder: Path) -> dict[str, Any]:
    """Return what a source is made from, without a look at any hash."""
    found = read_source(folder, "")
    return {"facts": found.facts(), "arrays": found.arrays, "encoder": found.encoder}


def test_a_run_its_kept_copy_and_its_exported_folder_have_one_hash(begun, started, folder):
    by_folder = named_start(begun.replace({"model.warm-start": str(folder), "model.start-sha256": ""}), approved=False)
    assert by_folder.start_sha256 == begun.start_sha256
    kept = load_start(started().folder, begun)
    assert kept.sha256() == begun.start_sha256 == source_model(begun).sha256()
    # Each part of it counts.
    others = [
        replace(kept, layout=replace(kept.layout, missing_indicator=not kept.layout.missing_indicator)),
        replace(kept, layers=(*kept.layers, ("weight-1", "bias-1"))),
        replace(kept, encoder=replace(kept.encoder, spread=kept.encoder.spread * 2)),
        replace(kept, arrays={name: -value for name, value in kept.arrays.items()}),
    ]
    assert len({begun.start_sha256, *(one.sha256() for one in others)}) == 5
    assert replace(kept, run="another name", repeat=4).sha256() == begun.start_sha256


def test_a_site_without_a_copy_answers_nothing_and_a_copy_is_for_its_owner_alone(begun, started):
    site = started()
    enrol = site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256()))
    assert not site.answer(enrol).has_error()
    (kept,) = site.folder.starts.iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (site.folder.starts, kept)]
    assert [f"{mode:o}" for mode in modes] == ["700", "600"]
    assert read_start_folder(site.folder, begun, None) is None  # it is given once
    kept.unlink()
    assert ABSENT in site.refusal(enrol)
    assert ABSENT in site.answer(site.trained()).error.reason
    with pytest.raises(UsageError, match="add: --start FOLDER"):
        read_start_folder(site.folder, begun, None)


def test_the_approval_names_the_model_and_its_hash(begun: Study, gated: Callable[..., Gated]):
    site = gated(begun.text)
    words = " ".join(details(site.study, site.site, []))
    assert f"begins with the model {begun.warm_start} (SHA-256 {begun.start_sha256})" in words
    assert "with its own copy of that model" in words
    assert "does not cover that model's earlier training" not in words
    private = site.study.replace({"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.5})
    assert "does not cover that model's earlier training" in " ".join(details(private, site.site, []))
    assert "begins with the model" not in " ".join(details(gated().study, gated().site, []))


def test_a_gate_refuses_a_start_where_each_site_scales_by_its_own_means(begun, folder, gated):
    study = begun.replace({"encode.scaler": "per-site"})
    site = gated(study.text)
    source = read_start_folder(site.folder, study, folder)
    assert source is not None
    keep_start(site.folder, study, source)
    enrol = site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256()))
    assert site.answer(enrol).error.reason == Refusal("start-per-site")
