"""Parties with different columns of the same people train one linear model."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from flfed import Frame, Holdout, Policy, Site
from flfed.errors import FlfedError, UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.party_model import PartyScores, joined_predictions, party_scores
from flfed.export.run_folder import export
from flfed.federation.engines.inprocess import CohortGrid
from flfed.federation.server.run import Result, run
from flfed.records.reports.narrative import comparison_rows, verdict_in_words
from flfed.records.reports.privacy_tables import mechanism_lines
from flfed.records.reports.round_totals import participation
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon
from flfed.vertical.column_party import ColumnParty
from flfed.vertical.label_party import LabelParty
from flfed.vertical.steps import QUARTER, PartyRows, Steps, quarters, residuals

COLUMNS = {
    "bank": ("limit", "age", "region"),
    "service": ("paid", "late", "refunds", "fees", "cash"),
    "agency": ("visits", "score", "calls", "loans", "age2"),
}
SCHEMA = """
format = 1
name = "clients"
task = "{task}"
target = "default"
group = "client"
[columns.client]
kind = "id"
[columns.default]
kind = "target"
{target}
[columns.region]
kind = "category"
values = ["north", "south", "west"]
"""
NUMBER = '[columns.{name}]\nkind = "number"\nrange = [-100, 100]\n'
STUDY = """
format = 1
name = "clients"
purpose = "Test"
legal-basis = "none needed"
seed = 5
[dataset]
name = "clients"
sites = {sites}
[model]
name = "{model}"
[strategy]
name = "vertical"
rounds = {rounds}
ridge = 0.05
"""
PEOPLE = 420
LABELS = {"privacy.name": "label-dp", "privacy.label-epsilon": 3.0, "privacy.row-norm": 2.0}


def clients(task: str) -> pd.DataFrame:
    """Return people with the columns of all parties, and the outcome."""
    rng = np.random.default_rng(11)
    numbers = [name for names in COLUMNS.values() for name in names if name != "region"]
    table = pd.DataFrame({name: rng.normal(0, 1, PEOPLE).round(6) for name in numbers})
    table["region"] = rng.choice(["north", "south", "west"], PEOPLE)
    score = table["limit"] - table["paid"] + 0.8 * table["late"] + 0.6 * table["visits"] + (table["region"] == "west")
    if task == "binary":
        table["default"] = np.where(rng.random(PEOPLE) < 1 / (1 + np.exp(-score)), "yes", "no")
    else:
        table["default"] = (score + rng.normal(0, 1, PEOPLE)).round(6)
    # Some cells are missing, as everywhere.
    table.loc[rng.choice(PEOPLE, 20, replace=False), "paid"] = np.nan
    table.insert(0, "client", [f"client-{number:04d}" for number in range(PEOPLE)])
    return table


class Scene:
    """Parties of a dataset, each with its own file in an order of its own."""

    def __init__(self, folder: Path, task: str, names: Sequence[str] = ("bank", "service")) -> None:
        self.table, self.task, self.names = clients(task), task, tuple(names)
        place = folder / "root/datasets/clients"
        place.mkdir(parents=True, exist_ok=True)
        target = 'values = ["no", "yes"]' if task == "binary" else "range = [-100, 100]"
        text = SCHEMA.format(task=task, target=target)
        text += "".join(NUMBER.format(name=name) for name in self.table if name not in ("client", "default", "region"))
        (place / "schema.toml").write_text(text)
        source = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
        (place / "source.toml").write_text(source)

    def site(self, name: str, *, policy: Policy | None = None, table: pd.DataFrame | None = None) -> Site:
        has_outcome = name == "bank"
        own = [*COLUMNS[name], *(["default"] if has_outcome else [])]
        rows = (self.table if table is None else table)[["client", *own]]
        rows = rows.sample(frac=1, random_state=len(name)) if table is None else rows
        others = {column: None for column in self.table if column not in ("client", *own)}
        return Site(
            name=name,
            dataset="clients",
            source=Frame(rows.reset_index(drop=True)),
            mapping=others,
            policy=policy or Policy(disclosure="open"),
            holdout=Holdout(share=0.3, salt="of the bank"),
            holds="rows" if has_outcome else "columns",
        )

    def sites(self, **changes: Any) -> list[Site]:
        return [self.site(name, **changes) for name in self.names]

    def study(self, rounds: int = 10) -> Study:
        model = "logistic" if self.task == "binary" else "linear"
        return Study.parse(STUDY.format(sites=list(self.names), model=model, rounds=rounds).replace("'", '"'))


@pytest.fixture
def scene(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))
    return lambda task="binary", names=("bank", "service"): Scene(tmp_path, task, names)


def parts(result: Result, folder: Path) -> dict[str, SharedModel]:
    """Return the parts of a run's model by party."""
    export(result.run, folder)
    return {path.name: SharedModel.read(path) for path in sorted(folder.iterdir()) if path.is_dir()}


