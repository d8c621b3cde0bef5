"""Every shipped study is complete, fits what is listed, and promises nothing this version cannot do."""

from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.preflight import check
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.data.site_discovery import of_dataset
from flfed.rows.evaluation.scoring import PRIMARY
from flfed.rows.study_model import study_layout
from flfed.study.plan import Plan
from flfed.study.study import Study, names
from flfed.study.tables import TREES

ERRORS = ("mean_absolute_error", "root_mean_squared_error")


@pytest.fixture(params=names())
def study(request: pytest.FixtureRequest) -> Study:
    """Each shipped study in turn."""
    return Study.load(request.param)


@pytest.fixture
def schema(study: Study) -> Schema:
    """The schema of its dataset."""
    return datasets.load(study.dataset.name).schema


def test_its_name_is_its_files_name(study: Study):
    assert Study.load(Path(__file__).parents[1] / "flfed" / "studies" / f"{study.name}.toml") == study


def test_it_says_what_for_and_on_what_legal_basis(study: Study):
    assert len(study.purpose.split()) >= 8
    assert study.legal_basis.startswith("public data")
    assert study.expires is None  # a shipped study does not stop working one day


def test_it_fits_its_dataset_model_and_metric(study: Study, schema: Schema, home: Path, request):
    if study.name == "heart-disease":
        request.getfixturevalue("heart")  # a download
    facts = check(study)
    assert (facts["schema"], facts["task"]) == (schema.sha256(), schema.task)
    if study.is_statistic:
        assert facts["primary"] == ""
        return
    # Errors of a score are told in its own points.
    known = (PRIMARY[schema.task], *(ERRORS if schema.task == "regression" else ()))
    assert facts["primary"] == study.compare.primary in known


def test_it_names_sgd_and_float64(study: Study):
    # Trees have no plan of gradient descent, and steps of parties follow from their rows.
    if study.model.name == TREES or study.is_vertical:
        assert "[plan]" not in study.text and study.plan == Plan()
        return
    if study.is_statistic:
        assert "[model]" not in study.text
        return
    assert 'optimiser = "sgd"' in study.text
    assert (study.plan.optimiser, study.plan.precision, study.plan.momentum) == ("sgd", "float64", 0.0)


def test_it_scores_the_last_model_and_never_selects_on_the_holdout(study: Study):
    strategy = study.strategy.build("strategy")
    assert (strategy.select, strategy.patience, study.plan.validation) == ("last", 0, 0.0)


def test_its_encoder_is_of_all_sites(study: Study):
    # A published table that scaled by site is repeated as it was published, and the record says so; not where rows
    # are promised something, which such a scaler would break.
    published = study.name == "fed-heart-flamby"
    # Where a row is promised something no row has a say; the published table was pooled with its rows' own means.
    no_row = study.name == "breast-cancer-dp-3"
    # An analysis encodes nothing.
    scaler = "per-site" if published else "schema" if no_row or study.analysis else "global"
    assert study.encode.scaler == scaler
    assert study.privacy.name == "none" or study.analysis or f'scaler = "{scaler}"' in study.text
    assert (study.compare.union_scaler == "global") == published


def test_at_least_three_sites_take_part_or_two_parties(study: Study):
    # Found by listing: where the files are still to be fetched, find_sites says that.
    cut = study.dataset.partition is not None
    if cut and datasets.load(study.dataset.name).absent():
        with pytest.raises(UsageError, match="is not here yet"):
            find_sites(study)
        assert study.dataset.partition.sites >= 3
        return
    sites = find_sites(study) if cut else of_dataset(study.dataset.name)
    assert len(sites) >= (2 if study.is_vertical else 3)
    assert [site.name for site in sites] == sorted({site.name for site in sites})
    assert {site.dataset for site in sites} == {study.dataset.name}


def test_no_feature_is_a_leak_column_an_id_or_the_target(study: Study, schema: Schema):
    features = [column.name for column in study_layout(study, schema).features]
    assert len(features) >= 2
    for name in features:
        assert schema.columns[name].kind in ("number", "category", "flag")
        assert not schema.columns[name].leak
    assert schema.target not in features


def test_its_seed_is_written_down(study: Study):
    assert "\nseed = " in study.text
    assert study.seed == 42
