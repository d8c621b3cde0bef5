"""What an institution released before holds what it releases next: the four answers, and a record that is damaged."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.site_state.freeze import freeze_first, refresh
from flfed.errors import FlfedError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.released.sets import RowSets
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Frame, Sql
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.opt_outs import Excluded, Resting
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

UNREADABLE = Refusal("releases-unreadable")

CLOSE = (
    "its rows differ by fewer than 10 people from rows whose sums left before: together such sums would give these "
    "people away"
)
Compute = Callable[..., str]


@pytest.fixture
def site(small_sites) -> Site:
    """An institution of 200 rows, about 60 of them held out."""
    return small_sites(1, rows=200, policy=Policy())[0]


@pytest.fixture
def answer(ask, small_study) -> Compute:
    """A function that asks a site for its sums in a run of its own, and returns what it says against, or nothing."""

    def go(site: Site, run: str, text: str = "", *, kind: str = SUMMARISE, side: SiteClient | None = None) -> str:
        request = SummariseRequest()
        if kind == ENROL:
            request = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
        reply = ask(side or SiteClient(lambda name, _: site), site.name, kind, request, text or small_study, run=run)
        if reply.has_error():
            return str(reply.error.reason)
        return EnrolReply.from_record(reply.content).reason if kind == ENROL else ""

    return go


def without(site: Site, *rows: int) -> Site:
    return replace(site, source=Frame(site.source.table.drop(index=list(rows))))


def training_rows(site: Site, many: int) -> list[int]:
    """Return the first rows of the site's own table that it trains on."""
    persons = set(site.read().training["person"])
    return [row for row, person in enumerate(site.source.table["person"]) if person in persons][:many]


def lines_of(site: Site) -> list[dict[str, object]]:
    return [dict(line.facts) for line in ledger_of(SiteFolder(site.name)).lines() if line.kind == "released"]


def test_a_study_over_one_row_less_is_refused_and_over_ten_less_is_not(site, answer):
    assert answer(site, "r1") == ""
    rows = training_rows(site, 10)
    for many in (1, 9):
        fewer = without(site, *rows[:many])
        assert answer(fewer, f"r-{many}") == CLOSE
        assert answer(fewer, f"r-{many}", kind=ENROL) == CLOSE
    assert may_leave(CLOSE, site)
    assert len(lines_of(site)) == 2  # the refused ones left nothing, and no line
    assert answer(without(site, *rows), "r-10") == ""
    assert [line["chosen"]["part"] for line in lines_of(site)] == ["training", "holdout"] * 2


def test_it_is_the_rows_that_count_and_not_what_chose_them(site, answer, tmp_path, monkeypatch):
    # The same table as a file in another order, with a decimal comma, and in a database behind a filter.
    path = tmp_path / "table.csv"
    table = site.source.table.sample(frac=1, random_state=2)
    table.assign(x1=[repr(cell).replace(".", ",") for cell in table["x1"]]).to_csv(path, sep=";", index=False)
    as_file = replace(site, source=Csv(str(path), separator=";"), mapping={"x1": Field("x1", decimal=",")})
    with sqlite3.connect(tmp_path / "table.db") as connection:
        site.source.table.to_sql("visits", connection, index=False)
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{tmp_path / 'table.db'}")

    def selected(where: str) -> Site:
        return replace(site, source=Sql(f"SELECT * FROM visits {where}"))

    assert answer(site, "r1") == ""
    assert answer(as_file, "r2") == ""
    assert answer(selected("ORDER BY x1"), "r3") == ""
    assert {line["rows-sha256"] for line in lines_of(site)} == {line["rows-sha256"] for line in lines_of(site)[:2]}
    one, *more = training_rows(site, 12)
    persons = site.source.table["person"]
    assert answer(selected(f"WHERE person <> '{persons[one]}'"), "r4") == CLOSE
    # One for another: neither more nor fewer, and refused all the same.
    stranger = site.source.table.copy()
    stranger.loc[one, "x1"] = 1.5
    swapped = replace(site, source=Frame(stranger))
    assert len(swapped.read().training) == len(site.read().training)
    assert answer(swapped, "r5") == CLOSE
    listed = ", ".join(f"'{persons[row]}'" for row in more)
    assert answer(selected(f"WHERE person NOT IN ({listed})"), "r6") == ""


def test_rows_that_a_study_leaves_out_for_their_gaps_differ_too(small_sites, small_study, answer):
    policy = Policy(outputs=("complete-rows",))
    for gaps, expected in ((4, CLOSE), (80, "")):
        own = small_sites(1, rows=300, policy=policy)[0]
        table = own.source.table.assign(x2=0.5, x1=np.linspace(1, 99, 300))
        table.loc[np.arange(gaps), "x2"] = np.nan
        own = replace(own, name=f"gaps-{gaps}", source=Frame(table))
        assert answer(own, "r1") == ""
        complete = small_study.replace("[model]", '[encode]\nrows = "complete"\n[model]')
        assert answer(own, "r2", complete) == expected


