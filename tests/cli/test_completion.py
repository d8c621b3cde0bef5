"""What a shell is offered for the words of a command, and that it loads next to nothing for it."""

import os
import subprocess
import sys

import pytest

from flfed import Study, run

CALL = """
import sys
sys.argv = ["flfed"]
from flfed.cli import main
try:
    main()
finally:
    heavy = {"torch", "flwr", "sklearn", "streamlit", "pandas", "numpy"} & set(sys.modules)
    print("HEAVY", *sorted(heavy), file=sys.stderr)
"""


def offered(words: str, **environment: str) -> list[str]:
    """Return what bash is offered where the cursor stands behind these words."""
    place = len(words.split()) - (not words.endswith(" "))
    asked = {"_FLFED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=os.environ | asked | environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "HEAVY", done.stderr
    return done.stdout.split()


OFFERED = {
    "flfed run l": {"list"}, "flfed study run stroke-o": {"stroke-outcome", "stroke-outcome-by-hospital"},
    "flfed study check card-": {"card-fraud"}, "flfed data get heart": {"heart-disease", "heart-flamby"},
    "flfed site ledger cle": {"cleveland"}, "flfed site snapshot kentucky": {"kentucky-clinic"},
    "flfed run show nothing-like": set[str](), "flfed run list --fo": {"--format"},
}  # fmt: skip


@pytest.mark.parametrize("words", OFFERED)
def test_commands_options_studies_datasets_and_sites_are_offered(words: str):
    assert set(offered(words)) == OFFERED[words]


def test_a_sites_and_a_datasets_package_in_a_folder_of_ones_own_is_offered_and_not_imported(tmp_path):
    (tmp_path / "sites" / "my_ward").mkdir(parents=True)
    (tmp_path / "sites" / "my_ward" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "datasets" / "my-data").mkdir(parents=True)
    (tmp_path / "datasets" / "my-data" / "schema.toml").write_text("")
    assert offered("flfed site check my-w", FLFED_PATH=str(tmp_path)) == ["my-ward"]
    assert offered("flfed data get my-", FLFED_PATH=str(tmp_path)) == ["my-data"]


def test_runs_are_offered_and_of_repeats_each_once_the_series_is_typed(home):
    name = run(Study.load("breast-cancer").replace({"rounds": 1, "resamples": 200}), repeats=2).run
    assert offered("flfed run show ") == ["latest", name]
    assert offered("flfed study resume lat") == ["latest"]
    assert set(offered(f"flfed run delete {name}-r")) == {f"{name}-r01", f"{name}-r02"}


def test_a_store_that_cannot_be_read_offers_nothing_and_says_nothing(tmp_path):
    (tmp_path / "runs.db").write_text("no database, but more than a header's hundred bytes of text" * 4)
    assert offered("flfed run show 2", FLFED_STORE=f"sqlite:///{tmp_path}/runs.db") == []


def test_completion_is_installed_for_the_shell_that_asks(tmp_path):
    words = [sys.executable, "-c", "import sys; sys.argv[0] = 'flfed'; from flfed.cli import main; main()"]
    home = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [*words, "--install-completion", "bash"], env=home, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    script = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "_FLFED_COMPLETE=complete_bash" in script
