"""`flfed site map`: a dialogue in a real terminal, killed and continued, and answered by a file."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from flfed.paths import SiteFolder
from flfed.rows.data import datasets
from flfed.rows.proposals.texts import replace_mapping
from tests.foreign_tables import write_export
from tests.rows.test_foreign_exports import CLINIC, ODD, TOKEN, mapped_rows, more_columns
from tests.terminal import STYLE, in_terminal

Command = Callable[..., tuple[int, str, str]]
STORED = "mapping-answers.toml"
JOINT, CP, SLOPE = "yes\n", "1, 2, 3, 4\n", "a, h, d\n"
"""Answers to the three questions about the table."""
LIKELY = {
    "trestbps": "RR syst. Ruhe", "fbs": "BZ nuechtern > 120", "thalach": "Maximalpuls", "exang": "AP unter Belastung",
    "disease": "KHK",
}  # fmt: skip
"""Columns of the joint question."""
COLUMNS = "[columns]\n" + "".join(f'{name} = "{own}"\n' for name, own in LIKELY.items())


@pytest.fixture
def clinic(tmp_path: Path, heart: datasets.Dataset, flfed: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hospital's table and the package that `flfed site new` writes for it."""
    rows = mapped_rows("heart-disease")
    write_export(rows, CLINIC, tmp_path / "clinic.csv", more_columns(len(rows)))
    monkeypatch.chdir(tmp_path)
    code, out, err = flfed("site", "new", "clinic", "--from", "clinic.csv", "--dataset", "heart-disease")
    assert code == 0 and "flfed site map clinic" in out, err
    assert TOKEN not in out and ODD not in out
    return tmp_path


def package(folder: Path) -> Path:
    return folder / "sites/clinic/__init__.py"


def secrets(text: str) -> list[str]:
    """Return which cells stand in a text, of those that nobody types."""
    cells = [TOKEN, ODD, "Zimmer", "unauffällig", "700003"]
    return [cell for cell in cells if cell in text]


def test_a_dialogue_maps_a_table_and_shows_its_check(clinic: Path):
    before = package(clinic).read_text()
    typed = (
        JOINT
        + "1, 2, 3, X\n1, 2, 3\n"
        + CP
        + SLOPE
        + "ca=Nothing\nca=Wert\nca=-\nsex=RR diast.\ncp=Brustschmerz\n"
        + CP
        + "y\n"
    )
    code, lines = in_terminal("site", "map", "clinic", columns=120, typed=typed)
    shown = "\n".join(lines)
    assert code == 0, shown
    assert secrets(shown) == []
    assert "1 of the 4 typed codes do not occur in your column 'Brustschmerz'" in shown
    assert "1 of the 4 codes of your column 'Brustschmerz' have no value" in shown
    # A column that was not found is named before the mapping is written, and taken back.
    assert "No answer: the column 'Nothing'" in shown or "Nothing" in shown
    assert re.search(r"^ca +Wert ", shown, re.M) is not None
    assert "column 'RR diast.' has other values, or too many, for the codes of 'sex'" in "".join(lines)
    assert "clinic fits" in shown and "12 of 13 features are mapped." in shown
    assert (clinic / "sites/clinic/__init__.py.before-1").read_text() == before
    text = package(clinic).read_text()
    assert '"2": "atypical-angina"' in text and "multiply=38.67" in text
    assert not (SiteFolder("clinic").gate / STORED).exists()
    # Once more, with another answer: the earlier mapping stays too, and its codes need not be typed again.
    code, lines = in_terminal("site", "map", "clinic", columns=120, typed="1\n-\ny\n")
    assert code == 2 and "is not in the table" in "\n".join(lines)
    assert "its codes are those of the present mapping" in "\n".join(lines)
    assert '"2": "atypical-angina"' in package(clinic).read_text()
    assert (clinic / "sites/clinic/__init__.py.before-2").read_text() == text


