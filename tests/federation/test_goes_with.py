"""Which strategies go with which other settings of a study: the table of docs/methods.md, tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flfed import Study, registry
from flfed.errors import FlfedError, UsageError
from flfed.federation.server.run import run
from flfed.rows.data.policy import Policy
from flfed.study.tables import TREES
from tests.boosting import trees_study

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
SETTINGS: dict[str, dict[str, Any]] = {
    "secure sums": {"privacy.secure-aggregation": "on"}, "CKKS": {"privacy.secure-aggregation": "ckks"},
    "`record-dp`": {
        "privacy.name": "record-dp", "privacy.epsilon": 8.0, "privacy.delta": 1e-3, "plan.steps": 5, "plan.batch": 16,
    },
    "`site-dp`": {"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.5, "privacy.delta": 1e-3},
    "a codec": {"codec.name": "int8"},
    "part of the units": {"model.name": "mlp", "model.hidden": [4]},
}  # fmt: skip


def table() -> dict[str, dict[str, bool]]:
    """Return what the page says: by strategy and setting, whether they go together."""
    lines = PAGE.split("<!-- goes with -->\n")[1].split("\n\n")[0].splitlines()
    _, *heads = (cell.strip() for cell in lines[0].strip("|").split("|"))
    found = {}
    for line in lines[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for each in re.findall(r"`([a-z-]+)`", name):
            found[each] = {head: cell.startswith("yes") for head, cell in zip(heads, cells, strict=True)}
    return found


def test_the_page_has_every_strategy_and_setting():
    assert set(table()) == set(registry.names("strategy"))
    assert all(set(row) == set(SETTINGS) for row in table().values())


@pytest.mark.studies
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("strategy", registry.names("strategy"))
def test_what_the_page_says_goes_together_runs_and_what_does_not_is_refused(
    strategy: str, setting: str, small_sites: Any, small_study: str
):
    changes = {"strategy.name": strategy, "strategy.rounds": 2, **SETTINGS[setting]}
    part = setting == "part of the units"
    sites = small_sites(3, rows=80, policy=Policy(disclosure="open", resplit=True, width=0.5 if part else 1.0))
    if strategy == TREES:
        small_study, changes = trees_study(small_study), {} if part else SETTINGS[setting] | {"strategy.rounds": 2}
    if table()[strategy][setting]:
        done = run(Study.parse(small_study).replace({"strategy.rounds": 2} | changes), sites=sites)
        assert (done.status, done.report["rounds"], done.report["faults"]) == ("completed", 2, [])
        return
    with pytest.raises(FlfedError if part else UsageError) as refused:
        run(Study.parse(small_study).replace(changes), sites=sites)
    assert strategy in str(refused.value)
