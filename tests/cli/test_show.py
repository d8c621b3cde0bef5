"""What commands show to people: tables that fit a terminal, help that says what it means."""

import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from flfed.cli import data, main, output, progress

HEADERS = ["site", "test rows", "shared model", "site model", "adjusted to site", "gain (+ is better), 95 %", "verdict"]
ROWS = [
    ["mississippi-clinic", "54", "0.784", "0.743", "0.784", "+0.041 (−0.081 to +0.163)", "no clear improvement"],
    ["a site's model used at all sites (mean)", "", "0.616", "", "", "", ""],
]


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> list[str]:
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=sys.stdout, width=width))
    output.as_table(HEADERS, ROWS)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_comparison_fits_its_terminal_and_breaks_no_word(monkeypatch, capsys, width):
    lines = shown(monkeypatch, capsys, width)
    assert max(map(len, lines)) <= width
    words = {word for cell in [*HEADERS, *sum(ROWS, [])] for word in cell.split()}
    assert words <= {word for line in lines for word in line.split()}


def test_a_terminal_too_narrow_for_the_words_still_gets_them_whole(monkeypatch, capsys):
    text = "\n".join(shown(monkeypatch, capsys, 40))
    assert "mississippi-clinic" in text and "(−0.081" in text


def test_a_title_wider_than_its_table_stands_on_one_line(capsys):
    output.as_table(["what", "lines"], [["train", "3"]], title="Released without noise: no budget covers it")
    assert capsys.readouterr().out.splitlines()[0] == "Released without noise: no budget covers it"


def test_what_is_left_of_a_line_goes_where_it_saves_most_lines():
    # least widths 2 + 1; the first column needs 1 more for one line, the second 2 more for each of two cells
    assert output.column_widths([["id", "a b", "c"], ["n", "1 2", "3 4"]], room=5) == [2, 3]
    assert output.column_widths([["id", "a b", "c"], ["n", "1 2", "3 4"]], room=99) == [3, 3]
    assert output.column_widths([["id"]], room=9) == [2]


COMMANDS = (
    "study sweep", "study verify", "study run", "study resume", "predict", "run export", "site check", "data get",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_of_a_help_text_is_lost_as_markup(command):
    # rich reads [word] in a help text as a style, and drops it
    done = subprocess.run(
        [sys.executable, "-c", "from flfed.cli import main; main()", *command.split(), "--help"],
        capture_output=True, text=True, env={"COLUMNS": "120", "PATH": "/usr/bin"}, check=True,
    )  # fmt: skip
    assert not re.search(r"\b(a|an|the|of|in|study's) +(and|\.|,)", done.stdout)


def test_a_stage_that_cannot_be_counted_is_shown_too(monkeypatch, capsys):
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=sys.stdout, width=80, force_terminal=True, _environ={})
    )
    with progress.progress() as told:
        told("rounds", 1, 2)
        told("compare", 0, 1)
        told("compare", 1, 1)
        told("repeats", 1, 1)
    out = capsys.readouterr().out
    assert "rounds" in out and "repeats" not in out


def test_what_a_dataset_is_made_of_is_said_truly(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path))
    data.list_data(as_json=True)
    found = {line["dataset"]: line["kind"] for line in json.loads(capsys.readouterr().out)["datasets"]}
    assert found["card-fraud"] == "simulated"
    assert found["heart-disease"] == found["heart-flamby"] == "download"
    assert (found["wine"], found["preterm-birth"]) == ("in a package", "embedded")


WRONG = {
    "study run wine --round 3": "; a key of the study is set with --set KEY=VALUE, such as --set rounds=3; see: ",
    "study run wine --repeat 3": "; did you mean --repeats? See: ",
    "run list --jsn": "; did you mean --json? See: ", "run lst": ". Did you mean 'list'? See: ",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_word_is_answered_with_what_was_meant_and_never_with_what_has_only_dashes_in_common(words, flfed):
    code, out, err = flfed(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert WRONG[words] in err and "?;" not in err and err.endswith(" --help\n")


def test_what_was_meant_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["flfed", "runn"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err.count("Did you mean") == 1
