"""A sample of a site's rows: what remains of the whole table once the other rows are left out, whatever the batches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
import torch

from flfed.errors import UsageError
from flfed.federation.client.protection import privacy_refusal
from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal
from flfed.rows.data import sampling
from flfed.rows.data.holdout import Holdout, side_keys
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.limits import Limits
from flfed.rows.data.policy import Policy
from flfed.rows.data.row_keys import draw_fractions
from flfed.rows.data.site import Site, study_refusal
from flfed.rows.data.sources import Csv, Frame, Parquet, Source, Sql
from flfed.rows.data.table_check import check_site
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.rows.snapshots.people import sides_of
from flfed.rows.snapshots.snapshot import freeze, load
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import run_client
from flfed.rows.training.fit import gradient
from flfed.study.study import Study

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1500
SHARE = 0.3
SCHEMA = """
format = 1
name = "claims"
title = "Claims"
description = "Is a claim fraud?"
task = "binary"
target = "fraud"
[columns.amount]
kind = "number"
description = "Amount"
range = [0, 100_000]
[columns.weight]
kind = "number"
description = "Weight"
range = [0, 100_000]
[columns.kind]
kind = "category"
description = "Kind"
values = ["car", "home"]
[columns.text]
kind = "id"
description = "A note"
[columns.day]
kind = "date"
description = "Day of the claim"
[columns.fraud]
kind = "target"
description = "Fraud"
values = ["no", "yes"]
"""
GROUPED = SCHEMA.replace('target = "fraud"', 'target = "fraud"\ngroup = "customer"', 1) + (
    '[columns.customer]\nkind = "id"\ndescription = "Customer"\n'
)
SOURCE = 'format = 1\nlicence = "none"\ncitation = "made up"\nsynthetic = true\n'


@pytest.fixture(autouse=True)
def _datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, schema in (("claims", SCHEMA), ("customers", GROUPED.replace('"claims"', '"customers"'))):
        folder = tmp_path / "root" / "datasets" / name
        folder.mkdir(parents=True)
        (folder / "schema.toml").write_text(schema)
        (folder / "source.toml").write_text(SOURCE)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))


def claims(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Draw rows, among whose texts are separators, quotes and line breaks."""
    rng = np.random.default_rng(seed)
    notes = np.array(["plain", 'with "quotes"', "two\nlines", "a, b", "späte Meldung"], dtype=object)
    return pd.DataFrame(
        {
            "amount": rng.integers(1, 99_999, rows) / 100,
            "weight": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(1, 9999, rows) / 1000),
            "kind": rng.choice(["car", "home"], rows),
            "text": notes[rng.integers(0, 5, rows)] + np.arange(rows).astype(str).astype(object),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), unit="D"),
            "fraud": np.where(rng.random(rows) < 0.05, "yes", "no"),
            "customer": [f"C{number}" for number in rng.integers(0, rows // 4, rows)],
        }
    )


def written(table: pd.DataFrame, folder: Path, kind: str, **settings: Any) -> Source:
    """Write rows as a site would have them, and return their source."""
    path = str(folder / f"claims.{kind}")
    if kind in ("csv", "csv.gz"):
        table.to_csv(path, index=False)
        return Csv(path, **settings)
    if kind == "parquet":
        table.to_parquet(path, row_group_size=700)
        return Parquet(path, **settings)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    table.assign(day=table["day"].dt.strftime("%Y-%m-%d")).to_sql("claims", engine, index=False, if_exists="replace")
    engine.dispose()
    (folder / "url").write_text(f"sqlite:///{path}")
    return Sql("SELECT * FROM claims", url_variable="CLAIMS", **settings)


def site_of(source: Source, dataset: str = "claims", **settings: Any) -> Site:
    settings = {"holdout": Holdout(share=0.25, salt="of a test"), "policy": Policy(disclosure="open"), **settings}
    return Site("ward", dataset, source, **settings)