def test_a_code_among_numbers_is_proposed_and_asked_about(clinic: Path, flfed: Command):
    table = pd.read_csv("clinic.csv", sep=";", dtype=str, keep_default_na=False)
    pulse = table["Maximalpuls"].to_list()
    table["Maximalpuls"] = ["999"] * 12 + pulse[12:]
    table.to_csv("clinic.csv", sep=";", index=False)
    (clinic / "answers.toml").write_text(COLUMNS.replace('thalach = "Maximalpuls"\n', ""))
    code, out, err = flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert code == 2 and "questions are left, about columns (thalach)" in err
    typed = JOINT + "1\n" + CP + SLOPE + "y\n"
    code, lines = in_terminal("site", "map", "clinic", columns=400, typed=typed)
    shown = "\n".join(lines)
    assert code == 0 and 'which ten rows or more have, counts as "not known"' in shown and "999" not in shown
    assert 'Field("Maximalpuls", missing=("999",))' in package(clinic).read_text() and "clinic fits" in shown
    counts = re.search(r"^thalach +Maximalpuls +(\d+) +(\d+) +(\d+)", shown, re.M)
    assert counts is not None and int(counts[2]) >= 12 and counts[3] == "0"


def test_an_unwritten_mapping_leaves_the_package_and_holds_the_answers(clinic: Path):
    before = package(clinic).read_text()
    code, lines = in_terminal("site", "map", "clinic", columns=400, typed=JOINT + CP + SLOPE + "n\n")
    assert code == 2 and "nothing is written" in "\n".join(lines)
    assert package(clinic).read_text() == before and not list(clinic.glob("sites/clinic/*.before-*"))
    code, lines = in_terminal("site", "map", "clinic", columns=120, typed="y\n")
    assert code == 0 and "The answers of the unfinished dialogue hold" in "\n".join(lines)


