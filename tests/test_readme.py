"""The README and the pages beside it run: every command line, in order, and every Python block, with its output."""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("studies", "own-tables", "install")
}
NUMBER = re.compile(r"-?\d*\.\d+|\b\d+\b")
RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def commands_of(page: str) -> list[list[str]]:
    """Return the words of each command of a page, without the first, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^\$ flfed (.*)$", text, flags=re.MULTILINE)]


def blocks_of(text: str, kind: str = "python") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def ran(block: str, folder: Path = ROOT) -> str:
    """Return what a block prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", block], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def alike(told: str, printed: str) -> bool:
    """Tell whether two outputs have the same words, and numbers within 0.003 of each other."""
    told, printed = RUN.sub("RUN", told), RUN.sub("RUN", printed)
    if NUMBER.sub("#", told).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(told), NUMBER.findall(printed), strict=True)
    return all(abs(float(a) - float(b)) <= 0.003 for a, b in pairs)


def test_the_pages_have_commands_and_blocks_to_run():
    assert len(commands_of("docs/studies.md")) >= 8
    assert len(commands_of("docs/predict.md")) >= 4
    assert len(commands_of("docs/own-tables.md")) >= 8
    assert [len(blocks_of(text)) for text in (TEXT, PAGES["studies"])] == [1, 2]


@pytest.mark.studies
def test_the_block_of_the_readme_prints_what_stands_below_it():
    told = blocks_of(TEXT, "text")[0]
    printed = ran(blocks_of(TEXT)[0])
    assert alike(told, printed), printed
    assert not alike(told.replace("0.732", "0.742"), printed)
    assert not alike(told.replace("no clear improvement", "joining improves AUC"), printed)


