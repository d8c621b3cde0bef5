"""What an audit found, in the store: added to, read back by the latest, and never mixed with another run's."""

import datetime
import json
import math
from collections.abc import Iterator

import pytest

from flfed.errors import UsageError
from flfed.records.store.entries import AuditRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore

SAID = {"promise": 0.73, "verdict": "within the promise", "says": "Close to chance.", "method": "DeLong", "rows": 90}


@pytest.fixture
def store() -> Iterator[RunStore]:
    hours = iter(range(24))

    def clock() -> datetime.datetime:
        return datetime.datetime(2026, 11, 20, next(hours), tzinfo=datetime.UTC)

    with RunStore.open(clock=clock) as opened:
        yield opened


def begun(store: RunStore) -> str:
    series = store.begin_series(study="s", study_sha256="0" * 64, study_text="")
    facts = {"engine": "inprocess", "path": "stacked", "primary": "roc_auc_score", "task": "binary"}
    return store.begin_run(series, seed=1, rounds_planned=1, **facts).run


def test_the_latest_figure_of_each_attack_site_and_metric_is_read_and_earlier_ones_stay(store):
    run, other = begun(store), begun(store)
    first = [AuditRow("membership", site, "auc", 0.5 + n / 10, 0.4, 0.7, SAID) for n, site in enumerate("ba")]
    store.audit(run, [*first, AuditRow("inversion", "a", "share", 1.0, 0.9, 1.0, SAID)])
    store.audit(other, [AuditRow("membership", "a", "auc", 0.99)])
    store.audit(run, [AuditRow("membership", "a", "auc", 0.55, 0.5, 0.6, SAID | {"rows": 91})])
    with RunReader.open() as reader:
        found = reader.audits(run)
        assert [(e.attack, e.site, e.value) for e in found] == [
            ("inversion", "a", 1.0), ("membership", "a", 0.55), ("membership", "b", 0.5),
        ]  # fmt: skip
        assert found[1].at > found[2].at == found[0].at
        assert found[1].payload["rows"] == 91
        assert [e.value for e in reader.audits(other)] == [0.99]
        assert reader.audits("none") == []


def test_what_is_not_finite_is_null_in_the_store_and_in_the_object(store):
    run, nan = begun(store), math.nan
    row = AuditRow("membership", None, "auc", nan, nan, math.inf, SAID | {"promise": nan})
    store.audit(run, [row])
    with RunReader.open() as reader:
        [found] = reader.audits(run)
    assert (found.site, found.value, found.low, found.high, found.payload["promise"]) == (None, None, None, None, None)
    figures = {"attack": "membership", "site": None, "metric": "auc", "value": None, "low": None, "high": None}
    expected = figures | SAID | {"promise": None}
    assert json.loads(json.dumps(row.as_object(), allow_nan=False)) == expected
    assert found.as_object() == expected | {"at": found.at}
    assert len(found.at) == 24


def test_a_run_that_is_not_there_gets_no_audit(store):
    begun(store)
    with pytest.raises(UsageError, match="'20990101-0000' is not in the store"):
        store.audit("20990101-0000", [AuditRow("membership", "a", "auc", 0.5)])
