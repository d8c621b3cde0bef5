"""At a gate: a snapshot is used only where it differs from each one used before by nobody or by at least ten people."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_state.freeze import Refresh, excluded_of, freeze_first, refresh
from flfed.deployment.site_state.runs import read_runs
from flfed.deployment.site_state.used_people import use_refusal
from flfed.errors import FlfedError, UsageError
from flfed.records.site_state import SiteState
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Mapped
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.opt_outs import Resting
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from tests.conftest import small_table
from tests.deployment.conftest import CountingFrame
from tests.federation.test_analysis import STUDY as ANALYSIS

CLOSE = Refusal("too-close", least=10)
COMPLETE = '[encode]\nrows = "complete"\n[model]'
Served = tuple[frozenset[str], frozenset[str]]
"""People of training and of test rows."""


class Clinic:
    """An institution behind its gate, with a table that changes."""

    def __init__(self, site: Any) -> None:
        self.site, self.asked = site, 0

    @property
    def table(self) -> pd.DataFrame:
        return self.site.site.source.table

    def ask(self, study: Study | None = None) -> str:
        """Ask for sums in a run of its own; return what the gate says against them, or nothing."""
        self.asked += 1
        changes = {} if study is None else {"study": study.text}
        reply = self.site.answer(self.site.message(SUMMARISE, SummariseRequest()), run=f"r{self.asked}", **changes)
        return str(reply.error.reason) if reply.has_error() else ""

    def month(self, table: pd.DataFrame) -> Refresh:
        """Take the table of another month; write a snapshot where one is possible, approve it, and use it."""
        self.site.open(source=CountingFrame(table.reset_index(drop=True)))
        found = refresh(self.site.folder, self.site.site)
        if found.changes:
            found.write()
            self.site.approve()
        assert self.ask() == ""
        return found

    def force(self, table: pd.DataFrame) -> str:
        """Freeze a table without the check, and approve it; return what the gate says."""
        self.site.open(source=CountingFrame(table.reset_index(drop=True)))
        snapshot.freeze(self.site.site, self.site.folder.frozen, excluded_of(self.site.folder, "small"))
        self.site.approve()
        return self.ask()

    def served(self) -> Served:
        rows = snapshot.load(self.site.site, self.site.folder.frozen).read()
        training, test = (frozenset(side["person"]) for side in (rows.training, rows.holdout("test")))
        return training, test

    def opt_out(self, *people: str) -> None:
        self.site.folder.excluded.write_text("\n".join(("person", *people, "")))
        self.site.folder.excluded.chmod(0o600)

    def people(self, training: int, test: int, seed: int = 7) -> pd.DataFrame:
        """Return rows of so many other people on each side."""
        table = small_table(400, seed=seed)
        masks = self.site.site.holdout.split(table, datasets.load("small").schema)
        parts = [table[mask][:many] for mask, many in zip(masks, (training, test), strict=True)]
        return pd.concat(parts, ignore_index=True)

    def without(self, *people: str) -> pd.DataFrame:
        return self.table[~self.table["person"].isin(people)]


@pytest.fixture
def clinic_of(gated: Callable[..., Any]) -> Callable[..., Clinic]:
    """A function that returns a clinic of so many people, whose first snapshot was used unless `said` is against it.

    `table` changes the table first, by the people of both sides.
    """

    def make(
        text: str = "",
        *,
        group: bool = True,
        rows: int = 300,
        table: Callable[[pd.DataFrame, list[str], list[str]], pd.DataFrame] | None = None,
        said: str = "",
    ) -> Clinic:
        policy = Policy(runs=100, outputs=("complete-rows",))
        made = gated(text, policy=policy, rows=rows, approved=False)
        if group:
            path = datasets.load("small").folder / "schema.toml"
            path.write_text(path.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
            made.freeze()
        made.approve()
        site = Clinic(made)
        if table is not None:
            made.open(source=CountingFrame(table(site.table, *map(sorted, site.served())).reset_index(drop=True)))
            made.freeze()
            made.approve()
        assert site.ask() == said
        return site

    return make


@pytest.fixture
def clinic(clinic_of: Callable[..., Clinic]) -> Clinic:
    """A clinic of 300 people who are told by their identifiers."""
    return clinic_of()


def more(table: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, others], ignore_index=True)


@pytest.mark.parametrize(("training", "test", "missing"), [
    (9, 1, {"training": 1, "test": 9}),  # ten newcomers, as in 19 % of all months
    (30, 1, {"test": 9}),
    (1, 30, {"training": 9}),
    (30, 0, {}),
    (10, 10, {}),
])  # fmt: skip
def test_newcomers_are_served_once_there_are_ten_on_each_side(clinic, training: int, test: int, missing):
    before = clinic.served()
    found = clinic.month(more(clinic.table, clinic.people(training, test)))
    assert found.missing == missing and found.changes == (not missing)
    assert [len(now - old) for now, old in zip(clinic.served(), before, strict=True)] == (
        [0, 0] if missing else [training, test]
    )
    # Whoever freezes them all the same gets no answer.
    said = clinic.force(clinic.table)
    assert said == (CLOSE if missing else "")
    assert may_leave(CLOSE, clinic.site.site)


def test_newcomers_add_runs_in_proportion(clinic):
    before = read_runs(clinic.site.folder, clinic.site.site.policy, "small")
    table = more(clinic.table, clinic.people(50, 50))
    assert clinic.force(table) == ""
    added = read_runs(clinic.site.folder, clinic.site.site.policy, "small").most - before.most
    share = 100 / table["person"].nunique()
    assert added == int(before.most * share) > 0


def test_a_ward_that_was_missing_returns_whole_or_with_ten_others_less(clinic):
    first = clinic.table
    whole = clinic.served()
    ward = [person for side in whole for person in sorted(side)[:25]]
    assert clinic.month(clinic.without(*ward)).changes
    away = clinic.served()
    # All but one of the ward: beside the month before there are 49 newcomers, beside the first month one is missing.
    alone = first[first["person"] != ward[0]]
    assert clinic.month(alone).missing == {"training": 9, "whole": 9}
    assert clinic.served() == away
    assert clinic.force(alone) == CLOSE
    assert clinic.month(first).changes and clinic.served() == whole


@pytest.mark.parametrize("column", ["x1", "y"])
def test_one_persons_changed_row_waits(clinic, column: str):
    before = clinic.served()
    changed = clinic.table.copy()
    changed.loc[5, column] = {"x1": 1.5, "y": {"no": "yes", "yes": "no"}[changed.loc[5, "y"]]}[column]
    other_unit = clinic.table.assign(x1=clinic.table["x1"] * 0.5)
    found = clinic.month(changed)
    assert sorted(found.missing.values()) == [9, 9] and clinic.served() == before
    # Another unit in every row is no person's change, and whoever leaves meanwhile is known by the identifier.
    assert clinic.month(other_unit[1:]).missing.keys() > {"whole"}
    assert clinic.force(changed) == CLOSE
    assert clinic.month(other_unit).changes


def test_a_snapshot_that_nobody_used_binds_nothing(clinic):
    one_more = more(clinic.table, clinic.people(11, 11))
    clinic.site.open(source=CountingFrame(one_more))
    refresh(clinic.site.folder, clinic.site.site).write()
    assert clinic.month(one_more[:-1]).changes
    assert clinic.month(one_more).missing == {"test": 9, "whole": 9}


def test_another_holdout_is_other_rows(clinic):
    held_out = []
    for share, said in ((0.4, ""), (0.41, CLOSE)):
        held_out.append(len(clinic.served()[1]))
        clinic.site.open(holdout=Holdout(share=share, salt="salt-0"))
        assert clinic.ask() == said
    held_out.append(len(clinic.served()[1]))
    assert held_out[1] - held_out[0] >= 10 > held_out[2] - held_out[1] > 0


SLIM = """
format = 1
name = "slim"
task = "binary"
target = "outcome"
{group}
[columns.who]
kind = "id"
[columns.length]
kind = "number"
range = [0, 200]
[columns.outcome]
kind = "target"
values = ["no", "yes"]
"""


@pytest.mark.parametrize("group", ["", 'group = "who"'])
def test_a_second_dataset_of_the_same_people_is_held_to_the_first(clinic_of, small_study, group: str):
    clinic = clinic_of(group=bool(group))
    made, own = clinic.site, datasets.load("small").folder / "schema.toml"
    folder = own.parent.with_name("slim")
    folder.mkdir()
    (folder / "schema.toml").write_text(SLIM.format(group=group))
    (folder / "source.toml").write_text((own.parent / "source.toml").read_text())
    mapping = {"who": "person", "length": "x1", "outcome": "y"}
    study = Study.parse(small_study.replace('name = "small"', 'name = "slim"').replace('"x1"', '"length"'))

    def slim(people: int) -> Any:
        """The dataset without so many of the oldest."""
        oldest = clinic.table["x1"].sort_values().index[-people:] if people else []
        made.open(also={"slim": Mapped(mapping, source=CountingFrame(clinic.table.drop(index=oldest)))})
        return made.site.serving("slim")

    with pytest.raises(UsageError, match="no snapshot of dataset 'slim' is written: its rows differ by so few people"):
        freeze_first(made.folder, slim(1))
    frozen = snapshot.freeze(slim(1), made.folder.frozen, None)
    made.approve(study, rows_sha256=frozen.sha256, schema_sha256=frozen.schema_sha256)
    assert clinic.ask(study) == CLOSE
    served = snapshot.load(slim(1), made.folder.frozen)
    assert use_refusal(made.folder, study, served) == CLOSE
    # The same people, or forty fewer on each side, are served.
    for people in (0, 160):
        frozen = snapshot.freeze(slim(people), made.folder.frozen, None)
        made.approve(study, rows_sha256=frozen.sha256, schema_sha256=frozen.schema_sha256)
        assert clinic.ask(study) == ""


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["x1"].astype(float) < 70]


def sampled(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["x1"].astype(float) < 69]


def test_a_dataset_has_one_choice_of_rows(clinic, small_study):
    site = clinic.site
    complete = Study.parse(
        small_study.replace("[model]", COMPLETE).replace('name = "small"\npurpose', 'name = "whole"\npurpose')
    )
    site.approve(complete)
    said = clinic.ask(complete)
    assert said == (
        "its rows of 'small' were first used by study 'small' with another choice of them (rows, features, split, "
        "sample or prepare)"
    )
    assert may_leave(said, site.site)
    assert use_refusal(site.folder, complete, snapshot.load(site.site, site.folder.frozen)) == said
    # Other features of the same rows are no other rows.
    narrow = Study.parse(small_study.replace('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1"]\n[model]'))
    site.approve(narrow)
    assert narrow.text != site.study.text and clinic.ask(narrow) == ""
    # Nor is an analysis under noise held to it.
    with SiteState(site.folder.state).transaction() as step:
        assert step.tables.execute("SELECT study FROM row_choices").fetchall() == [("small",)]
    for changes in ({"prepare": prepared}, {"sample": 0.9}):
        own = replace(site.site.source, **changes)
        assert clinic_refuses(clinic, own).startswith("its rows of 'small' were first used by study 'small'")


def clinic_refuses(clinic: Clinic, source: Any) -> str:
    clinic.site.open(source=source)
    clinic.site.freeze()
    clinic.site.approve()
    return clinic.ask()


def test_rows_are_compared_as_studies_take_them(clinic_of, small_study):
    clinic = clinic_of(small_study.replace("[model]", COMPLETE))
    # Twenty come on each side, and only one of the test rows is complete.
    others = clinic.people(20, 20)
    others["x2"] = [0.5] * 20 + [0.5] + [np.nan] * 19
    found = clinic.month(more(clinic.table, others))
    assert found.missing == {"test": 9}


@pytest.mark.parametrize("grouped", [True, False])
def test_with_one_who_opts_out_nine_others_of_the_same_side_are_withheld(clinic_of, grouped: bool):
    clinic = clinic_of(group=grouped)
    training, test = clinic.served()
    gone = sorted(training)[5]
    clinic.opt_out(gone)
    assert "people who opted out changed" in clinic.ask()
    found = clinic.month(clinic.table)
    assert found.prepared.resting == Resting(9, 9)
    now = clinic.served()
    withheld = training - now[0] - {gone}
    assert (len(withheld), now[1], now[0] < training) == (9, test, True)
    assert status_of(clinic.site.folder, clinic.site.site, last=1)["snapshots"][0]["withheld"] == "9"
    # Refreshed once more nothing changes, and the same ones stay away while more people leave one by one.
    assert not clinic.month(clinic.table).changes
    bystander = sorted(withheld)[0]
    clinic.opt_out(gone, bystander)
    assert clinic.month(clinic.table).changes and clinic.served() == now
    other = sorted(now[1])[0]
    clinic.opt_out(gone, bystander, other)
    clinic.month(clinic.table)
    assert clinic.served()[0] == now[0] and len(test - clinic.served()[1]) == 10
    # Nobody is in what is written.
    written = (clinic.site.folder.frozen / "small" / "frozen.json").read_text()
    assert not any(person in written for person in (gone, *withheld))


def test_what_one_who_opts_out_had_cannot_be_computed(clinic):
    def total() -> float:
        rows = snapshot.load(clinic.site.site, clinic.site.folder.frozen).read().training
        return float(rows["x1"].sum())

    training, _ = clinic.served()
    before = total()
    gone = sorted(training)[5]
    whole = clinic.table
    # Left out alone, the difference of two sums would be the value.
    assert clinic.force(clinic.without(gone)) == CLOSE
    clinic.opt_out(gone)
    clinic.month(whole)
    values = clinic.table.set_index("person")["x1"]
    assert before - total() == pytest.approx(values[sorted(training - clinic.served()[0])].sum())
    assert len(training - clinic.served()[0]) == 10


def test_where_too_few_are_left_beside_who_opted_out_nothing_is_served(clinic_of):
    clinic = clinic_of(table=lambda table, training, test: table[table["person"].isin([*training, *test[:12]])])
    first = sorted(clinic.served()[1])
    assert len(first) == 12
    # Of twelve two opt out, one after the other: beside the first nine are withheld, and two are left.
    clinic.opt_out(first[0])
    found = refresh(clinic.site.folder, clinic.site.site)
    assert found.prepared.resting == Resting(9, 9)
    found.write()
    clinic.site.approve()
    assert clinic.ask() == "it has fewer than 10 people in its holdout rows"
    left = sorted(clinic.served()[1])
    assert len(left) == 2
    clinic.opt_out(first[0], left[0])
    with pytest.raises(FlfedError, match="dataset 'small' is not served: somebody opted out"):
        refresh(clinic.site.folder, clinic.site.site)
    assert "people who opted out changed" in clinic.ask()


def test_twelve_months_give_no_two_snapshots_that_are_close(clinic):
    rng = np.random.default_rng(3)
    used: list[Served] = [clinic.served()]
    kept = 0
    table = clinic.table
    for month in range(12):
        leave, come = rng.choice([0, 1, 4, 12, 25], 2, p=[0.15, 0.2, 0.15, 0.25, 0.25])
        away = rng.choice(table["person"], 2 * leave, replace=False)
        table = more(table[~table["person"].isin(away)], clinic.people(come, come, seed=100 + month))
        kept += not clinic.month(table).changes
        used.append(clinic.served())
    assert 2 <= kept <= 10
    wholes = [*used, *((training | test,) for training, test in used)]
    for one in wholes:
        for other in wholes:
            for a, b in zip(one, other, strict=False):
                if len(one) == len(other):
                    assert not 0 < len(a - b) < 10 and not 0 < len(b - a) < 10
    # Who was never served in between comes in once enough came.
    assert len(set(used)) == 13 - kept


def test_people_count_and_not_their_rows(clinic_of):
    # One person has twelve of a hundred rows.
    clinic = clinic_of(
        rows=100,
        table=lambda table, training, test: table.replace({"person": dict.fromkeys(training[1:12], training[0])}),
    )
    whole_table, whole = clinic.table, clinic.served()
    person = whole_table["person"].value_counts().index[0]
    assert (len(whole_table), (whole_table["person"] == person).sum()) == (100, 12)
    found = clinic.month(clinic.without(person))
    assert found.missing == {"training": 9, "whole": 9} and clinic.served() == whole
    clinic.opt_out(person)
    found = clinic.month(whole_table)
    assert found.prepared.resting == Resting(9, 9) and len(whole[0] - clinic.served()[0]) == 10


def test_a_part_of_few_people_with_many_rows_is_no_part(clinic_of):
    clinic_of(
        rows=100,
        table=lambda table, training, test: table.replace({"person": dict.fromkeys(test[9:], test[0])}),
        said="it has fewer than 10 people in its holdout rows",
    )


def test_what_is_kept_has_nothing_of_a_row_and_without_it_nothing_leaves(clinic):
    site = clinic.site
    with SiteState(site.folder.state).transaction() as step:
        rows = step.tables.execute("SELECT side, kind, keys FROM people").fetchall()
    sizes = {(side, kind): len(keys) for side, kind, keys in rows}
    training, test = map(len, clinic.served())
    assert {sizes["training", kind] for kind in ("person", "values")} == {16 * training}
    assert sizes["test", "person"] == 16 * test and sizes["neither", "person"] == 0
    assert [line.facts["rows-sha256"] for line in site.lines() if line.kind == "snapshot"] == [
        snapshot.read_facts(site.site, site.folder.frozen).sha256
    ]
    content = site.folder.state.read_bytes() + site.folder.ledger.read_bytes()
    assert not any(str(person).encode() in content for person in clinic.table["person"])
    key = site.folder.gate / "rows.key"
    assert key.stat().st_mode & 0o777 == 0o600 and key.read_bytes() not in content
    key.unlink()
    later = more(clinic.table, clinic.people(20, 20))
    assert (
        clinic.force(later)
        == "its record of the rows that runs used cannot be read, so nothing leaves the site: see its log"
    )
    with pytest.raises(UsageError, match="is gone, and without it earlier releases cannot be compared"):
        refresh(site.folder, site.site)


def test_enrolment_is_refused_by_close_rows_too(clinic):
    clinic.force(more(clinic.table, clinic.people(1, 0)))
    request = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
    reply = clinic.site.answer(clinic.site.message(ENROL, request), run="r9")
    assert EnrolReply.from_record(reply.content).reason == CLOSE


@pytest.mark.parametrize("how", ["open", "noise"])
def test_open_data_and_analyses_under_noise_are_not_compared(gated, how: str):
    policy = Policy() if how == "noise" else Policy(disclosure="open")
    made = gated(ANALYSIS if how == "noise" else "", policy=policy, rows=300)
    clinic = Clinic(made)
    served = snapshot.load(made.site, made.folder.frozen)
    made.gate._studies.check(made.run_config, ENROL)
    assert made.gate.find_site(made.folder.site, made.study).snapshot == served.snapshot
    assert not made.folder.state.exists()
    assert refresh(made.folder, replace(made.site, source=CountingFrame(clinic.table[1:]))).changes