class Dialogue:
    """A process of its own that talks to a terminal."""

    def __init__(self, *words: str) -> None:
        self.here, there = pty.openpty()
        command = [sys.executable, "-c", "from flfed.cli import main; main()", *words]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        # The terminal is the process's own, so that Ctrl-C reaches it.
        self.process = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.login_tty(there))
        os.close(there)
        self.shown = ""

    def wait_for(self, text: str, seconds: float = 120.0) -> None:
        """Read until a text is shown."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            ready, _, _ = select.select([self.here], [], [], 1.0)
            part = b""
            with suppress(OSError):  # the other end is closed once the process has ended
                part = os.read(self.here, 65536) if ready else b" "
            assert part, self.shown
            self.shown += STYLE.sub("", part.decode("utf-8", "replace"))

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.here, text.encode())

    def kill(self, how: int) -> int:
        os.killpg(self.process.pid, how)
        code = self.process.wait(60)
        os.close(self.here)
        return code


@pytest.fixture
def talk() -> Iterator[Callable[..., Dialogue]]:
    begun: list[Dialogue] = []

    def begin(*words: str) -> Dialogue:
        begun.append(Dialogue(*words))
        return begun[-1]

    yield begin
    for dialogue in begun:
        if dialogue.process.poll() is None:
            dialogue.kill(signal.SIGKILL)


def test_a_killed_dialogue_goes_on_where_it_was(clinic: Path, talk: Callable[..., Dialogue]):
    before = package(clinic).read_text()
    dialogue = talk("site", "map", "clinic")
    dialogue.wait_for("2: trestbps")
    assert "1: disease is read from KHK" in dialogue.shown
    dialogue.type(JOINT)
    dialogue.wait_for("for cp?")
    dialogue.type(CP)
    dialogue.wait_for("for slope?")
    assert dialogue.kill(signal.SIGKILL) == -signal.SIGKILL
    stored = SiteFolder("clinic").gate / STORED
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert secrets(stored.read_text() + dialogue.shown) == []
    assert set(re.findall(r'^"?(\w+)"? = "(.*)"$', stored.read_text(), re.MULTILINE)) == {
        *LIKELY.items(), ("1", "typical-angina"), ("2", "atypical-angina"), ("3", "non-anginal-pain"),
        ("4", "asymptomatic"),
    }  # fmt: skip
    assert package(clinic).read_text() == before
    # Ctrl-C at the next question loses nothing either.
    again = talk("site", "map", "clinic")
    again.wait_for("for slope?")
    assert "for cp?" not in again.shown
    again.wait_for("open.\r\n>")
    again.type("\x03")
    # A signal that comes just before Python's read begins is seen with the next key alone.
    with suppress(AssertionError):
        again.wait_for("continues with them", seconds=10)
    if "continues with them" not in again.shown:
        again.type("\x03")
    again.wait_for("continues with them")
    assert again.process.wait(60) != 0
    code, lines = in_terminal("site", "map", "clinic", columns=120, typed=SLOPE + "y\n")
    assert code == 0 and "clinic fits" in "\n".join(lines)


def test_scripts_answer_by_a_file_and_are_told_what_is_left(clinic: Path, flfed: Command):
    code, out, err = flfed("site", "map", "clinic", "--json")
    assert (code, out) == (2, "") and "columns (trestbps, fbs, thalach, exang, disease) and codes (cp, slope)" in err
    answers = clinic / "answers.toml"
    answers.write_text(COLUMNS + '[codes.cp]\n1 = "typical-angina"\n2 = "atypical-angina"\n')
    code, _, err = flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert code == 2 and "2 of the 4 codes of your column 'Brustschmerz' have no value" in err
    answers.write_text(answers.read_text() + '3 = "non-anginal-pain"\n4 = "asymptomatic"\n')
    code, _, err = flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert code == 2 and "columns (none) and codes (slope)" in err
    more = '[codes.slope]\na = "up"\nh = "flat"\nd = "down"\n'
    answers.write_text(answers.read_text() + more)
    code, out, err = flfed("site", "map", "clinic", "--answers", "answers.toml", "--json")
    assert code == 0, err
    written = json.loads(out)
    assert written["passed"] and written["earlier"].endswith(".before-1") and answers.exists()
    origins = {line["column"]: line["origin"] for line in written["columns"]}
    assert origins["disease"] == "answered" and origins["ca"] == "not-here" and origins["age"] == "sure"
    assert {line["column"]: line["mapped"] for line in written["preview"]}["age"] == "303"
    assert secrets(out + err) == []
    # The same answers give the same text, and no further copy of it.
    assert json.loads(flfed("site", "map", "clinic", "--answers", "answers.toml", "--json")[1])["earlier"] is None


@pytest.mark.parametrize(("text", "sentence"), [
    ('[columns]\nage = "Jahre"', "column 'age': your table has no single column 'Jahre'"),
    ('[columns]\nweight = "Alter"', "answers: dataset 'heart-disease' has no column 'weight'"),
    ('[columns]\nage = "Alter"\nca = "Alter"', "your column 'Alter' is read for 'ca' already"),
    ('[codes.cp]\n1 = "bad"', "1 of the typed values are none of column 'cp'"),
    ('[codes.cp]\nX = "asymptomatic"', "1 of the 1 typed codes do not occur in your column 'Brustschmerz'"),
    ('[columns]\nage = "Alter"\n[units.age]\nmultiply = 0', "multiply=0 would make every cell the same"),
    ("[unit]", "unit cannot be read"), ("columns = 3", "columns cannot be read: columns has a text for each column"),
    ("[columns]\nage = 3", "columns.age cannot be read"), ("[units.age]\nmultiply = true", "units.age cannot be read"),
    ('[codes.cp]\n"Jane Roe" = 3', "codes.cp cannot be read"), ("[units.age]\nadd = inf", "units.age cannot be read"),
    ("[columns", "is not valid TOML"),
])  # fmt: skip
def test_wrong_answers_are_refused_in_a_sentence(clinic: Path, flfed: Command, text: str, sentence: str):
    (clinic / "answers.toml").write_text(text)
    before = package(clinic).read_text()
    code, out, err = flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert code == 2 and sentence in err, err
    assert package(clinic).read_text() == before and secrets(out + err) == []


def test_all_else_in_a_package_stays_and_a_computed_mapping_is_not_replaced(clinic: Path, flfed: Command):
    answers = clinic / "answers.toml"
    codes = '[codes.cp]\n[codes.slope]\n[codes.disease]\n0 = "absent"\n1 = "present"\n'
    answers.write_text(COLUMNS + codes)
    text = package(clinic).read_text()
    package(clinic).write_text(text.replace("    holdout=", "    partial=True,  # for now\n    holdout="))
    flfed("site", "map", "clinic", "--answers", "answers.toml")
    written = package(clinic).read_text()
    assert "partial=True,  # for now\n" in written
    assert written.count('"?"') > 0 and "each is one of: typical-angina" in written
    package(clinic).write_text(text.replace("mapping={", "mapping=dict() or {"))
    code, _, err = flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert code == 2 and "its mapping is not written out" in err
    # Without any mapping, one is added behind the source.
    package(clinic).write_text(re.sub(r"    mapping=\{.*?\n    \},\n", "", text, flags=re.DOTALL))
    flfed("site", "map", "clinic", "--answers", "answers.toml")
    assert '"age": "Alter",' in package(clinic).read_text()


def test_a_factor_is_typed_behind_the_column(clinic: Path):
    table = pd.read_csv(clinic / "clinic.csv", sep=";", dtype=str)
    table["Alter"] = table["Alter"] + "0"
    table.to_csv(clinic / "clinic.csv", sep=";", index=False)
    typed = JOINT + "1 * 0\n" + "1 * 0.1\n" + CP + SLOPE + "y\n"
    code, lines = in_terminal("site", "map", "clinic", columns=120, typed=typed)
    shown = "\n".join(lines)
    assert code == 0 and "the factor must be a number other than 0" in shown, shown
    assert '"age": Field("Alter", multiply=0.1),' in package(clinic).read_text()


@pytest.mark.parametrize(
    ("mark", "factor", "entry"),
    [
        # mg/L with thousands is the guess for a comma, and g/L with decimals for a point.
        (",", "100.0", 'multiply=100.0, decimal=","'), (",", "0.1", 'multiply=0.1, thousands=","'),
        (".", "0.1", 'multiply=0.1, decimal=",", thousands="."'), (".", "100.0", "multiply=100.0"),
    ],
)  # fmt: skip
def test_a_typed_factor_decides_what_the_marks_of_a_column_are(
    clinic: Path, flfed: Command, mark: str, factor: str, entry: str
):
    rows = mapped_rows("heart-disease").drop(columns="ca")
    rows["chol"] = [f"{value / 100:.3f}".replace(".", mark) for value in rows["chol"].fillna(240)]
    rows.to_csv("ward.csv", index=False)
    assert flfed("site", "new", "ward", "--from", "ward.csv", "--dataset", "heart-disease")[0] == 0
    Path("answers.toml").write_text(f'[columns]\nchol = "chol"\n[units.chol]\nmultiply = {factor}\n')
    code, out, err = flfed("site", "map", "ward", "--answers", "answers.toml")
    assert code == 0, out + err
    assert f'"chol": Field("chol", {entry}),' in (clinic / "sites/ward/__init__.py").read_text()
    assert "chol is read from chol: its numbers are read by the factor that you typed" in out
    assert re.search(r"^chol +chol +\d+ +\d+ +0 +0", out, re.M) and "ward fits" in out


@pytest.mark.parametrize(
    "mapping",
    [
        '{**BASE, "age": "Alter"}', '{"age": own("Alter")}', "{name: name for name in NAMES}", "BASE",
        '{"sex": Field("S", values=CODES)}', '{"sex": Field(**SEX)}',
    ],
)  # fmt: skip
def test_a_mapping_that_is_computed_is_not_replaced(mapping: str):
    text = f'from flfed import Site\n\nsite = Site(name="a", source=None, mapping={mapping})\n'
    assert replace_mapping(text, {"age": "Years"}, {}) is None
    spread = text.replace(f"mapping={mapping}", "**OPTIONS")
    assert replace_mapping(spread, {"age": "Years"}, {}) is None
    written = text.replace(mapping, '{"age": Field("Alter"), "sex": None}')
    assert '"age": "Years"' in (replace_mapping(written, {"age": "Years"}, {}) or "")