@pytest.mark.servers
def test_every_command_of_the_page_on_studies_runs(flfed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them writes a study
    for words in commands_of("docs/studies.md"):
        code, out, err = flfed(*words)
        assert (code, bool(out.strip())) == (0, True), (words, err)


@pytest.mark.servers
def test_every_command_of_the_page_on_predicting_runs_in_an_empty_folder(flfed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands_of("docs/predict.md"):
        code, out, err = flfed(*words)
        # A clinic may differ from all clinics together: an alarm.
        expected = (0, 1) if words[0] == "monitor" else (0,)
        assert code in expected and out.strip(), (words, err)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 209  # 208 patients and a header


def patients(rows: int, seed: int) -> pd.DataFrame:
    """Return a clinic's table, as somebody may have it."""
    rng = np.random.default_rng(seed)
    age, pressure = rng.normal(62, 11, rows).round(1), rng.normal(132, 18, rows).round()
    odds = 0.08 * (age - 62) + 0.03 * (pressure - 132)
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    return pd.DataFrame({"age": age, "sex": rng.choice(["F", "M"], rows), "pressure": pressure, "died": died})


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that docs/own-tables.md names, and a database."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("north", "south")):
        patients(220 + 60 * seed, seed).to_csv(f"{name}.csv", index=False)
    patients(180, 2).rename(columns={"age": "AGE", "pressure": "RR"}).to_csv(
        "west.csv", index=False, sep=";", decimal=","
    )
    parts = [patients(150, seed).assign(clinic=name) for seed, name in enumerate(("north", "south", "hill"))]
    pd.concat(parts).to_csv("all.csv", index=False)
    with sqlite3.connect("ward.db") as database:
        patients(150, 3).to_sql("patients", database, index=False)
    database.close()
    monkeypatch.setenv("WARD_DATABASE", f"sqlite:///{tmp_path}/ward.db")
    return tmp_path


@pytest.mark.proof
@pytest.mark.studies
def test_every_command_and_block_of_the_page_on_own_tables_runs_in_order(flfed, ward: Path):
    for words in commands_of("docs/own-tables.md"):
        code, out, err = flfed(*words)
        assert (code, bool(out.strip())) == (0, True), (words, out, err)
    assert sorted(path.name for path in (ward / "cut" / "sites").iterdir()) == ["hill", "north", "south"]
    printed = ran("\n".join(blocks_of(PAGES["own-tables"])), ward)
    assert "verdict" in printed
    assert (ward / "ward.onnx").stat().st_size > 0 and (ward / "ward-files" / "datasets").is_dir()


WEST = {"gesl": {"F": "1", "M": "2"}, "died": {"yes": "j", "no": "n"}}
"""Codes of a strange table, as somebody else may write them."""
KEYS = {
    "data new": "dataset columns offers unconfirmed sites files columns.0.sure columns.0.leak",
    "site new": "columns.0.site-column columns.0.sure",
    "site map": "columns.0.site-column passed",
    "site check": "passed columns.0.passed columns.0.detail",
    "study check": "primary",
    "study run": "run status",
    "run show": "status reason faults training.enough global.METRIC.value global.METRIC.low "
    "sites.west.verdict sites.west.difference.METRIC.widened-low sites.west.difference.METRIC.low "
    "sites.west.difference-personalised mean-gain.METRIC.value",
    "run list": "runs.0.run series.0.status",
}
"""Keys that AGENTS.md names, of each of its commands."""


def value_at(printed: object, path: str) -> object:
    for key in path.replace("METRIC", "roc_auc_score").split("."):
        printed = printed[int(key)] if isinstance(printed, list) else printed[key]
    return printed


def gains_of(text: str) -> dict[str, list[float]]:
    """Return the last three numbers of each site's line: its gain, which has no sign where it is 0, and both ends."""
    numbers = {}
    for site in ("north", "south", "west"):
        lines = re.findall(rf"^{site} .*[+-]\d\.\d.*$", text, re.MULTILINE)
        if lines:
            numbers[site] = [float(number) for number in re.findall(r"[+-]?\d\.\d+", lines[0])[-3:]]
    return numbers


@pytest.mark.studies
def test_an_agent_and_r_read_the_same_verdict_by_the_commands_of_their_pages(
    flfed, ward: Path, monkeypatch: pytest.MonkeyPatch
):
    strange = patients(180, 2).rename(columns={"age": "AGE", "sex": "gesl", "pressure": "RR"})
    strange.replace(WEST).to_csv("west.csv", index=False, sep=";", decimal=",")
    page = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    (ward / "answers.toml").write_text(blocks_of(page, "toml")[0])
    printed = {}
    for words in commands_of("AGENTS.md"):
        code, out, err = flfed(*words)
        assert code == 0, (words, err)
        printed[" ".join(words[:2])] = json.loads(out)
    assert printed.keys() == KEYS.keys()
    for command, paths in KEYS.items():
        for path in paths.split():
            value_at(printed[command], path)
            names = [key for key in re.split(r"[.]", path) if key.isalpha() or "-" in key]
            assert all(name in page for name in names if name not in ("runs", "series", "west", "dataset")), path
    shown = printed["run show"]
    assert shown["status"] == "completed" and printed["site check"]["passed"] and printed["site map"]["passed"]
    assert {site["verdict"] for site in shown["sites"].values()} <= set(re.findall(r'`"([a-z ]+)"`', page))
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed: apt-get install r-base-core r-cran-jsonlite")
    block = blocks_of((ROOT / "docs" / "r.md").read_text(encoding="utf-8"), "r")[0]
    assert len(block.splitlines()) <= 10
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(["Rscript", "-e", block], capture_output=True, text=True, cwd=ward)
    assert done.returncode == 0, done.stderr
    # The same study and rows give the same figures; R's minus sign is a hyphen. The table adds a digit where the
    # third would hide on which side of the minimum gain a number lies.
    table = gains_of(flfed("run", "show", "latest")[1].replace("\N{MINUS SIGN}", "-"))
    printed_by_r = gains_of(done.stdout)
    assert len(table) == 3 and printed_by_r.keys() == table.keys()
    for site, numbers in table.items():
        assert printed_by_r[site] == pytest.approx(numbers, abs=0.00051), site
    overall = shown["global"]["roc_auc_score"]
    assert "AUC {value:.3f} ({low:.3f} to {high:.3f})".format(**overall) in done.stdout


@pytest.mark.servers
@pytest.mark.parametrize("place", range(len(blocks_of(PAGES["studies"]))))
def test_every_python_block_of_the_page_on_studies_runs(place: int):
    ran(blocks_of(PAGES["studies"])[place])


def test_the_make_targets_of_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)\b", TEXT + PAGES["install"]):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE) or target == "bench", target


def test_the_figures_of_the_demo_are_those_of_the_tutorial_and_of_the_case_study():
    demo = TEXT.partition("| study of the demo |")[2].partition("## Ten lines")[0]
    for page in ("docs/tutorials/first-run.ipynb", "docs/case-studies/loan-default.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        gain, interval = re.findall(r"Mean gain from joining (\S+) in AUC \(95 % CI ([^)]*)\)", text)[0]
        assert gain in demo and interval in demo, page


def test_nothing_is_installed_by_name_before_it_is_released():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    by_name = [page.name for page in pages if re.search(r"pip install flfed", page.read_text(encoding="utf-8"))]
    assert by_name == []
    lines = [line for line in TEXT.splitlines() if line.strip()]
    assert lines[0] == "# flfed" and "hospitals and banks" in lines[1] and "Should we join?" in lines[2]
    assert re.findall(r"^make \w+", TEXT, flags=re.MULTILINE) == ["make demo", "make app"]


def test_the_results_of_the_readme_are_those_of_their_page():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in TEXT.partition("## Results")[2].partition("## Beside")[0].splitlines()]
    full = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines()}
    studies = [row for row in rows if row[0].startswith("| ") and row[0] not in ("| study", "|---|")]
    assert len(studies) == 7
    for row in studies:
        # The page has one column more: one site's own model, everywhere.
        kept = full[row[0]]
        assert row == [*kept[:6], *kept[7:]], row[0]
    ahead = 0
    for row in studies:
        shared, own = (float(re.findall(r"[\d.]+", cell)[0]) for cell in row[-2:])
        ahead += own < shared if "lower is better" in row[3] else own > shared
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    assert f"In {words[ahead - 1]} of the seven studies the sites' own models are ahead" in TEXT


def test_every_relative_link_of_every_page_leads_to_a_file():
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert lost == [] and len(pages) > 20
