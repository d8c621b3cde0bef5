"""Five hundred runs: the list opens within two seconds, and is sorted and filtered within one."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from flfed import run
from tests.browser import Window, opened, served

RUNS = 500
TRIES = 3
"""The best of so many counts: another program may have the machine."""
ALREADY = ("run_site", "metric", "comparison", "summary", "event", "sent", "audit")


def copy_runs(file: Path, count: int) -> None:
    """Add so many runs to a store: rows of its own runs under new ids and dates, each a series of its own."""
    with closing(sqlite3.connect(file)) as store, store:
        store.row_factory = sqlite3.Row
        known = store.execute("SELECT id, series_id FROM run ORDER BY id").fetchall()
        for number in range(count):
            old, series = known[number % len(known)]
            day, hour = 1 + number // 24 % 28, number % 24
            name = f"202601{day:02d}-{hour:02d}0000-{number:04x}"
            started = f"2026-01-{day:02d}T{hour:02d}:00:00.000Z"
            insert(store, "series", "id", series, {"id": name, "repeats": 1, "started": started})
            insert(store, "run", "id", old, {"id": name, "series_id": name, "repeat": 0, "started": started})
            for table in ALREADY:
                insert(store, table, "run_id", old, {"run_id": name})


def insert(store: sqlite3.Connection, table: str, key: str, old: str, changed: dict[str, object]) -> None:
    """Copy rows of a table with some columns changed, and under numbers of their own."""
    columns = [row["name"] for row in store.execute(f"PRAGMA table_info({table})")]
    columns = [name for name in columns if name != "id" or "id" in changed]
    taken = ", ".join("?" if name in changed else f'"{name}"' for name in columns)
    quoted = ", ".join(f'"{name}"' for name in columns)
    values = [changed[name] for name in columns if name in changed]
    store.execute(f"INSERT INTO {table} ({quoted}) SELECT {taken} FROM {table} WHERE {key} = ?", [*values, old])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with 500 runs of two shipped studies."""
    home = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLFED_HOME", str(home))
        patch.delenv("FLFED_STORE", raising=False)
        run("loan-default", repeats=3)
        run("preterm-birth")
    copy_runs(home / "runs.db", RUNS)
    return home


SORT = "document.querySelector('.flfed-runs th[data-column=gain] button').click()"
FILTER = """{
  const select = document.querySelector('.flfed-runs select[aria-label=Dataset]');
  select.value = 'loan-default';
  select.dispatchEvent(new Event('change'));
}"""
TEXT = """{
  const field = document.querySelector('.flfed-runs input[type=search]');
  field.value = 'loan 20260105';
  field.dispatchEvent(new Event('input'));
}"""
PAINTED = """async () => {
  const begun = performance.now();
  %s
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - begun) / 1000;
}"""
"""Seconds until a change is on the screen."""


def opens_in(window: Window) -> float:
    begun = time.perf_counter()
    window.page.goto(window.address)
    window.page.locator(".flfed-runs tbody tr").nth(49).wait_for()
    return time.perf_counter() - begun


@pytest.mark.browser
@pytest.mark.proof
@pytest.mark.alone
def test_a_list_of_500_runs_opens_within_two_seconds_and_is_sorted_and_filtered_within_one(many: Path):
    first, again = [], []
    changes: dict[str, list[float]] = {SORT: [], FILTER: [], TEXT: []}
    for _ in range(TRIES):
        # An app of its own each time, which has read nothing yet.
        with served({"FLFED_STORE": f"sqlite:///{many}/runs.db", "FLFED_HOME": str(many)}) as address:
            with opened(address) as window:
                first.append(opens_in(window))
                assert window.page.locator(".flfed-runs [role=status]").inner_text() == f"{RUNS + 2} of {RUNS + 2} runs"
                for change, seconds in changes.items():
                    seconds.append(window.page.evaluate(PAINTED % change))
                listed = window.page.locator(".flfed-runs tbody [data-column=study] small").all_inner_texts()
                assert listed and all(name.startswith("20260105") for name in listed)
            with opened(address) as window:
                again.append(opens_in(window))
    figures = {"first": first, "again": again, "sort": changes[SORT], "filter": changes[FILTER], "text": changes[TEXT]}
    print({name: [round(value, 2) for value in seconds] for name, seconds in figures.items()})
    assert min(first) <= 2 and min(again) <= 2
    assert all(min(seconds) <= 1 for seconds in changes.values())
