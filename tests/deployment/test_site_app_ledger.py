"""What the app of a site reads of its ledger."""

import pytest

from flfed.deployment.site_app.ledger_reader import MOST_LINES, read_ledger
from flfed.deployment.site_state.ledger_restart import restart
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Totals

LINES = MOST_LINES + 10


@pytest.fixture
def folder(home: object) -> SiteFolder:
    """A site with a ledger of more lines than are kept one by one, that was begun anew."""
    folder = SiteFolder("site-01")
    folder.make()
    restart(folder, by="Dr Kim", why="a disk broke", epsilon=3.0)
    with ledger_of(folder).lock() as locked:
        for n in range(LINES - 1):
            kind, study = ("train", "evaluate", "refused")[n % 3], f"study-{n % 7 % 3}"
            line = locked.append(kind=kind, study=study, run="r1", round=n, bytes=100 + n)
            locked = locked.grown(len(line.raw) + 1)
    return folder


def test_its_sums_are_those_of_the_command_and_its_last_lines_are_kept(folder: SiteFolder):
    summary, totals = read_ledger(folder), Totals()
    for line in ledger_of(folder).lines():
        totals.add(line)
    assert (summary.lines, summary.problems, summary.blocked) == (LINES, [], "")
    assert sum(total.bytes for total in summary.sums.values()) == totals.all.bytes == summary.bytes
    assert len(summary.last["", ""]) == MOST_LINES and summary.last["", ""][-1].n == LINES
    assert summary.restarted.endswith("by Dr Kim: a disk broke")


def test_of_a_changed_ledger_there_are_no_sums_and_of_a_lost_one_it_is_said(folder: SiteFolder):
    whole = folder.ledger.read_bytes()
    folder.ledger.write_bytes(whole.replace(b'"round":5,', b'"round":6,', 1))
    summary = read_ledger(folder)
    assert len(summary.problems) == 1 and not summary.sums and not summary.last
    folder.ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:-2]))
    summary = read_ledger(folder)
    assert summary.problems == [] and summary.blocked.startswith("its ledger is lost or was cut")
    folder.ledger.chmod(0o644)
    assert len(read_ledger(folder).problems) == 1
