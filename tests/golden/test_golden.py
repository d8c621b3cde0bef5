"""What others rely on is as it was: commands' JSON, messages' bytes, files, tables, the arrays of shipped studies."""

import json
from typing import Any

import pytest

from tests.golden.golden_files import GOLDEN, HERE, another_home, differences

pytestmark = [pytest.mark.slow, pytest.mark.studies]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Everything made anew, as JSON has it."""
    with another_home():
        return {name: json.loads(json.dumps(make())) for name, make in GOLDEN.items()}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_others_rely_on_is_as_it_was(name: str, made: dict[str, Any]):
    kept, now = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")), made[name]
    if name == "arrays":  # to the last bit on a processor of the same kind
        kept = {kind: kept.get(kind, of) for kind, of in now.items()}
    assert differences(kept, now) == []


def test_a_difference_is_found_wherever_it_is():
    kept = {"a": [1.0, {"b": "x"}], "c": None}
    assert differences(kept, {"a": [1.0 + 1e-9, {"b": "x"}], "c": None}) == []
    for other in ({"a": [1.001, {"b": "x"}], "c": None}, {"a": [1.0, {"b": "y"}], "c": None}, {"a": [1.0], "c": None},
                  {"a": [1.0, {"b": "x", "d": 1}], "c": None}, {"a": [1.0, {"b": "x"}]}, {"a": kept["a"], "c": 0},
                  {"a": [True, {"b": "x"}], "c": None}):  # fmt: skip
        assert len(differences(kept, other)) == 1, other
