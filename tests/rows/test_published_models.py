"""How a published table was trained and scored: torch's start, two scalers, a pooled fit by plan, own intercepts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from flfed.errors import UsageError
from flfed.federation.recording.recorder import from_reference, sites_mean
from flfed.registry import load
from flfed.rows.baselines import first_arrays
from flfed.rows.comparison.arms import arm_scores
from flfed.rows.comparison.pooled import by_plan, personalised_scores, reference, union_scores
from flfed.rows.data import datasets
from flfed.rows.features.encode import Encoded, input_names
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.study_model import study_layout, study_trainable
from flfed.rows.training.answer import run_client
from flfed.seeds import generator, seed_of
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.messages.compare import CompareReply, Figure


@pytest.mark.parametrize(("name", "outputs"), [("logistic", 1), ("logistic", 3), ("linear", 1)])
@pytest.mark.parametrize("seed", [42, 46])
def test_a_start_as_torchs_is_torchs_to_the_last_bit(name, outputs, seed):
    model = load("model", name)(start="torch")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    found = model.first_arrays(13, outputs, generator(seed, site="", purpose="first-arrays"))
    assert torch.equal(torch.rand(3), wanted)  # nobody else's draws are disturbed
    torch.manual_seed(seed)
    layer = torch.nn.Linear(13, outputs)
    np.testing.assert_array_equal(found["weight"], layer.weight.detach().numpy().T)
    np.testing.assert_array_equal(found["bias"], layer.bias.detach().numpy())
    other = model.first_arrays(13, outputs, generator(seed + 1, site="", purpose="first-arrays"))
    assert not np.array_equal(found["weight"], other["weight"])


def test_a_repeat_starts_where_torch_starts_with_the_next_seed():
    study = Study.load("fed-heart-flamby")
    starts = []
    for repeat in (0, 1):
        given = study_trainable(study, schema_of(study), study.model.build("model"), seed=study.seed + repeat)
        starts.append(first_arrays(given, 13)["weight"][:, 0])
        torch.manual_seed(42 + repeat)
        np.testing.assert_array_equal(starts[-1], torch.nn.Linear(13, 1).weight.detach().numpy()[0])
    assert not np.array_equal(*starts)


def schema_of(study: Study):
    return datasets.load(study.dataset.name).schema


@pytest.mark.parametrize("seed", [0, 42, 2**62])
def test_a_generator_tells_the_seed_it_was_made_from(seed):
    assert seed_of(generator(seed, site="here", purpose="fit", number=3)) == seed
    assert seed_of(np.random.default_rng(seed)) == seed


def test_the_inputs_of_heart_flamby_stand_in_the_order_that_was_published():
    study = Study.load("fed-heart-flamby")
    assert input_names(study_layout(study, schema_of(study))) == (
        "age", "sex=male", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak",
        "cp=atypical-angina", "cp=non-anginal-pain", "cp=asymptomatic",
        "restecg=st-t-abnormality", "restecg=left-ventricular-hypertrophy",
    )  # fmt: skip


def far_apart(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Site 1 around 10, site 2 around 50, site 3 around 90: a scaler of each site hides that."""
    return table.assign(x1=10 + 40 * number + (table["x1"] - 50) / 10)


def opened(sites, text: str, **changes: object) -> list[SiteSession]:
    study = Study.parse(text).replace({"features": ["x1", "flag"], **changes})
    return [SiteSession(site, study) for site in sites]


def merged_encoder(works: list[SiteSession]):
    return fit_encoder(works[0].layout, merge([summarise(w.table.training, w.layout) for w in works]))


ARRAYS = {"weight": np.array([[2.0], [0.5]]), "bias": np.array([-0.3])}


def by_hand(tables: list[pd.DataFrame], scalers: list[pd.DataFrame]) -> np.ndarray:
    """P(yes) of `ARRAYS` on rows scaled by the mean and deviation (divisor n) of other rows."""
    parts = []
    for table, base in zip(tables, scalers, strict=True):
        columns = base[["x1", "flag"]].astype(float)
        z = (table[["x1", "flag"]].astype(float) - columns.mean()) / columns.std(ddof=0)
        parts.append(1 / (1 + np.exp(-(z.to_numpy() @ ARRAYS["weight"][:, 0] - 0.3))))
    return np.concatenate(parts)


def test_the_union_goes_through_one_scaler_where_the_study_says_so_and_through_each_sites_own_otherwise(
    small_sites, small_study
):
    found = {}
    for union in ("same", "global"):
        scaler = {"encode.scaler": "per-site", "compare.union-scaler": union}
        works = opened(small_sites(3, rows=120, change=far_apart), small_study, **scaler)
        encoder = merged_encoder(works)
        found[union] = run_client(union_scores(works, ARRAYS, encoder))
        own = [run_client(arm_scores(w, w.table.holdout("test"), ARRAYS, encoder))["global"] for w in works]
    trained = [w.table.training for w in works]
    held = [w.table.holdout("test") for w in works]
    np.testing.assert_allclose(found["same"], by_hand(held, trained), atol=1e-12)
    np.testing.assert_allclose(found["global"], by_hand(held, [pd.concat(trained)] * 3), atol=1e-12)
    # A site's own figures stay under its own scaler, whatever the union is scored under.
    np.testing.assert_allclose(np.concatenate(own), found["same"], atol=1e-12)
    assert np.abs(found["same"] - found["global"]).max() > 0.5