def test_other_features_of_the_same_rows_are_the_same_set(site, small_study, answer):
    assert answer(site, "r1") == ""
    narrow = small_study.replace('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "colour"]\n[model]')
    assert narrow != small_study
    assert answer(site, "r2", narrow) == ""
    assert answer(without(site, training_rows(site, 1)[0]), "r3", narrow) == CLOSE
    assert len({line["rows-sha256"] for line in lines_of(site)}) == 2


def test_rows_kept_for_validation_are_sets_of_their_own(site, small_study, answer):
    apart = small_study.replace("l2 = 0.01", "l2 = 0.01\nvalidation = 0.3")
    assert answer(site, "r1", apart) == ""
    found = [line["chosen"] for line in lines_of(site)]
    assert [one["part"] for one in found] == ["training", "holdout", "fitted", "validation"]
    assert found[3] == {
        "part": "validation", "complete": [], "validation": 0.3, "seed": 7,
    }  # fmt: skip
    # A share that keeps a few more of the same rows apart tells of just these.
    more = apart.replace("0.3", "0.34")
    assert answer(site, "r2", more) == CLOSE
    assert answer(site, "r3", small_study) == ""


def test_a_set_is_released_as_often_as_the_policy_says_and_a_run_counts_once(site, small_study, answer):
    own = replace(site, policy=Policy(queries=2))
    side = SiteClient(lambda name, _: own)
    for run in ("r1", "r1", "r2"):
        assert answer(own, run, side=side) == ""
    assert [line["run"] for line in lines_of(own)] == ["r1", "r1", "r2", "r2"]
    said = "its policy lets 2 runs have sums over one set of rows, and 2 had them"
    assert answer(own, "r3", side=side) == said
    assert may_leave(said, own)
    # A run goes on, also in another process; another study over the same rows is one more.
    assert answer(own, "r2") == ""
    assert answer(own, "r4", small_study.replace("seed = 7", "seed = 8")) == said
    assert len(lines_of(own)) == 4


def test_one_name_for_several_studies_or_repeats_is_several_runs(site, small_study, answer, ask):
    own = replace(site, policy=Policy(queries=2))
    other, third = (small_study.replace("seed = 7", f"seed = {seed}") for seed in (8, 9))
    side = SiteClient(lambda name, _: own)
    assert [answer(own, "r1", text, side=side) == "" for text in ("", other, third, "")] == [True, True, False, True]
    more = replace(site, name="site-02", policy=Policy(queries=2))
    side = SiteClient(lambda name, _: more)
    replies = [ask(side, more.name, SUMMARISE, SummariseRequest(), small_study, run="r1", repeat=at) for at in range(3)]
    assert [reply.has_error() for reply in replies] == [False, False, True]
    assert [line["repeat"] for line in lines_of(more)] == [0, 0, 1, 1]


def test_enrolment_and_open_sites_write_nothing(site, answer, small_sites):
    assert answer(site, "r1", kind=ENROL) == ""
    # A key without a line would show a lost ledger, should the process end here.
    assert lines_of(site) == [] and not RowSets(SiteFolder(site.name), "small").key_file.exists()
    assert answer(without(site, training_rows(site, 1)[0]), "r2") == ""
    free = replace(small_sites(1, rows=200)[0], name="free")
    assert answer(free, "r1") == answer(without(free, 3), "r2") == ""
    assert not SiteFolder("free").root.exists()


def test_what_a_site_keeps_is_for_its_owner_alone_and_has_nothing_of_a_row(site, answer):
    assert answer(site, "r1") == ""
    kept = RowSets(SiteFolder(site.name), "small")
    files = [path for path in kept.folder.iterdir() if path.is_file()]
    sets = [path for path in files if "." not in path.name]
    assert {path.name for path in sets} == {line["rows-sha256"] for line in lines_of(site)}
    assert sum(len(path.read_bytes()) for path in sets) == 200 * 16
    # Beside each stands the same set by the source's rows, after what tells one from another.
    assert sorted(path.name[:64] for path in files) == sorted([path.name for path in sets] * 2)
    assert sum(len(path.read_bytes()) for path in files) == 2 * 200 * 16 + 2 * 32
    for path in (*files, kept.key_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert len(kept.key()) == 32
    assert kept.key() not in ledger_of(SiteFolder(site.name)).path.read_bytes()


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "open", "key open", "key gone", "another key", "ledger"])
def test_a_record_that_cannot_be_read_lets_nothing_leave(site, answer, harm: str):
    assert answer(site, "r1") == ""
    kept = RowSets(SiteFolder(site.name), "small")
    path = sorted(kept.folder.iterdir())[0]
    if harm in ("changed", "cut"):
        content = path.read_bytes()
        path.write_bytes(content[:-16] if harm == "cut" else bytes([content[0] ^ 1]) + content[1:])
    elif harm in ("gone", "key gone"):
        (path if harm == "gone" else kept.key_file).unlink()
    elif harm in ("open", "key open"):
        (path if harm == "open" else kept.key_file).chmod(0o644)
    elif harm == "another key":
        kept.key_file.write_bytes(b"x" * 32)
    else:
        ledger = kept.ledger.path
        ledger.write_bytes(ledger.read_bytes().replace(b'"part":"training"', b'"part":"trainers"'))
    assert answer(site, "r2") == UNREADABLE
    assert answer(site, "r2", kind=ENROL) == UNREADABLE
    assert may_leave(UNREADABLE, site)
    with pytest.raises(FlfedError):
        kept.released()


