"""The shipped studies of two parties on real tables, and the sentence of what cannot be joined, at the command line."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from flfed import Frame, Holdout, Site, Study, run
from flfed.rows.data import site_discovery
from flfed.rows.data.table_check import check_site

AUC = "roc_auc_score"
SPLITS = 5


class Clients:
    """The bank and the payment service of 8,000 clients."""

    def __init__(self) -> None:
        self.bank, self.service = (site_discovery.load(name) for name in ("card-bank", "payment-service"))
        self.table = self.bank.source_table().sample(8000, random_state=0).reset_index(drop=True)

    def label_party(self, split: int) -> Site:
        return replace(self.bank, source=Frame(self.table), holdout=Holdout(share=0.3, salt=f"split {split}"))

    def joined(self, split: int, table: pd.DataFrame) -> dict[str, float]:
        """Return the AUC by arm, of a run with the payment service's table."""
        sites = [self.label_party(split), replace(self.service, source=Frame(table))]
        figures = run(Study.load("taiwan-credit-parties"), sites=sites).report["sites"]["card-bank"]
        return {arm: figures[arm][AUC]["value"] for arm in ("global", "local-only")}

    def logistic(self, split: int) -> float:
        """Return the AUC of scikit-learn's logistic regression on the bank's columns."""
        bank = self.label_party(split).read()
        sides = []
        for rows in (bank.training, bank.holdout("test")):
            x = rows[["LIMIT_BAL", *(f"BILL_AMT{month}" for month in range(1, 7))]]
            y = rows["default.payment.next.month"] == "1"
            sides.append((x.assign(LIMIT_BAL=np.log1p(x["LIMIT_BAL"])), y))
        (x, y), (test_x, test_y) = sides
        plain = LogisticRegression(max_iter=1000).fit((x - x.mean()) / x.std(), y)
        return float(roc_auc_score(test_y, plain.decision_function((test_x - x.mean()) / x.std())))


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("taiwan_parties")
def test_payments_add_to_what_a_bank_knows_where_rows_are_of_the_same_client():
    clients = Clients()
    arms = pd.DataFrame([clients.joined(split, clients.table) for split in range(SPLITS)]).mean()
    alone = np.mean([clients.logistic(split) for split in range(SPLITS)])
    assert arms["global"] >= 0.73
    # The fair rival is the better of the bank's own models: trees here.
    assert alone < arms["local-only"] < arms["global"] - 0.05
    assert alone == pytest.approx(0.625, abs=0.02) and arms["local-only"] == pytest.approx(0.652, abs=0.02)
    # With another client's payments beside each row, nothing is added.
    other = clients.table.assign(ID=clients.table["ID"].sample(frac=1, random_state=1).to_numpy())
    wrong = np.mean([clients.joined(split, other)["global"] for split in range(2)])
    assert wrong < 0.65


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("taiwan_parties")
def test_label_privacy_costs_a_bank_with_many_clients_hardly_anything():
    study = Study.load("taiwan-credit-parties")
    figures = {}
    for name, changes in (("exact", {}), ("noised", {"privacy.name": "label-dp", "privacy.label-epsilon": 3.0})):
        report = run(study.replace(changes)).report
        figures[name] = report["sites"]["card-bank"]["global"][AUC]["value"]
    print(figures)
    assert figures["exact"] == pytest.approx(0.742, abs=0.001)
    assert figures["noised"] >= 0.735


PARTY = """
from flfed import Csv, Holdout, Policy, Site

site = Site(name="{name}", dataset="pair", source=Csv("{folder}/{name}.csv"), mapping={mapping},
            holdout=Holdout(share=0.3, salt="s"), policy=Policy(disclosure="open"), holds="{holds}", partial=True)
"""
SCHEMA = """
format = 1
name = "pair"
task = "binary"
target = "y"
group = "person"
[columns.person]
kind = "id"
[columns.a]
kind = "number"
range = [-10, 10]
[columns.b]
kind = "number"
range = [-10, 10]
[columns.y]
kind = "target"
values = ["no", "yes"]
"""
STUDY = """
format = 1
name = "pair"
purpose = "Test"
legal-basis = "none needed"
seed = 5
[dataset]
name = "pair"
sites = ["left", "right"]
[model]
name = "logistic"
[strategy]
name = "vertical"
rounds = 2
"""