def kept_of_whole(site: Site) -> pd.DataFrame:
    """Read everything, and leave out the rows that the sample does not draw."""
    table, findings, schema = replace(site, source=replace(site.source, sample=1.0, keep=None)).inspect()
    assert not findings
    chosen = sampling.drawn(side_keys(table, schema), site.source, site.holdout)
    if site.source.keep is not None:
        chosen |= (table[schema.target] == site.source.keep[1]).to_numpy()
    return table[chosen].reset_index(drop=True)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "sql"])
@pytest.mark.parametrize("dataset", ["claims", "customers"])
@pytest.mark.parametrize("keep", [None, ("fraud", "yes")])
def test_a_sample_is_the_whole_table_without_the_rows_that_are_not_drawn(
    kind: str, dataset: str, keep: tuple[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLAIMS_FILE", str(tmp_path / "url"))
    site = site_of(written(claims(), tmp_path, kind, sample=SHARE, keep=keep), dataset)
    expected = kept_of_whole(site)
    assert 0.2 * ROWS < len(expected) < 0.45 * ROWS
    for batch in (40, 500, 10**6):
        _, table, findings, _ = site.examine(batch)
        assert findings == []
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    # And from here on the tables are as any others.
    rows = site.read()
    assert len(rows.training) + rows.holdout_rows + (0 if keep is None else len(rows.further)) <= len(expected)


def test_a_rows_fate_depends_on_no_other_row(tmp_path: Path):
    table = claims()
    whole = site_of(Frame(table, sample=SHARE)).inspect()[0]
    for some in (table.index % 3 == 0, table.index % 3 != 0):
        part = site_of(Frame(table[some].reset_index(drop=True), sample=SHARE)).inspect()[0]
        merged = whole.merge(part, how="outer", on="text", indicator=True)["_merge"].value_counts()
        # Notes are unique: rows of the part are all among those of the whole, and no other one of the part is.
        assert merged["right_only"] == 0
        assert merged["both"] == len(part) == whole["text"].isin(table["text"][some]).sum()
    # A larger sample has the rows of a smaller one.
    larger = site_of(Frame(table, sample=2 * SHARE)).inspect()[0]
    assert set(whole["text"]) < set(larger["text"])


def test_persons_are_whole(tmp_path: Path):
    table = claims()
    kept = site_of(Frame(table, sample=SHARE), "customers").inspect()[0]
    persons = table[table["customer"].isin(kept["customer"])]
    assert len(persons) == len(kept) and sorted(persons["text"]) == sorted(kept["text"])
    assert 0.2 < persons["customer"].nunique() / table["customer"].nunique() < 0.4


def test_the_sample_says_nothing_of_a_rows_side():
    # Of 20,000 rows a quarter is held out in and outside the sample: 0.25 within four deviations of 0.0056 and 0.0037.
    table = claims(20_000)
    site = site_of(Frame(table, sample=SHARE))
    rows, _, schema = replace(site, source=Frame(table)).inspect()
    keys = side_keys(rows, schema)
    chosen = sampling.drawn(keys, site.source, site.holdout)
    _, test = site.holdout.split(rows, schema, keys=keys)
    assert abs(test[chosen].mean() - 0.25) < 0.0225 and abs(test[~chosen].mean() - 0.25) < 0.015
    # One purpose for both would have held out all of the smaller draw.
    salt = site.holdout.salt
    same = draw_fractions(keys, f"holdout {salt}") < SHARE
    assert test[same].mean() > 0.8


def test_rules_are_checked_on_all_rows_and_limits_on_those_that_are_kept(tmp_path: Path):
    table = claims()
    table.loc[table.index % 97 == 5, "amount"] = 10**6
    table.loc[1234, "kind"] = "boat"
    source = written(table, tmp_path, "csv", sample=0.05)
    found = site_of(source).examine(200)[2]
    expected = site_of(replace(source, sample=1.0)).inspect()[1]
    assert [(one.column, one.rule) for one in found] == [(one.column, one.rule) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
    checked = check_site(site_of(source))
    assert not checked.passed and any("sample of 0.05 of the table" in line.detail for line in checked.lines)
    sound = written(claims(), tmp_path, "csv", sample=0.05, limits=Limits(rows=ROWS // 10, bytes=200_000))
    assert 0 < len(site_of(sound).inspect()[0]) < ROWS // 10
    for bounds in (Limits(rows=10), Limits(cells=100), Limits(bytes=1000)):
        with pytest.raises(UsageError, match="the sample of the table"):
            site_of(replace(sound, limits=bounds)).inspect()


def test_marks_of_decimals_are_judged_by_the_sample_and_not_by_a_batch(tmp_path: Path):
    table = claims().assign(weight=[f"{1 + number % 99}.250" for number in range(ROWS)])
    source = written(table, tmp_path, "csv", sample=SHARE)
    # Every mark has three digits behind it: the same sentence as of the whole table.
    (one,) = site_of(source).examine(100)[2]
    (other,) = site_of(replace(source, sample=1.0)).inspect()[1]
    assert (one.column, one.rule) == (other.column, other.rule) == ("weight", other.rule)
    declared = site_of(source, mapping={"weight": Field("weight", thousands="")})
    assert declared.examine(100)[2] == []


@pytest.mark.parametrize("settings", [{"sample": 0}, {"sample": 1.5}, {"sample": True}, {"sample": "0.1"}])
def test_a_share_is_above_zero_and_at_most_one(settings: dict[str, Any]):
    with pytest.raises(UsageError, match="sample="):
        Csv("claims.csv", **settings)


def test_keep_is_a_class_of_the_target_beside_a_sample():
    with pytest.raises(UsageError, match="keep needs a sample"):
        site_of(Frame(claims(50), keep=("fraud", "yes"))).inspect()
    with pytest.raises(UsageError, match="as \\('fraud', 'yes'\\)"):
        Csv("claims.csv", sample=0.1, keep="fraud")  # type: ignore[arg-type]
    for keep in (("kind", "car"), ("fraud", "maybe")):
        with pytest.raises(UsageError, match="one of its classes: 'no', 'yes'"):
            site_of(Frame(claims(50), sample=0.5, keep=keep)).inspect()


def large_only(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out small claims, row by row."""
    return table[pd.to_numeric(table["amount"]) > 300]


def above_the_mean(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out claims by others of the batch."""
    amounts = pd.to_numeric(table["amount"])
    return table[amounts > amounts.mean()]


def every_other(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out every second row of the batch."""
    return table[::2]


def test_prepare_gets_a_batch_at_a_time_and_must_take_each_row_by_itself(tmp_path: Path):
    source = written(claims(), tmp_path, "csv", sample=SHARE, prepare=large_only)
    expected = kept_of_whole(site_of(source))
    pd.testing.assert_frame_equal(site_of(source).examine(100)[1], expected, check_exact=True)
    assert check_site(site_of(source)).passed
    checked = check_site(site_of(replace(source, prepare=above_the_mean)))
    (line,) = [line for line in checked.lines if not line.passed]
    assert "above_the_mean gives another table where it gets the rows in other batches" in line.detail
    # Rows that are there for their outcome do not make the table look larger than a batch.
    few = replace(source, prepare=above_the_mean, sample=0.02, keep=("fraud", "no"))
    assert not check_site(site_of(few)).passed


class Unordered(Frame):
    """A query without an order, whose rows come as the database likes."""

    def batches(self, folders: Any, rows: int) -> Any:
        """Yield the rows in an order that depends on the batch."""
        yield self.read(folders).sample(frac=1, random_state=rows).reset_index(drop=True)


def test_a_source_may_give_its_rows_in_another_order():
    source = Unordered(claims(), sample=SHARE, prepare=large_only)
    assert check_site(site_of(source)).passed
    assert not check_site(site_of(replace(source, prepare=every_other))).passed


def session(table: pd.DataFrame, salt: str, study: Study, **settings: Any) -> SiteSession:
    holdout = Holdout(share=0.25, salt=salt)
    return SiteSession(site_of(Frame(table, **settings), holdout=holdout), study)


STUDY = """
format = 1
name = "claims"
purpose = "A test"
legal-basis = "none needed: rows are made up"
seed = 7
[dataset]
name = "claims"
features = ["amount", "kind"]
[model]
name = "logistic"
[plan]
lr = 0.1
[strategy]
name = "fedavg"
rounds = 2
[compare]
site-model = "same"
"""


def likely(rows: int = 24_000) -> pd.DataFrame:
    """Draw claims of which 4 % are fraud, by their amount and kind."""
    rng = np.random.default_rng(5)
    table = claims(rows, seed=5)
    odds = -4.4 + 1.5 * table["amount"] / 999.99 + 0.8 * (table["kind"] == "car")
    return table.assign(fraud=np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no"))


def test_training_with_all_rows_of_an_outcome_expects_the_gradient_and_the_own_model_of_everything():
    table, study = likely(), Study.parse(STUDY)
    everything = session(table, "0", study)
    encoder = everything.own_encoder()
    model = everything.model
    w = {name: torch.full(np.shape(one), 0.3) for name, one in first_model(study, everything.schema).items()}

    def slope(rows: Encoded, weight: np.ndarray) -> np.ndarray:
        x, y, counted = (torch.tensor(one, dtype=torch.float32) for one in (rows.x, rows.y, weight))
        found = gradient(model, "binary", w, x, y, counted)[1]
        return np.concatenate([one.numpy().ravel() for one in found.values()])

    slopes, unweighted, coefficients, shares = [], [], [], []
    for number in range(16):
        whole = session(table, str(number), study)
        sampled = session(table, str(number), study, sample=0.1, keep=("fraud", "yes"))
        ours, theirs = sampled.encode_training(encoder), whole.encode_training(encoder)
        # All training rows of the outcome, each once; of the others a tenth.
        assert (ours.y == 1).sum() == (theirs.y == 1).sum() and ours.weight.mean() == pytest.approx(1)
        base = slope(theirs, theirs.weight)
        slopes.append(slope(ours, ours.weight) - base)
        unweighted.append(slope(ours, np.ones(len(ours))) - base)
        fits = [run_client(one.local_model()) for one in (sampled, whole)]
        made = [fit.outputs(one.encode(table_of_two(one), fit.encoder).x) for fit, one in zip(fits, (sampled, whole))]
        coefficients.append((made[0] - made[1]).ravel())
        shares.append(np.mean(sampled.table.holdout("test")["fraud"] == "yes"))
    for differences in (np.array(slopes), np.array(coefficients)):
        error = differences.std(axis=0, ddof=1) / 4
        assert (np.abs(differences.mean(axis=0)) < 3.5 * error + 1e-3).all()
    # Without weights every draw is far away: ten times as many frauds.
    assert np.abs(np.mean(unweighted, axis=0)).max() > 20 * np.std(slopes, axis=0, ddof=1).max() / 4
    # The holdout is a plain sample: its frauds are as many as they are.
    assert np.mean(shares) == pytest.approx(np.mean(table["fraud"] == "yes"), abs=0.01)


def table_of_two(of: SiteSession) -> pd.DataFrame:
    """Return two rows at which models' log-odds are compared: all of a linear model in one input and a constant."""
    return of.table.training.head(2).assign(amount=[100.0, 900.0], kind=["car", "home"])


def test_validation_rows_are_a_plain_sample_and_the_others_keep_their_weights():
    table, study = likely(6000), Study.parse(STUDY + "").replace({"plan.validation": 0.25})
    whole, sampled = session(table, "a", study), session(table, "a", study, sample=0.2, keep=("fraud", "yes"))
    encoder = whole.own_encoder()
    fitted, scored = sampled.round_rows(encoder)
    everything, whole_scored = whole.round_rows(encoder)
    assert (fitted.y == 1).sum() == (everything.y == 1).sum()
    assert fitted.counts[fitted.y == 0].sum() == pytest.approx((everything.y == 0).sum(), rel=0.1)
    assert len(scored) == sampled.validation_rows and 0.15 < len(scored) / len(whole_scored) < 0.25
    assert scored.y.mean() == pytest.approx(whole_scored.y.mean(), abs=0.03)


def test_own_rows_of_a_run_are_scored_and_moved_by_the_plain_sample():
    study = Study.parse(STUDY)
    sampled = session(likely(6000), "a", study, sample=0.2, keep=("fraud", "yes"))
    encoder = sampled.own_encoder()
    fitted, scored = sampled.round_rows(encoder)
    assert len(scored) == sampled.table.training_rows < len(fitted) == sampled.fitted_rows
    arrays = first_model(study, sampled.schema)
    trained = run_client(sampled.train(arrays, encoder, round=1, rounds=2))
    assert trained.rows == trained.scores.num_examples == sampled.table.training_rows
    # The model that says nothing is moved to the share of frauds among all rows, not among those that are fitted on.
    moved = run_client(sampled.personalised({name: np.zeros_like(one) for name, one in arrays.items()}, encoder))
    share = 1 / (1 + np.exp(-moved(scored.x[:1])[0, 0]))
    assert share == pytest.approx(scored.y.mean(), rel=0.05) and fitted.y.mean() > 3 * share


def test_a_snapshot_has_the_sample_and_serves_the_same_rows(tmp_path: Path):
    site = site_of(written(likely(3000), tmp_path, "csv", sample=0.2, keep=("fraud", "yes")))
    frozen = freeze(site, tmp_path / "frozen", None)
    assert (frozen.sample, frozen.keep) == (0.2, ("fraud", "yes"))
    assert frozen.of_sample == " They are a sample of 0.2 of the table, with all rows of fraud = yes for training."
    # What the package says later holds from the next snapshot on.
    served = load(replace(site, source=replace(site.source, sample=0.9, keep=None)), tmp_path / "frozen")
    ours, theirs = served.read(), site.read()
    pd.testing.assert_frame_equal(ours.training, theirs.training)
    pd.testing.assert_frame_equal(ours.further, theirs.further)
    pd.testing.assert_frame_equal(ours.holdout("test"), theirs.holdout("test"))
    assert len(ours.further) > 50 and set(ours.further["fraud"]) == {"yes"}


def test_people_who_opted_out_are_in_no_sample(tmp_path: Path):
    table = claims()
    kept = site_of(Frame(table, sample=SHARE), "customers").inspect()[0]
    gone = frozenset(kept["customer"].unique()[:3])
    source = written(table, tmp_path, "csv", sample=SHARE)
    excluded = Excluded("customer", gone)
    frozen = freeze(site_of(source, "customers"), tmp_path / "frozen", excluded)
    left = load(site_of(source, "customers"), tmp_path / "frozen").inspect()[0]
    expected = kept[~kept["customer"].isin(gone)].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, expected)
    assert frozen.excluded is not None and frozen.excluded.found == 3
    # The runs that used somebody's rows are listed by the sample, too: no more of the table is in memory.
    listed = Excluded("customer", frozenset(table["customer"]))
    small = replace(source, limits=Limits(rows=ROWS // 2))
    pd.testing.assert_frame_equal(listed.only(site_of(small, "customers")).inspect()[0], kept)
    with pytest.raises(UsageError, match="prepare, sample and people who opted out do not go together"):
        freeze(site_of(replace(source, prepare=large_only), "customers"), tmp_path / "frozen", excluded)


def test_people_are_compared_on_the_sides_of_a_sample():
    site = site_of(Frame(likely(3000), sample=0.2, keep=("fraud", "yes")))
    (table, _, schema), rows = site.inspect(), site.read()
    sizes = {side: len(places) for side, places in sides_of(site, table, schema, ()).items()}
    used = {"training": len(rows.training), "test": rows.holdout_rows, "further": len(rows.further)}
    assert sizes == {**used, "neither": len(table) - sum(used.values())} and min(sizes.values()) > 0


PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 3.0\ndelta = 1e-5\n'
TREES = 'name = "boosted-trees"\n[strategy]\nname = "boosted-trees"\nrounds = 2\n'
STATISTIC = '[statistic]\nname = "odds-ratio"\nby = "kind"\n'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (STUDY.replace("lr = 0.1", "lr = 0.1\nsteps = 5") + PRIVATE, "keep-private"),
        (STUDY.split('name = "logistic"', maxsplit=1)[0] + TREES, "keep-trees"),
        (STUDY.split("[model]", maxsplit=1)[0].replace("features", "# ") + STATISTIC, "keep-statistic"),
    ],
)
def test_what_cannot_weigh_rows_refuses_a_kept_outcome(text: str, code: str):
    study = Study.parse(text)
    plain = site_of(Frame(claims(50), sample=0.5))
    kept = replace(plain, source=replace(plain.source, keep=("fraud", "yes")))
    refusals = [study_refusal(study, site) or privacy_refusal(study, site, noise=False) for site in (plain, kept)]
    assert refusals[1] == Refusal(code) and refusals[0] != refusals[1]


def test_a_run_says_that_rows_are_a_sample_and_is_as_good_as_of_all_rows(monkeypatch: pytest.MonkeyPatch):
    table = likely(9000)
    study = Study.parse(STUDY).replace({"strategy.rounds": 10, "plan.lr": 1.0, "plan.batch": 0})
    other = replace(site_of(Frame(likely(3000)[1000:].reset_index(drop=True))), name="other")
    private = Policy(cell_minimum=5)
    large = [Frame(table), Frame(table, sample=0.3, keep=("fraud", "yes")), Frame(table, sample=0.3)]
    reports = [run(study, sites=[site_of(one, policy=private), other]).report for one in large]
    for arm in ("global", "local-only"):
        whole, kept, _ = (report["sites"]["ward"][arm]["log_loss"] for report in reports)
        assert kept["low"] < whole["value"] < kept["high"]
    with RunReader.open(None) as reader:
        for report, sampled in zip(reports, (False, True, True), strict=True):
            events = reader.events([one.run for one in reader.runs_of(report["run"])])
            notes = [event.reason for event in events if event.kind == "note" and event.site == "ward"]
            assert any("rows are a sample of 0.3 of the site's" in note for note in notes) == sampled


AT_SIZE = """
import sys
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Parquet
from flfed.rows.data.table_check import check_site
from benchmarks.alone import peak_mb
source = Parquet(sys.argv[1], sample=0.1)
site = Site("ward", "many", source, holdout=Holdout(share=0.2, salt="s"), policy=Policy(disclosure="open"))
checked = check_site(site)
rows = site.read()
print(checked.passed, checked.rows, len(rows.training), rows.holdout_rows, peak_mb())
"""


@pytest.mark.proof
def test_ten_million_rows_are_sampled_checked_and_split_in_less_than_one_and_a_half_gigabytes(tmp_path: Path):
    numbers = [f"x{number}" for number in range(19)]
    kinds = [f"c{number}" for number in range(4)]
    schema = SCHEMA.split("[columns.amount]", maxsplit=1)[0].replace('"claims"', '"many"')
    schema += "".join(f'[columns.{x}]\nkind = "number"\ndescription = "X"\nrange = [-10, 10]\n' for x in numbers)
    schema += "".join(f'[columns.{c}]\nkind = "category"\ndescription = "C"\nvalues = ["a", "b"]\n' for c in kinds)
    schema += '[columns.fraud]\nkind = "target"\ndescription = "Fraud"\nvalues = ["no", "yes"]\n'
    folder = tmp_path / "root" / "datasets" / "many"
    folder.mkdir()
    (folder / "schema.toml").write_text(schema)
    (folder / "source.toml").write_text(SOURCE)
    rng = np.random.default_rng(1)
    rows, part = 10_000_000, 250_000
    names = [*numbers, *kinds, "fraud"]
    shape = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in names])
    with pq.ParquetWriter(tmp_path / "many.parquet", shape) as writer:
        for _ in range(rows // part):
            x = rng.normal(size=(19, part)).round(3)
            texts = [pa.array(rng.choice(["a", "b"], part)) for _ in kinds]
            outcome = pa.array(np.where(rng.random(part) < 0.02, "yes", "no"))
            writer.write_table(pa.table([*map(pa.array, x), *texts, outcome], schema=shape))
    command = [sys.executable, "-c", AT_SIZE, str(tmp_path / "many.parquet")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    passed, kept, training, holdout, peak = said
    assert passed == "True" and 990_000 < int(kept) < 1_010_000 and int(training) + int(holdout) == int(kept)
    assert float(peak) < 1500