def test_sets_hold_where_the_ledger_was_begun_anew(site, answer):
    assert answer(site, "r1") == ""
    SiteFolder(site.name).ledger.unlink()
    assert answer(without(site, training_rows(site, 1)[0]), "r2") == CLOSE
    assert answer(site, "r3") == ""


def test_which_released_sets_have_a_person_in_common(site, answer):
    rows = training_rows(site, 60)
    for run, gone in (("r1", ()), ("r2", rows[:30])):
        assert answer(without(site, *gone), run) == ""
    kept = RowSets(SiteFolder(site.name), "small")
    (one, held), (other, same) = ([line["rows-sha256"] for line in lines_of(site)[at : at + 2]] for at in (0, 2))
    assert same == held
    with kept.ledger.lock() as ledger:
        sets = kept.all(kept.lines(ledger.backwards()), kept.key())
    assert sets[one].common(sets[other]) > 0 == sets[one].common(sets[held]) == sets[other].common(sets[held])


def sums(site: Site, text: str) -> tuple[float, float]:
    """Return how many training rows there are and the exact sum of x1: more than `institution` lets leave."""
    place = SiteSession(site, Study.parse(text))
    at = [column.name for column in place.layout.columns].index("x1")
    count, total, _ = place.exact_summary.moments[at]
    return float(count), float(total * 50 + count * 50)  # z = (x1 - 50) / 50, the middle and half of its range


def opt_out(site: Site, person: str) -> None:
    path = SiteFolder(site.name).excluded
    path.write_text(f"person\n{person}\n")
    path.chmod(0o600)


def test_who_opts_out_late_cannot_be_computed_from_the_sums_before_and_after(site, answer, small_study):
    folder = SiteFolder(site.name)
    gone = training_rows(site, 5)[4]
    person, value = site.source.table.loc[gone, ["person", "x1"]]
    freeze_first(folder, site)
    served = snapshot.load(site, folder.frozen)
    assert answer(served, "r1") == ""
    before = sums(served, small_study)
    opt_out(site, person)
    # Without the measure: one row less, and the difference of two sums is the value. So it is refused.
    snapshot.freeze(site, folder.frozen, Excluded.read(folder.excluded))
    naive = snapshot.load(site, folder.frozen)
    after = sums(naive, small_study)
    assert before[0] - after[0] == 1
    assert before[1] - after[1] == pytest.approx(value, abs=1e-9)
    assert answer(naive, "r2") == CLOSE
    # With it: nine others rest, so that ten are gone, and their sum is all that the difference gives.
    written = refresh(folder, site).write()
    assert (written.resting, written.rows) == (Resting(9, 9), 190)
    again = snapshot.load(site, folder.frozen)
    assert answer(again, "r3") == ""
    after = sums(again, small_study)
    assert before[0] - after[0] == 10
    rest = set(served.source.table["person"]) - set(again.source.table["person"]) - {person}
    of_rest = site.source.table.set_index("person").loc[sorted(rest), "x1"]
    assert len(rest) == 9
    assert before[1] - after[1] == pytest.approx(value + of_rest.sum(), abs=1e-9)
    # Any other way to add and subtract the two gives it no more: only with the naive ones is it a combination.
    everybody = site.source.table["person"]
    first, second, plain = (
        everybody.isin(SiteSession(one, Study.parse(small_study)).table.training["person"]).to_numpy(float)
        for one in (served, again, naive)
    )
    alone = (everybody == person).to_numpy(float)
    assert np.linalg.matrix_rank(np.stack([first, plain, alone])) == 2
    assert np.linalg.matrix_rank(np.stack([first, second, alone])) == 3
    # It stays so: refreshed once more, and once more after that, the same ones rest.
    for _ in range(2):
        assert not refresh(folder, site).changes


def test_new_rows_wait_until_there_are_enough_and_nothing_rests_where_nothing_was_released(site, answer):
    folder = SiteFolder(site.name)
    table = site.source.table
    assert freeze_first(folder, site).resting is None
    assert refresh(folder, without(site, 3)).prepared.resting is None
    assert answer(snapshot.load(site, folder.frozen), "r1") == ""
    came = pd.concat([table, table[:3].assign(x1=[1.0, 2.0, 3.0], person=["n1", "n2", "n3"])], ignore_index=True)
    waiting = refresh(folder, replace(site, source=Frame(came)))
    assert waiting.prepared.resting == Resting(3, 3)
    assert not waiting.changes
    free = replace(site, source=Frame(came), policy=Policy(disclosure="open"))
    assert refresh(folder, free).prepared.resting is None