class Pair:
    """Two site packages, with a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        place = folder / "datasets/pair"
        place.mkdir(parents=True)
        (place / "schema.toml").write_text(SCHEMA)
        source = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
        (place / "source.toml").write_text(source)
        (folder / "pair.toml").write_text(STUDY)
        rng = np.random.default_rng(4)
        table = pd.DataFrame({"person": [f"p{place}" for place in range(400)], "a": rng.normal(size=400).round(4)})
        self.table = table.assign(b=rng.normal(size=400).round(4), y=np.where(rng.random(400) < 0.5, "yes", "no"))
        self.party("left", self.table[["person", "a", "y"]])
        self.party("right", self.table[["person", "b"]])

    def party(self, name: str, table: pd.DataFrame) -> None:
        """Write a site's package and file; it has the outcome if its table does."""
        package = self.folder / "sites" / name
        package.mkdir(parents=True, exist_ok=True)
        table.to_csv(self.folder / f"{name}.csv", index=False)
        mapping = {column: None for column in self.table if column not in table and column != "person"}
        holds = "rows" if "y" in table else "columns"
        text = PARTY.format(name=name, folder=self.folder, mapping=mapping, holds=holds)
        (package / "__init__.py").write_text(f'"""{name}."""\n{text}')

    def spoil(self, case: str) -> None:
        """Make the parties of a case that cannot be joined."""
        right = self.table[["person", "b"]]
        if case == "overlap":
            self.party("right", right.iloc[:99])
        elif case == "twice":
            self.party("right", pd.concat([right, right.iloc[:1]]))
        elif case == "no identifier column":
            self.party("right", right.drop(columns="person"))
        elif case == "two label parties":
            self.party("right", self.table[["person", "b", "y"]])
        elif case == "no label party":
            self.party("left", self.table[["person", "a"]])
        elif case == "rows a column":
            # The widest party has two inputs, an intercept among them: 28 training rows are 14 each.
            left = site_discovery.load("left").read()
            people = {*left.training["person"][:28], *left.holdout("test")["person"]}
            self.party("right", right[right["person"].isin(people)])


@pytest.fixture
def pair(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    return Pair(tmp_path)


SENTENCES = {
    "overlap": "fewer than 100 rows are in common",
    "twice": "1 row of a person who has an earlier row",
    "no identifier column": "column 'person' has no value in any row (a site with columns alone needs identifiers)",
    "two label parties": "just one site needs the outcome, and these have it: left, right",
    "no label party": "just one site needs the outcome, and these have it: none",
    "rows a column": "fewer than 15 training rows are in common for each of a party's 2 inputs",
    "missing extra": "pip install 'flfed[vertical]'",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_run_that_cannot_be_made_is_one_sentence_and_exit_2(pair: Pair, flfed, monkeypatch, case: str):
    pair.spoil(case)
    if case == "missing extra":
        monkeypatch.setitem(sys.modules, "tenseal", None)
    code, out, err = flfed("study", "run", pair.folder / "pair.toml")
    assert SENTENCES[case] in " ".join(err.split())
    assert (code, "Traceback" in out + err) == (2, False)


def test_a_new_study_of_sites_with_different_columns_is_one_that_runs(pair: Pair, flfed):
    five = pair.table.assign(**{f"b{place}": pair.table["b"] for place in range(5)})
    schema = pair.folder / "datasets/pair/schema.toml"
    rng = np.random.default_rng(1)
    for place in range(5):
        schema.write_text(schema.read_text() + f'[columns.b{place}]\nkind = "number"\nrange = [-10, 10]\n')
        five[f"b{place}"] = rng.normal(size=400).round(4)
    pair.table = five
    pair.party("left", five[["person", "a", "y"]])
    pair.party("right", five.drop(columns=["a", "y"]))

    code, _, err = flfed("study", "new", "--dataset", "pair", "--name", "joined", "--output", pair.folder)
    assert code == 0, err
    study = Study.parse((pair.folder / "joined.toml").read_text())
    assert (study.strategy.name, study.dataset.sites, study.model.name) == ("vertical", ("left", "right"), "logistic")
    code, _, err = flfed("study", "run", pair.folder / "joined.toml", "--json")
    assert code == 0, err
    code, _, err = flfed("study", "new", "--dataset", "pair", "--private", "--name", "noised", "--output", pair.folder)
    assert (code, "cannot be combined with strategy vertical" in " ".join(err.split())) == (2, True)
    (pair.folder / "answers.toml").write_text("")
    code, _, err = flfed("choose", "--dataset", "pair", "--answers", pair.folder / "answers.toml")
    assert (code, "flfed study new --dataset pair" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("twice", "column 'person' names a person who has an earlier row in fewer than 5 rows"),
        ("nobody", "column 'person' names nobody in fewer than 5 rows"),
        (
            "no identifier column",
            "column 'person' has no value in any row (a site with columns alone needs identifiers)",
        ),
    ],
)
def test_a_check_of_columns_alone_finds_what_cannot_be_aligned(pair: Pair, flfed, case: str, sentence: str):
    code, out, _ = flfed("site", "check", "right")
    assert (code, out.splitlines()[-1]) == (
        0, "right fits: 400 rows, a person each, without an outcome; 1 of 2 features are mapped."
    )  # fmt: skip
    assert "FAIL" not in out and "salt" not in out and "one class" not in out
    if case == "nobody":
        pair.party("right", pair.table[["person", "b"]].assign(person=[None, *pair.table["person"][1:]]))
    pair.spoil(case)
    code, _, err = flfed("site", "check", "right")
    assert (code, sentence in " ".join(err.split())) == (2, True)


def test_rows_of_a_person_twice_are_numbered_for_the_site_alone(pair: Pair):
    pair.spoil("twice")
    checked = check_site(site_discovery.load("right"))
    (finding,) = checked.findings
    assert (finding.column, finding.rows.tolist(), checked.passed) == ("person", [400], False)
