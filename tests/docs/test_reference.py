"""The references in docs/reference: each key of each file with type, default, meaning and example, as in the code."""

from __future__ import annotations

import doctest
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pandas as pd
import pytest
from pydantic import Field

import flfed
from docs.make import reference
from docs.make.keys import REQUIRED, Key, Undocumented, check_example, keys_of, type_in_words
from flfed import UsageError, registry
from flfed.rows.data.datasets import SourceDescription, SourceFile
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema
from flfed.study import study as studies
from flfed.study.analysis import Analysis
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.study.tables import Expectation, Expected

LISTED = [registry.load(kind, name) for kind in studies.KINDS.values() for name in registry.names(kind)]
FILES = (
    *studies._TABLES.values(), *studies._NESTED.values(), *LISTED, Analysis, Policy, Schema, Column, SourceDescription,
    SourceFile,
)  # fmt: skip
MINIMAL = """
format = 1
name = "least"
purpose = "Test"
legal-basis = "none needed"
[dataset]
name = "wine"
[model]
name = "logistic"
[strategy]
name = "fedavg"
"""


def test_the_pages_are_what_the_code_says():
    assert reference.stale() == [], "write them anew: make docs"


@pytest.mark.parametrize("name", sorted(flfed.__all__))
def test_the_example_of_every_public_name_runs(name: str):
    page = (reference.FOLDER / "python" / f"{name}.md").read_text(encoding="utf-8")
    example = page.partition("```pycon\n")[2].partition("```")[0]
    test = doctest.DocTestParser().get_doctest(example, {}, name, None, 0)
    assert len(test.examples) >= 2 and name.lower() in example.lower()
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert results.failed == 0


class Warm(Plan, where="[plan]", frozen=True):
    """Plan with a key more.

    Attributes
    ----------
    warmup : int, >= 0
        Rounds in which the learning rate rises. Example: `warmup = 3`.
    """

    warmup: Annotated[int, Field(ge=0)] = 0


class Silent(Plan, where="[plan]", frozen=True):
    """Plan with a key that nothing is said of."""

    warmup: int = 0


class WithoutExample(Plan, where="[plan]", frozen=True):
    """Plan with a key that has no example.

    Attributes
    ----------
    warmup : int
        Rounds in which the learning rate rises.
    """

    warmup: int = 0


def test_a_new_key_makes_the_page_stale_until_it_is_written_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(studies._TABLES, "plan", Warm)
    assert reference.stale() == ["study.md"]
    row = "| `warmup` | whole number, >= 0 | `0` | Rounds in which the learning rate rises. | `warmup = 3` |"
    assert row in reference.study_page()


@pytest.mark.parametrize(("plan", "lacks"), [(Silent, "meaning"), (WithoutExample, "example")])
def test_a_new_key_without_meaning_or_example_is_refused(
    plan: type, lacks: str, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setitem(studies._TABLES, "plan", plan)
    with pytest.raises(Undocumented, match=f"{plan.__name__}.warmup has no {lacks}"):
        reference.pages()


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)
def test_every_example_of_a_file_is_a_line_that_the_key_takes(kind: type):
    for key in keys_of(kind):
        check_example(key)


@pytest.mark.parametrize("kind", [Expected, Expectation], ids=lambda kind: kind.__name__)
def test_every_example_of_an_expected_figure_is_a_line_that_the_key_takes(kind: type):
    keys = keys_of(kind, without=("path", "figures"))
    assert len(keys) >= 1
    for key in keys:
        check_example(key)


@pytest.mark.parametrize("example", ["lr = -1.0", 'lr = "fast"', "rate = 0.1"])
def test_a_wrong_example_is_found(example: str):
    lr = next(key for key in keys_of(Plan) if key.name == "lr")
    with pytest.raises((Undocumented, ValueError)):
        check_example(Key(lr.name, lr.hint, lr.default, lr.meaning, example))


def adults_only(table: pd.DataFrame) -> pd.DataFrame:
    return table[pd.to_numeric(table["age"]) >= 18]


@pytest.mark.parametrize("kind", reference.SITE_CLASSES, ids=lambda kind: kind.__name__)
def test_every_example_of_a_site_is_an_argument_that_its_class_takes(kind: type):
    words = {name: getattr(flfed, name) for name in flfed.__all__} | {"df": pd.DataFrame({"x": [1]}), "Path": Path}
    words["adults_only"] = adults_only
    keys = keys_of(kind, python=True)
    needed = [key.example for key in keys if key.default is REQUIRED]
    for key in keys:
        arguments = ", ".join([*(one for one in needed if one != key.example), key.example])
        made = eval(f"{kind.__name__}({arguments})", words)
        given = eval(key.example.partition("=")[2], words)
        assert len(made.table) == 1 if key.name == "table" else getattr(made, key.name) == given


def test_every_key_that_a_study_may_have_is_on_its_page():
    text = reference.study_page()
    with pytest.raises(UsageError) as refused:
        Study.parse("nonsense = 1")
    top = re.split(", ", str(refused.value).partition("Allowed: ")[2])
    assert len(top) == 18
    for key in top:
        assert f"| `{key}` |" in text or f"## [{key}]" in text or f"| `{key}." in text, key
    for name in ("dataset", "split", "encode", "plan", "compare"):
        with pytest.raises(UsageError) as refused:
            Study.parse(f"{MINIMAL}\n[{name}]\nnonsense = 1".replace('[dataset]\nname = "wine"', "", name == "dataset"))
        part = text.partition(f"\n## [{name}]\n")[2].partition("\n## ")[0]
        allowed = str(refused.value).partition("Allowed: ")[2].split(", ")
        assert [key for key in allowed if f"| `{key}` |" not in part] == []
    analysis = text.partition('\n### [statistic] with name = "summary"\n')[2]
    assert [field.name for field in fields(Analysis) if f"| `{field.name}` |" not in analysis] == []


def test_the_defaults_of_the_top_keys_are_those_of_a_study_without_them():
    study, defaults = Study.parse(MINIMAL), {key.name: key.default for key in reference.top_keys()}
    assert (study.seed, study.expires, study.rounds) == (defaults["seed"], defaults["expires"], 1) == (0, None, 1)
    assert defaults["name"] is REQUIRED and reference._study_key("rounds").default == 1


def test_types_and_ranges_are_told_in_words():
    assert type_in_words(Annotated[float | None, Field(gt=0, lt=1)]) == "number, in (0, 1)"
    assert type_in_words(tuple[str, ...] | None) == "list of texts"
    lr, batch = (next(key for key in keys_of(Plan) if key.name == name) for name in ("lr", "batch"))
    assert (lr.row()[1], lr.row()[2], batch.row()[1]) == (
        "number, > 0", "`0.05`", "whole number, >= 0; 0 means all rows",
    )  # fmt: skip


def test_every_command_is_on_its_page_with_its_example():
    text = reference.commands_page()
    headings = re.findall(r"^## (flfed .*)$", text, flags=re.MULTILINE)
    assert len(headings) > 40 and "flfed site budget" in headings and "flfed data new" in headings
    for heading in headings:
        part = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        assert f"$ {heading}" in part and f"Example: `{heading}" in part, heading


def test_every_public_name_is_on_the_page_on_python():
    text = reference.python_page()
    assert sorted(re.findall(r"^\| \[(\w+)\]\(python/\1\.md\)", text, flags=re.MULTILINE)) == flfed.__all__
    assert "## Result.gains" in reference.name_page("Result")