def unencrypted(
    scene: Scene,
    models: dict[str, SharedModel],
    rounds: int,
    noise: dict[tuple[str, int], np.ndarray],
    norm: float | None,
) -> dict[str, np.ndarray]:
    """Return each party's weights after the same steps in the clear, over the joined table."""
    sites = {name: scene.site(name) for name in scene.names}
    bank = sites["bank"].read()
    people = {
        side: rows["client"].tolist() for side, rows in (("training", bank.training), ("holdout", bank.holdout("t")))
    }
    steps = {}
    strategy = scene.study().strategy.build("strategy")
    for name, site in sites.items():
        table = site.read_columns().training if name != "bank" else pd.concat([bank.training, bank.holdout("t")])
        table = table.set_index("client", drop=False)
        sides = [table.loc[people[side]].reset_index(drop=True) for side in ("training", "holdout")]
        rows = PartyRows.of(models[name].layout, *sides, intercept=name == "bank")
        rows = replace(rows, norm=norm)
        steps[name] = Steps(rows, len(sites), scene.task, strategy.ridge)
    encoder = steps["bank"].rows.encoder
    if scene.task == "binary":
        y = (bank.training["default"] == "yes").to_numpy(dtype=float)
    else:
        y = (bank.training["default"].to_numpy() - encoder.center[-1]) / encoder.scale[-1]
    weights = {name: rule.start() for name, rule in steps.items()}
    for round in range(1, rounds + 1):
        total = np.zeros(len(y))
        for name, rule in steps.items():
            scores = rule.rows.training @ weights[name].ahead
            total += scores if name == "bank" else quarters(scores) * QUARTER
        residual = residuals(total, y, scene.task)
        for name, rule in steps.items():
            sums = rule.rows.summed.T @ residual + noise[name, round]
            weights[name] = rule.stepped(weights[name], sums, round)
    return {name: rule.rows.model(weights[name].now)["weight"] for name, rule in steps.items()}


def drawn_noise(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], np.ndarray]:
    """Return a dict that will have the noise of each party and round that a run draws."""
    drawn: dict[tuple[str, int], np.ndarray] = {}
    draw = LabelParty._noise

    def drawing(self: Any, site: str, round: int, count: int) -> np.ndarray:
        assert (site, round) not in drawn, "once"
        drawn[site, round] = draw(self, site, round, count)
        return drawn[site, round]

    monkeypatch.setattr(LabelParty, "_noise", drawing)
    return drawn