def test_under_one_scaler_for_all_the_union_is_what_it_is_anyway(small_sites, small_study):
    works = [opened(small_sites(2), small_study, **{"compare.union-scaler": u}) for u in ("same", "global")]
    found = [run_client(union_scores(w, ARRAYS, merged_encoder(w))) for w in works]
    np.testing.assert_array_equal(*found)


@pytest.mark.usefixtures("small_sites")
def test_a_pooled_fit_by_plan_is_torchs_own_adam_from_torchs_start(small_study):
    pooled = {"optimiser": "adam", "lr": 0.01, "epochs": 30, "batch": 0}
    study = Study.parse(small_study).replace({"compare.pooled": pooled, "model.start": "torch"})
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 5))
    y = (x[:, 0] + rng.normal(size=50) > 0).astype(np.int64)
    given = study_trainable(study, schema_of(study), study.model.build("model"), seed=9)
    outputs = run_client(by_plan(Encoded(x, y, np.ones(50)), given, study.compare.pooled))(x)
    torch.manual_seed(9)
    layer = torch.nn.Linear(5, 1).double()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            layer(torch.from_numpy(x))[:, 0], torch.from_numpy(y).double()
        )
        loss.backward()
        optimiser.step()
    np.testing.assert_allclose(outputs, layer(torch.from_numpy(x)).detach().numpy(), atol=1e-9)


def test_the_pooled_reference_is_trained_by_the_studys_plan_instead_of_being_tuned(small_sites, small_study):
    # A thousand full batches without a penalty ends at the unpenalised fit; a short plan does not.
    sites = small_sites(2, rows=200)
    found, y = {}, None
    for epochs in (2, 1000):
        pooled = {"optimiser": "sgd", "lr": 1.0, "epochs": epochs, "batch": 0}
        works = opened(sites, small_study, **{"compare.pooled": pooled})
        encoder = merged_encoder(works)
        found[epochs] = run_client(reference(works, ARRAYS, encoder)).pooled["log_loss"].value
    rows = [w.encode_training(encoder) for w in works]
    x, y = np.concatenate([r.x for r in rows]), np.concatenate([r.y for r in rows])
    exact = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(x, y)
    held = [w.encode(w.table.holdout("test"), encoder) for w in works]
    p = exact.predict_proba(np.concatenate([h.x for h in held]))[:, 1]
    wanted = np.concatenate([h.y for h in held])
    loss = -np.mean(np.where(wanted == 1, np.log(p), np.log(1 - p)))
    assert found[1000] == pytest.approx(loss, abs=1e-6)
    assert abs(found[2] - loss) > 1e-3


@pytest.mark.parametrize("setting", [{"schedule": "cosine"}, {"validation": 0.2}])
def test_a_pooled_plan_with_rounds_in_mind_is_refused(small_study, setting):
    with pytest.raises(UsageError, match="a pooled fit has none"):
        Study.parse(small_study).replace({"compare.pooled": setting})


def test_personalised_over_the_union_is_each_sites_own_model_on_its_own_holdout(small_sites, small_study):
    works = opened(small_sites(3, rows=150, change=far_apart), small_study)
    encoder = merged_encoder(works)
    y = np.concatenate([w.target(w.table.holdout("test")) for w in works])
    own = [run_client(arm_scores(w, w.table.holdout("test"), ARRAYS, encoder))["personalised"] for w in works]
    np.testing.assert_array_equal(run_client(personalised_scores(works, ARRAYS, encoder)), np.concatenate(own))
    found = run_client(reference(works, ARRAYS, encoder))
    p = np.concatenate(own)
    assert found.personalised["roc_auc_score"].value == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found.personalised["accuracy_score"].value == pytest.approx(accuracy_score(y, p > 0.5), abs=1e-12)
    # The sites differ by far more than their own intercepts leave.
    assert found.personalised["log_loss"].value < found.union["log_loss"].value - 0.1


def reply(arm_values: dict[str, float], method: str = "") -> CompareReply:
    figures = tuple(
        Figure(metric="log_loss", arm=arm, value=value, low=value, high=value, extra=0.0, method=method)
        for arm, value in arm_values.items()
    )
    return CompareReply(
        num_examples=10, holdout_rows=10, arms=figures, differences=(), summary=None, histogram=None, note=""
    )


def test_the_mean_of_sites_is_told_for_the_personalised_arm_too():
    replies = {"a": reply({"global": 0.6, "personalised": 0.4}), "b": reply({"global": 0.7, "personalised": 0.6})}
    [plain], [personalised] = sites_mean(replies, len(replies)), sites_mean(replies, len(replies), "personalised")
    assert (plain.arm, plain.value) == ("sites-mean", pytest.approx(0.65))
    assert (personalised.arm, personalised.value) == ("personalised-sites-mean", pytest.approx(0.5))


def test_a_personalised_figure_that_a_site_withheld_does_not_follow_from_the_union(small_sites, small_study):
    works = opened(small_sites(2), small_study)
    found = run_client(reference(works, ARRAYS, merged_encoder(works)))
    kept = {
        (row.arm, row.metric): row.value
        for row in from_reference(found, {("personalised", "accuracy_score"), ("personalised", "roc_auc_score")})
    }
    assert kept["personalised", "accuracy_score"] is None
    assert kept["personalised", "roc_auc_score"] == found.personalised["roc_auc_score"].value
    assert kept["global", "accuracy_score"] == found.union["accuracy_score"].value
