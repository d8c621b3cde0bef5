"""An institution's commands run the package that was named, and none that another account could change."""

import os
import stat
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.packages import changeable, check_package, roots, strictly
from flfed.rows.data import site_discovery as sites

PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(name="{name}", dataset="wine", source=Csv("rows.csv"), holdout=Holdout(salt="s"))
"""
OTHER = 64401
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
Said = tuple[int, str, str]


def package(root: Path, name: str) -> Path:
    folder = root / "sites" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE.format(name=name))
    for place in (root, folder.parent, folder):
        place.chmod(0o755)
    return folder


@pytest.mark.parametrize("words", ["status", "serve", "app", "refresh", "budget", "pause"])
def test_a_package_in_the_current_folder_has_to_be_named(words, flfed, tmp_path, monkeypatch):
    (package(tmp_path, "ward") / "__init__.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    code, out, said = flfed("site", words, "ward")
    assert (code, out) == (2, "")
    assert said == (
        "flfed: site 'ward' is not known: sites/ward in the current folder is ignored; "
        "to use it: FLFED_PATH=$PWD flfed …\n"
    )


def test_named_it_is_found_and_other_commands_find_it_unnamed(flfed, tmp_path, monkeypatch):
    package(tmp_path, "ward")
    monkeypatch.chdir(tmp_path)
    assert "ward" in flfed("site", "list")[1]
    assert tmp_path in roots()
    with strictly():
        assert tmp_path not in roots()
        with pytest.raises(UsageError, match=r"FLFED_PATH=\$PWD"):
            sites.load("ward")
        monkeypatch.setenv("FLFED_PATH", str(tmp_path))
        assert sites.load("ward").folder == tmp_path / "sites" / "ward"
    assert flfed("site", "status", "ward")[0] == 0


def test_one_of_the_same_name_in_the_current_folder_is_told_of_and_not_run(flfed, tmp_path, monkeypatch):
    (package(tmp_path, "cleveland") / "__init__.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    code, out, said = flfed("site", "status", "cleveland")
    assert (code, out.splitlines()[0]) == (0, "cleveland: has not joined yet")
    assert said.startswith("sites/cleveland in the current folder is ignored; to use it: FLFED_PATH=$PWD")


@needs_root
@pytest.mark.parametrize(("place", "owner", "mode", "says"), [
    ("sites/ward", 0, 0o777, "every account may write there (mode 777): chmod go-w"),
    ("sites/ward/__init__.py", 0, 0o666, "every account may write there (mode 666): chmod go-w"),
    ("sites/ward/__pycache__/x.pyc", 0, 0o666, "every account may write there"),
    ("sites/ward/policy.toml", OTHER, 0o600, f"belongs to account {OTHER}: chown it to account root"),
    ("sites", OTHER, 0o755, f"belongs to account {OTHER}"), (".", 0, 0o777, "every account may write there"),
    (".", OTHER, 0o1777, f"belongs to account {OTHER}"),
    ("sites/ward", 0, 0o775, "its group, with other accounts, may write there (mode 775): chmod g-w"),
])  # fmt: skip
def test_a_package_that_another_account_could_change_is_refused(place, owner, mode, says, flfed, tmp_path, monkeypatch):
    root = tmp_path / "root"
    folder = package(root, "ward")
    (folder / "__pycache__").mkdir()
    for name in ("__pycache__/x.pyc", "policy.toml"):
        (folder / name).write_text("")
        (folder / name).chmod(0o644)
    (folder / "policy.toml").write_text("format = 1\n")
    monkeypatch.setenv("FLFED_PATH", str(root))
    assert flfed("site", "status", "ward")[0] == 0
    os.chown(root / place, owner, OTHER)
    (root / place).chmod(mode)
    code, out, said = flfed("site", "status", "ward")
    assert (code, out) == (2, "")
    assert said.startswith(f"flfed: {root / place}: {says}") and said.count("\n") == 1
    assert flfed("site", "list")[0] == 0  # which runs no consortium


@needs_root
def test_a_link_is_no_better_than_where_it_leads(tmp_path: Path):
    folder = package(tmp_path / "root", "ward")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "more.py").write_text("")
    os.chown(elsewhere, OTHER, OTHER)
    with strictly():
        check_package(folder)
        (folder / "more.py").symlink_to(elsewhere / "more.py")
        with pytest.raises(UsageError, match=f"{elsewhere}: belongs to account {OTHER}"):
            check_package(folder)
    check_package(folder)


@needs_root
def test_a_sticky_folder_and_a_group_of_ones_own_are_no_hindrance(tmp_path: Path):
    tmp_path.chmod(0o1777)
    assert changeable(tmp_path) == ""
    tmp_path.chmod(0o770)
    assert tmp_path.stat().st_gid == 0 and stat.S_IMODE(tmp_path.stat().st_mode) == 0o770
    assert changeable(tmp_path) == ""  # root's own group, which bears its name


def test_a_dataset_in_the_current_folder_has_to_be_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from flfed.rows.data import datasets

    folder = tmp_path / "datasets" / "ours"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text("format = 1\n")
    monkeypatch.chdir(tmp_path)
    with strictly(), pytest.raises(UsageError, match="'ours' is not known: datasets/ours in the current folder"):
        datasets.load("ours")
    with pytest.raises(UsageError, match=r"datasets/ours/schema.toml"):
        datasets.load("ours")