@pytest.mark.parametrize(
    ("task", "names", "changes"),
    [
        ("binary", ("bank", "service"), {}),
        ("regression", ("bank", "service"), {}),
        ("binary", tuple(COLUMNS), {}),
        ("binary", ("bank", "service"), LABELS),
    ],
)
def test_parts_are_those_of_the_same_steps_in_the_clear(
    scene, task: str, names: tuple[str, ...], changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    noise = drawn_noise(monkeypatch)
    here = scene(task, names)
    result = run(here.study().replace(changes), sites=here.sites())
    models = parts(result, tmp_path / "exported")
    assert set(models) == set(names)
    assert {one.any() for one in noise.values()} == {bool(changes)}
    plain = unencrypted(here, models, 10, noise, changes.get("privacy.row-norm"))
    for name, model in models.items():
        assert {column.name for column in model.layout.features} == set(COLUMNS[name])
        np.testing.assert_allclose(model.arrays["weight"], plain[name], atol=1e-4)
    # Only the party with the outcome has figures, and an intercept.
    assert list(result.report["sites"]) == ["bank"]
    assert [name for name, model in models.items() if model.arrays["bias"].any()] == ["bank"]
    # The coordinator has no model, and records no hash of one.
    assert result.report["arrays-sha256"] is None


def spent_with(deviation: float, rounds: int, parties: int) -> float:
    """Return the ε of sums with noise of a deviation, over rows of a norm of 2 at each party."""
    return epsilon([Release(noise=deviation / (2.0 * math.sqrt(parties)), sampling=1.0, steps=rounds)], 1e-5)


@pytest.mark.parametrize("names", [("bank", "service"), tuple(COLUMNS)])
def test_noise_on_all_sums_of_a_run_is_that_of_the_label_epsilon(scene, names, monkeypatch: pytest.MonkeyPatch):
    here = scene("binary", names)
    noise = drawn_noise(monkeypatch)
    result = run(here.study(rounds=25).replace(LABELS), sites=here.sites())
    assert set(noise) == {(name, round) for name in names for round in range(1, 26)}
    drawn = np.concatenate([*noise.values()])
    # 250 draws or more: the deviation is known to a twentieth.
    assert spent_with(drawn.std(), 25, len(names)) == pytest.approx(3.0, rel=0.15)
    assert abs(drawn.mean()) < 4 * drawn.std() / math.sqrt(len(drawn))
    # The wrong implementation: half of the noise.
    assert spent_with(drawn.std() / 2, 25, len(names)) > 6
    privacy = result.report["privacy"]
    assert (privacy["unit"], privacy["mechanism"]) == ("outcome", "label-dp")
    assert list(privacy["sites"]) == ["bank"]
    assert privacy["sites"]["bank"]["epsilon"] == pytest.approx(3.0, abs=0.01)
    for one in names:
        for other in names:
            assert one == other or abs(np.corrcoef(noise[one, 1][:4], noise[other, 1][:4])[0, 1]) < 1


def test_two_runs_of_one_study_are_charged_twice_and_none_beyond_the_budget(scene):
    here = scene()
    policy = Policy(disclosure="institution", outputs=("row-aligned",), epsilon=5.0)
    partner = Policy(disclosure="institution", outputs=("row-aligned",))
    sites = [here.site("bank", policy=policy), here.site("service", policy=partner)]
    study = here.study(rounds=2).replace(LABELS)
    first = run(study, sites=sites).report["privacy"]["sites"]["bank"]
    second = run(study, sites=sites).report["privacy"]["sites"]["bank"]
    assert (first["spent-before"], second["spent-before"]) == (0, pytest.approx(3.0, abs=0.01))
    # Two are ε = 4.5 together, and a third one would exceed 5.
    with pytest.raises(FlfedError, match="privacy budget"):
        run(study, sites=sites)


def test_a_column_party_with_a_budget_takes_no_part_since_no_noise_protects_columns(scene):
    here = scene()
    policy = Policy(disclosure="institution", outputs=("row-aligned",), epsilon=5.0)
    sites = [here.site("bank"), here.site("service", policy=policy)]
    with pytest.raises(FlfedError, match="its policy allows studies with record-level differential privacy only"):
        run(here.study(rounds=2).replace(LABELS), sites=sites)


@pytest.mark.parametrize(("named", "runs"), [(("service",), True), (("agency",), False), ((), False)])
def test_an_institution_answers_with_exact_sums_only_partners_that_its_policy_names(scene, named, runs: bool):
    here = scene()
    policy = Policy(disclosure="institution", outputs=("row-aligned",), exact_sums=named)
    sites = [here.site("bank", policy=policy), here.site("service")]
    assert run(here.study(rounds=1).replace(LABELS), sites=sites).status == "completed"
    if runs:
        assert run(here.study(rounds=1), sites=sites).status == "completed"
        return
    with pytest.raises(FlfedError, match="the study adds no noise to sums over outcomes"):
        run(here.study(rounds=1), sites=sites)


def test_the_joined_model_is_that_of_one_table(scene, tmp_path: Path):
    here = scene()
    result = run(here.study(), sites=here.sites())
    bank = here.site("bank").read()
    x = pd.get_dummies(here.table.set_index("client").drop(columns="default"), drop_first=True).astype(float)
    x = x[[name for name in x if name.partition("_")[0] in {*COLUMNS["bank"], *COLUMNS["service"]}]]
    x = ((x - x.mean()) / x.std()).fillna(0.0)
    sides = [rows["client"].tolist() for rows in (bank.training, bank.holdout("test"))]
    y = (here.table.set_index("client")["default"] == "yes").astype(int)
    plain = LogisticRegression(C=1 / (0.05 * len(sides[0])), max_iter=1000).fit(x.loc[sides[0]], y.loc[sides[0]])
    pooled = roc_auc_score(y.loc[sides[1]], plain.decision_function(x.loc[sides[1]]))
    headers, lines, below = comparison_rows(result.report)
    assert [line[0] for line in lines] == ["bank"] and not any("adjusted" in header for header in headers)
    assert "all sites" not in " ".join(below) and "no column" not in " ".join(below)
    assert verdict_in_words(result.report)[-1].endswith(" at bank.")
    figures = result.report["sites"]["bank"]
    assert figures["global"]["roc_auc_score"]["value"] == pytest.approx(pooled, abs=0.004)
    own = figures["local-only"]["roc_auc_score"]["value"]
    assert figures["difference"]["roc_auc_score"]["value"] == pytest.approx(
        figures["global"]["roc_auc_score"]["value"] - own, abs=1e-9
    )
    # The own model has the bank's columns alone.
    assert own < pooled - 0.03


def test_the_record_has_bytes_and_protection_of_the_rounds(scene):
    here = scene()
    result = run(here.study(rounds=3), sites=here.sites())
    with RunReader.open() as reader:
        shares = participation(reader, [result.run])
        lines = mechanism_lines(result.report["privacy"], reader.sites(result.run))
    # The coordinator passes on what it gets; the key goes to the service with the first scores.
    traffic = result.report["round-bytes"]
    assert traffic["to-site"]["round"] > traffic["to-server"]["round"] > 0
    assert [(share.site, share.asked, share.answered, share.rejected) for share in shares] == [
        (name, 3, 3, 0) for name in ("bank", "service")
    ]
    assert lines[-1]["Mechanism"] == "homomorphic encryption"


def test_predictions_in_two_steps_are_those_of_the_run(scene, tmp_path: Path):
    here = scene()
    result = run(here.study(), sites=here.sites())
    models = parts(result, tmp_path / "exported")
    files = {}
    for name in here.names:
        own = [*COLUMNS[name]]
        files[name] = tmp_path / f"{name}.csv"
        here.table[["client", *own]].to_csv(files[name], index=False)
    few = here.table.iloc[:50][["client", *COLUMNS["service"]]]
    few.to_csv(files["service"], index=False)
    bank, service = (party_scores(models[name], files[name]) for name in here.names)
    joined = joined_predictions(models["bank"], bank, [service])
    assert (len(joined.identifiers), joined.only_here, joined.only_there) == (50, PEOPLE - 50, 0)
    other = replace(service, identifiers=tuple(f"#{person}" for person in service.identifiers))
    forms = joined_predictions(models["bank"], bank, [other]).forms
    assert joined.forms == "" and "'#' + " in forms and service.identifiers[0] not in forms
    scores = dict(zip(service.identifiers, service.scores, strict=True))
    total = [bank.scores[place] + scores[person] for place, person in enumerate(bank.identifiers) if person in scores]
    np.testing.assert_allclose(joined.values, 1 / (1 + np.exp(-np.array(total))), atol=1e-9)
    with pytest.raises(UsageError, match="has no outcome"):
        joined_predictions(models["service"], service, [bank])


def test_predictions_need_one_file_of_each_other_party_of_the_run(scene, tmp_path: Path):
    here = scene("binary", tuple(COLUMNS))
    models = parts(run(here.study(), sites=here.sites()), tmp_path / "exported")
    # Identifiers that a spreadsheet would take for formulas.
    table = here.table.assign(client=[f"+{person}" for person in here.table["client"]])
    found = {}
    for name in here.names:
        file = tmp_path / f"{name}.csv"
        table[["client", *COLUMNS[name]]].to_csv(file, index=False)
        (tmp_path / "scores.csv").write_text(party_scores(models[name], file).as_csv())
        found[name] = PartyScores.read(tmp_path / "scores.csv")
    bank, service, agency = (found[name] for name in here.names)
    joined = joined_predictions(models["bank"], bank, [agency, service])
    assert (len(joined.identifiers), joined.only_here) == (PEOPLE, 0)
    for others in ([service], [service, service], [], [service, replace(agency, run="20260101-000000-0000")]):
        with pytest.raises(UsageError, match="one file of each other party"):
            joined_predictions(models["bank"], bank, others)


def places_of(here: Scene, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the people in the order in which the column party has them of the label party."""
    found: list[list[str]] = []
    keep = ColumnParty.keep_rows

    def kept(self: Any, training: np.ndarray, holdout: np.ndarray) -> None:
        found.append(self.table["client"].iloc[np.concatenate([training, holdout])].tolist())
        keep(self, training, holdout)

    monkeypatch.setattr(ColumnParty, "keep_rows", kept)
    run(here.study(rounds=1), sites=here.sites())
    return found[0]


def test_the_order_of_rows_shows_nothing_of_the_label_partys_cells(scene, monkeypatch: pytest.MonkeyPatch):
    here = scene()
    before = places_of(here, monkeypatch)
    other = {"yes": "no", "no": "yes"}
    here.table = here.table.assign(default=here.table["default"].map(other), limit=-here.table["limit"])
    assert places_of(here, monkeypatch) == before


def test_an_input_with_few_other_values_takes_no_part(scene):
    for count in (12, 60):
        here = scene()
        flag = np.zeros(PEOPLE)
        flag[:count] = 1.0
        here.table["refunds"] = flag
        if count == 60:
            assert run(here.study(rounds=1), sites=here.sites()).status == "completed"
            continue
        with pytest.raises(FlfedError, match="fewer than 5 of its inputs vary enough"):
            run(here.study(rounds=1), sites=here.sites())


@pytest.mark.parametrize(("differing", "runs"), [(0, True), (1, False), (14, False), (-1, False), (15, True)])
def test_of_two_groups_that_differ_in_a_few_people_one_takes_no_part(scene, differing: int, runs: bool):
    here = scene()
    trained = np.flatnonzero(here.table["client"].isin(here.site("bank").read().training["client"]))
    flag = np.arange(PEOPLE) % 2.0
    other = flag.copy()
    other[trained[:differing]] = 1 - flag[trained[:differing]]
    here.table = here.table.assign(refunds=flag, fees=other)
    if runs:
        assert run(here.study(rounds=1), sites=here.sites()).status == "completed"
        return
    with pytest.raises(FlfedError, match="fewer than 5 of its inputs vary enough"):
        run(here.study(rounds=1), sites=here.sites())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict.fromkeys(COLUMNS["service"], 1.0), "fewer than 5 of its inputs vary enough"),
        (dict.fromkeys(COLUMNS["service"], np.nan), "it has no column of the study with a value"),
        (dict.fromkeys(COLUMNS["bank"]), "it has no column of the study with a value"),
        ({"default": "yes"}, "the training rows in common have one class only"),
    ],
)
def test_parties_that_cannot_train_are_refused_before_the_rounds(scene, change: dict[str, Any], sentence: str):
    here = scene()
    here.table = here.table.assign(**change)
    with pytest.raises(FlfedError, match=sentence):
        run(here.study(), sites=here.sites())


class Listening(CohortGrid):
    """The engine's grid, which writes down what crosses."""

    heard: list[bytes]

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        for message in (*asked, *replies):
            if "sealed" in message.content:
                type(self).heard += [array.numpy().tobytes() for array in message.content["sealed"].values()]
        return replies


def test_two_runs_share_no_blinded_value_and_no_message_has_an_identifier(scene, monkeypatch: pytest.MonkeyPatch):
    heard: list[set[bytes]] = []
    monkeypatch.setattr("flfed.federation.engines.inprocess.CohortGrid", Listening)
    here = scene()
    for _ in range(2):
        Listening.heard = []
        run(here.study(rounds=1), sites=here.sites())
        heard.append(set(Listening.heard))
    assert heard[0] and not heard[0] & heard[1]
    everything = b"".join(heard[0])
    for person in here.table["client"][:50]:
        assert person.encode() not in everything
        for salt in (b"", b"flfed alignment\0"):
            assert hashlib.sha256(salt + person.encode()).digest() not in everything


def with_rows(here: Scene, name: str, rows: pd.DataFrame) -> list[Site]:
    return [here.site(one, table=rows) if one == name else here.site(one) for one in here.names]


def spoilt(here: Scene, case: str) -> tuple[list[Site], Study]:
    study = here.study()
    bank = here.site("bank")
    if case == "overlap":
        return with_rows(here, "service", here.table.iloc[:99]), study
    if case == "twice":
        return with_rows(here, "service", pd.concat([here.table, here.table.iloc[:1]])), study
    if case == "no identifier":
        nameless = here.table.assign(client=[None, *here.table["client"][1:]])
        return with_rows(here, "service", nameless), study
    if case == "two label parties":
        other = replace(bank, name="service")
        return [bank, other], study
    if case == "none":
        return [replace(here.site("service"), name="bank"), here.site("service")], study
    if case == "rows":
        # 14 training rows for each input of the widest party: two of a region, limit, age and the intercept.
        bank_rows = here.site("bank").read()
        people = [*bank_rows.training["client"][: 14 * 5], *bank_rows.holdout("test")["client"]]
        return with_rows(here, "service", here.table[here.table["client"].isin(people)]), study
    return [here.site("bank"), replace(here.site("service"), policy=Policy())], study


SENTENCES = {
    "overlap": "fewer than 100 rows are in common",
    "twice": "1 row of a person who has an earlier row",
    "no identifier": "no identifier in|client",
    "two label parties": "just one site needs the outcome, and these have it: bank, service",
    "none": "just one site needs the outcome, and these have it: none",
    "rows": "fewer than 15 training rows are in common for each of a party's 5 inputs",
    "not allowed": "its policy lets no rows be aligned",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_what_cannot_be_run_is_refused_in_a_sentence(scene, case: str):
    sites, study = spoilt(scene(), case)
    with pytest.raises(FlfedError, match=SENTENCES[case]):
        run(study, sites=sites)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"privacy.secure-aggregation": "on"}, "secure-aggregation cannot be combined with strategy vertical"),
        ({"model.name": "mlp"}, "trains 'logistic' or 'linear' alone"),
        ({"plan.lr": 0.3}, "lr cannot be combined with strategy vertical"),
        ({"compare.importance": 3}, "importance cannot be combined"),
        ({"privacy.name": "site-dp"}, "goes with 'none' or 'label-dp' alone"),
    ],
)
def test_what_does_not_go_with_parties_is_refused(scene, change: dict[str, Any], sentence: str):
    here = scene()
    with pytest.raises(UsageError, match=sentence):
        run(here.study().replace(change), sites=here.sites())


def test_label_privacy_needs_an_outcome_of_two_classes_and_parties(scene):
    here = scene("regression")
    with pytest.raises(UsageError, match="protects an outcome of two classes"):
        run(here.study().replace(LABELS), sites=here.sites())
    other = here.study().replace(LABELS).text.replace('"vertical"', '"fedavg"').replace("ridge = 0.05", "")
    with pytest.raises(UsageError, match="goes with strategy vertical alone"):
        run(Study.parse(other), sites=here.sites())


def test_repeats_and_another_study_are_refused(scene, small_study: str):
    here = scene()
    with pytest.raises(UsageError, match="leave --repeats out"):
        run(here.study(), sites=here.sites(), repeats=2)
    other = here.study().text.replace('"vertical"', '"fedavg"').replace("ridge = 0.05", "")
    with pytest.raises(FlfedError, match="the strategy vertical alone"):
        run(Study.parse(other), sites=here.sites())
