"""The listing: names without imports, and one class a file."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flfed import registry
from flfed.errors import UsageError
from flfed.records.statistics.verdict import better_of
from flfed.registry import kebab, load, names, public_class, snake


@hypothesis_settings(deadline=None)
@given(st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5}){0,3}", fullmatch=True))
def test_kebab_and_snake_undo_each_other(key):
    assert kebab(snake(key)) == key


@pytest.mark.parametrize("kind", list(registry.FOLDERS))
def test_every_name_loads_one_class_of_its_own_file(kind):
    for name in names(kind):
        found = load(kind, name)
        assert isinstance(found, type)
        *folder, file = found.__module__.split(".")
        assert ".".join(folder).startswith(registry.FOLDERS[kind]) and file == snake(name)


def test_names_are_listed_without_importing_any_of_them():
    code = (
        "import sys; from flfed.registry import FOLDERS, names; [names(kind) for kind in FOLDERS]; "
        "print(*[m for m in sys.modules if m.startswith(('flfed.rows', 'flfed.updates')) or m in ('torch', 'flwr')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_name_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"strategy 'fedvag' is not known; did you mean 'fedavg'\? Known: .*fedavg"):
        load("strategy", "fedvag")


@pytest.mark.parametrize("classes", [0, 2])
def test_a_file_with_not_one_public_class_is_refused(classes):
    module = types.ModuleType("plugin.file")
    for number in range(classes):
        setattr(module, f"Thing{number}", type(f"Thing{number}", (), {"__module__": "plugin.file"}))
    module._private = type("_Private", (), {"__module__": "plugin.file"})
    module.imported = UsageError
    with pytest.raises(UsageError, match=f"must define one public class, it defines {classes}"):
        public_class(module)


def install(folder: Path, package: str, entry_points: str, **modules: str) -> None:
    """Put an installed package of a few modules into a folder of the path."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package that brings a strategy of its own, and one that calls itself fedavg."""
    install(
        tmp_path, "their-package",
        "[flfed.strategy]\ntheirs = their_package:Theirs\nfedavg = their_package:Impostor\n",
        their_package="class Theirs:\n    '''Source: theirs.'''\n\nclass Impostor: pass\n",
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)


def test_an_installed_package_adds_a_strategy_by_entry_point(plugin):
    assert names("strategy").count("theirs") == 1
    assert load("strategy", "theirs").__name__ == "Theirs"


def test_a_class_of_another_package_has_its_description_in_the_list_without_an_import(tmp_path, monkeypatch, flfed):
    text = "import no_such\nclass _Own: pass\nclass Whole:\n    '''Counts whole rows.\n\n    Source: 1.'''\n"
    points = "[flfed.codec]\nby-class = whole_rows:Whole\nby-file = whole_rows\nabsent = no_such_file:Whole\n"
    install(tmp_path, "whole-rows", points, whole_rows=text)
    monkeypatch.syspath_prepend(tmp_path)
    described = {name: registry.describe("codec", name) for name in ("by-class", "by-file", "absent")}
    assert described == {"by-class": "Counts whole rows.", "by-file": "Counts whole rows.", "absent": ""}
    assert "by-class (whole-rows 1.0)  Counts whole rows." in " ".join(flfed("study", "list")[1].split("\n"))


def test_an_installed_package_cannot_take_the_name_of_one_of_ours(plugin):
    assert names("strategy").count("fedavg") == 1
    assert load("strategy", "fedavg").__name__ == "FedAvg"
    sentence = "strategy 'fedavg' is not used, since flfed has that name; rename it"
    assert registry.clashes("strategy") == [f"their-package 1.0: {sentence}"]
    assert registry.others("strategy") == {"theirs": "their-package 1.0"}


@pytest.mark.parametrize("kind", ["strategy", "model", "metric", "codec", "split"])
def test_every_kind_may_come_from_another_package_as_a_class_or_as_the_file_that_defines_it(
    kind, tmp_path, monkeypatch
):
    names_ = f"[flfed.{kind}]\nby-class = {kind}_a:Thing\nby-file = {kind}_b\n"
    modules = {f"{kind}_{letter}": "class Thing: pass\n" for letter in "ab"}
    install(tmp_path, "their-things", names_, **modules)
    monkeypatch.syspath_prepend(tmp_path)
    assert {"by-class", "by-file"} <= set(names(kind))
    assert [load(kind, name).__module__ for name in ("by-class", "by-file")] == sorted(modules)
    assert len(registry.others(kind)) == 2 and registry.clashes(kind) == []


@pytest.mark.parametrize(("name", "better"), [("cost_loss", "lower"), ("gini", "higher")])
@pytest.mark.parametrize("as_named", [True, False])
def test_a_metric_whose_direction_is_not_that_of_its_name_is_refused(name, better, as_named, tmp_path, monkeypatch):
    # Verdicts go by the name: a cost that falls by joining would be called a loss.
    said = better if as_named else {"lower": "higher", "higher": "lower"}[better]
    text = f"class Cost:\n    better = {said!r}\n"
    install(tmp_path, "their-metric", f"[flfed.metric]\n{name} = their_metric:Cost\n", their_metric=text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_metric", raising=False)
    if as_named:
        assert load("metric", name).better == said == better_of(name)
    else:
        with pytest.raises(
            UsageError, match=f"metric '{name}' of their-metric 1.0: better='{said}' does not fit its name"
        ):
            load("metric", name)


@pytest.mark.parametrize(("target", "said"), [
    ("absent_module:Thing", "cannot be imported (ModuleNotFoundError: No module named 'absent_module')"),
    ("their_code:Absent", "cannot be imported (AttributeError: module 'their_code' has no attribute 'Absent')"),
    ("their_code:number", "their_code:number is no class"),
    ("their_failure:Thing", "cannot be imported (ZeroDivisionError: division by zero)"),
    ("their_code", "their_code must define one public class, it defines 2"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_one_sentence_with_its_package(target, said, tmp_path, monkeypatch):
    code = "number = 3\nclass One: pass\nclass Two: pass\n"
    points = f"[flfed.model]\ntheirs = {target}\n"
    install(tmp_path, "their-package", points, their_code=code, their_failure="1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_code", raising=False)
    assert "theirs" in names("model")  # listing imports nothing
    with pytest.raises(UsageError) as refused:
        load("model", "theirs")
    assert str(refused.value) in (f"model 'theirs' of their-package 1.0: {said}", said)


def test_two_packages_with_one_name_are_told_apart_by_neither(tmp_path, monkeypatch):
    for package in ("first-package", "second-package"):
        install(tmp_path, package, "[flfed.metric]\ngini = their_gini:Gini\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert names("metric").count("gini") == 1
    with pytest.raises(UsageError, match="several packages .first-package 1.0 and second-package 1.0.: uninstall all"):
        load("metric", "gini")
