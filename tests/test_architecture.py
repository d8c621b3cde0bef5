"""Rows stay left, updates cross, records stay right: every import is read, and loaded where reading is not enough."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flfed
from flfed import registry

ROOT = Path(__file__).resolve().parents[1]
SQL = {"sqlalchemy", "sqlite3", "psycopg", "psycopg2"}
MEETING = {"flfed.federation", "flfed.experiments", "flfed.export", "flfed.deployment", "flfed.notebook"}
OURS = {"flfed.rows", "flfed.updates", "flfed.records", "flfed.cli", "flfed.testing"} | MEETING
PARTIES = {f"flfed.vertical.{name}" for name in ("party", "label_party", "column_party", "steps")}
"""Files that know a party's table, in the one folder that has both sides of a run."""
TABLES = {"pandas", "sklearn", "pyarrow"}
SHARED = ("flfed", "flfed/study", "flfed/summaries", "flfed/trees")
FLOWER = {"flwr", "flfed.flower_names"}
DOOR = "flfed/flower_names.py"
"""The one file of those that all share that knows Flower; it loads nothing of it (`test_flower_names`)."""

FORBIDDEN: dict[str, set[str]] = {
    "flfed/rows": FLOWER | {"streamlit", "flfed.vertical"} | OURS - {"flfed.rows"},
    "flfed/updates": {"streamlit", "flfed.vertical.coordinator"} | PARTIES | OURS - {"flfed.updates"} | TABLES | SQL,
    # What crosses there, and who passes it on, knows no table; a party knows no coordinator, and none Flower.
    "flfed/vertical": FLOWER | {"streamlit", "flfed.records", "flfed.cli", "flfed.testing"} | MEETING | SQL,
    **{
        f"flfed/vertical/{name}.py": {"flfed.rows"} | PARTIES | TABLES
        for name in ("alignment", "residuals", "coordinator")
    },
    **{f"{name.replace('.', '/')}.py": {"flfed.vertical.coordinator"} for name in sorted(PARTIES)},
    "flfed/records": FLOWER | {"torch", "flfed.vertical"} | OURS - {"flfed.records"},
    # The kit checks rows and updates alike, so it imports both; nothing that runs leans on it.
    "flfed/testing": {"streamlit", "flfed.records", "flfed.cli"} | MEETING | SQL,
    **{
        f"flfed/{name}": {"flfed.testing", "flfed.cli"}
        for name in ("federation", "experiments", "export", "deployment", "notebook")
    },
    "flfed/cli": {"flfed.testing"},
    **{name: OURS | FLOWER | {"torch", "streamlit", "typer", "flfed.vertical"} | TABLES | SQL for name in SHARED},
    "sites": FLOWER | {"torch", "streamlit"} | OURS,
    "app.py": FLOWER | {"torch", "flfed.rows", "flfed.updates"} | MEETING,
}
"""What each folder may import; `flfed` is the files directly in it, the words that all share."""


def files_of(place: str) -> list[Path]:
    """Return the Python files of one line of the table."""
    path = ROOT / place
    if path.is_file():
        return [path]
    return sorted(path.glob("*.py") if place == "flfed" else path.rglob("*.py"))


def _imported(source: str) -> Iterator[str]:
    """Yield each module that a file imports, anywhere in it; a public name of flfed as where it is defined."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            for alias in node.names if node.module else ():
                yield (
                    flfed._PUBLIC.get(alias.name, f"flfed.{alias.name}")
                    if node.module == "flfed"
                    else (f"{node.module}.{alias.name}")
                )


@cache
def imported(source: str) -> tuple[str, ...]:
    """Return what a file imports; a file is asked for by several tests."""
    return tuple(_imported(source))


def breaches(source: str, forbidden: set[str]) -> list[str]:
    """Return the imports of a file that are forbidden; a relative import hides where it leads, so it counts."""
    return [
        name
        for name in imported(source)
        if name.startswith(".") or any(name == word or name.startswith(f"{word}.") for word in forbidden)
    ]


@pytest.mark.parametrize("place", [place for place in FORBIDDEN if place != "sites"])
def test_no_file_imports_what_its_folder_must_not_know(place: str):
    files = [file for file in files_of(place) if file != ROOT / DOOR]
    found = {str(file.relative_to(ROOT)): breaches(file.read_text(), FORBIDDEN[place]) for file in files}
    assert len(files) > 0
    assert {file: names for file, names in found.items() if names} == {}


RANKS = {
    "rows": 1, "updates": 1, "records": 1, "vertical": 1, "federation": 2, "testing": 2, "experiments": 3, "export": 3,
    "notebook": 4, "deployment": 4, "cli": 5,
}  # fmt: skip
"""Folders from what all share (0, also the files of the root) to the commands: no import goes from lower to higher."""


@cache
def folder_pairs() -> dict[tuple[str, str], set[str]]:
    """Return the imports from one folder of flfed to another, at whatever place of a file they stand."""
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in (ROOT / "flfed").rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in files.items()}
    found: dict[tuple[str, str], set[str]] = {}
    for name, file in modules.items():
        for target in imported(file.read_text()):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != "flfed":
                pair = tuple(str(modules[m].parent.relative_to(ROOT)) for m in (name, target))
                found.setdefault(pair, set()).add(f"{name} imports {target}")
    return {pair: places for pair, places in found.items() if pair[0] != pair[1]}


def test_no_two_folders_import_each_other():
    pairs = folder_pairs()
    assert len(pairs) > 100
    # A package may use its own parts, and they what it has for all of them.
    both = {
        (a, b) for a, b in pairs if (b, a) in pairs and not (f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/"))
    }
    assert {pair: pairs[pair] for pair in both} == {}


def test_no_folder_imports_one_that_stands_above_it():
    rank = {
        pair: [RANKS.get(folder.split("/")[1], 0) if "/" in folder else 0 for folder in pair] for pair in folder_pairs()
    }
    wrong = {pair for pair, (a, b) in rank.items() if a < b and pair[0] != "flfed"}
    assert {pair: folder_pairs()[pair] for pair in wrong} == {}


def test_folders_are_small():
    listings = {"flfed/rows/metrics"}
    places = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "flfed").rglob("*.py")} - listings
    counts = {place: len([file for file in (ROOT / place).glob("*.py") if file.stem != "__init__"]) for place in places}
    assert {place: count for place, count in counts.items() if count > 16} == {}


PARTS = {
    "flfed/updates/parts": ("flfed/updates/parts/every_part.py", {"part", "every_part"}),
}
"""Folders of a study's parts, with the one file that lists them and what they have in common."""


def named_parts(source: str, place: str) -> list[str]:
    """Return the parts that a file imports by name, given the folder of the parts."""
    before = f"{place.replace('/', '.')}."
    found = {name.removeprefix(before).split(".")[0] for name in imported(source) if name.startswith(before)}
    return sorted(found - PARTS[place][1])


@pytest.mark.parametrize("place", PARTS)
def test_only_the_list_of_parts_names_one_and_no_part_names_another(place: str):
    listing = PARTS[place][0]
    files = [file for file in sorted((ROOT / "flfed").rglob("*.py")) if str(file.relative_to(ROOT)) != listing]
    found = {str(file.relative_to(ROOT)): named_parts(file.read_text(), place) for file in files}
    assert {file: names for file, names in found.items() if names} == {}
    # The list has all of them.
    stems = {file.stem for file in (ROOT / place).glob("*.py")} - PARTS[place][1] - {"__init__"}
    assert named_parts((ROOT / listing).read_text(), place) == sorted(stems)


@pytest.mark.parametrize(("source", "expected"), [
    ("from flfed.updates.parts.trees import Trees", ["trees"]), ("import flfed.updates.parts.codec", ["codec"]),
    ("from flfed.updates.parts.part import Part", []),
    ("def f():\n    from flfed.updates.parts.strategy import Strategy", ["strategy"]),
])  # fmt: skip
def test_a_part_that_is_imported_by_name_would_be_found(source: str, expected: list[str]):
    assert named_parts(source, "flfed/updates/parts") == expected


def test_rows_in_a_part_that_crosses_would_be_found():
    assert breaches("from flfed.rows.session import SiteSession", FORBIDDEN["flfed/updates"]) != []


def test_site_packages_import_only_public_names_of_flfed():
    files = files_of("sites")
    assert len(files) >= 12
    for file in files:
        names = {name for name in imported(file.read_text()) if name.split(".")[0] == "flfed"}
        assert names <= {"flfed", *flfed._PUBLIC.values()}, file
        assert "flfed" in names
        assert breaches(file.read_text(), {"flwr", "torch", "streamlit", "pandas", "sklearn"}) == [], file


@pytest.mark.parametrize(("source", "place", "expected"), [
    ("import pandas as pd", "flfed/updates", ["pandas"]),
    ("def f():\n    from flfed.rows import site", "flfed/updates", ["flfed.rows", "flfed.rows.site"]),
    ("from flfed import run", "flfed/records", ["flfed.notebook.federate"]),
    ("from flfed import rows", "flfed/records", ["flfed.rows"]),
    ("from ..rows import site", "flfed/updates", ["..rows"]),
    ("import sklearn.metrics", "flfed/updates", ["sklearn.metrics"]),
    ("from flfed import errors\nimport numpy, flwrench", "flfed/rows", []), ("import torch", "flfed/rows", []),
    ("from flwr.app import Message", "flfed/rows", ["flwr.app", "flwr.app.Message"]),
])  # fmt: skip
def test_a_forbidden_import_would_be_found(source: str, place: str, expected: list[str]):
    assert breaches(source, FORBIDDEN[place]) == expected


def loaded_after(*statements: str) -> set[str]:
    """Return the top-level modules, and ours, that a fresh interpreter has loaded after some imports."""
    code = "\n".join([*statements, "import sys", "print(*sorted(sys.modules))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names = set(done.stdout.split())
    return {name.partition(".")[0] for name in names} | {".".join(name.split(".")[:2]) for name in names}


def test_reading_and_writing_the_record_loads_no_rows_no_arrays_and_no_flower():
    loaded = loaded_after(
        *(f"import flfed.records.{name}" for name in ("store.writer", "store.reader", "reports.report"))
    )
    assert loaded & {"torch", "flwr", "numpy", "pandas", "sklearn", "flfed.rows", "flfed.updates"} == set()
    assert {"flfed.records", "sqlalchemy"} <= loaded


def test_what_crosses_loads_neither_pandas_nor_scikit_learn():
    updates = [file for file in files_of("flfed/updates") if file.stem != "__init__"]
    modules = ["import " + ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in updates]
    strategies = [f"registry.load('strategy', {name!r})" for name in registry.names("strategy")]
    loaded = loaded_after(*modules, "from flfed import registry", *strategies)
    assert len(modules) >= 5
    assert loaded & {"pandas", "sklearn", "flfed.rows", "flfed.records"} == set()
    assert {"flfed.updates", "flwr"} <= loaded


def test_the_words_that_all_share_load_numpy_at_most():
    files = [file for place in SHARED for file in files_of(place) if file.stem != "__init__"]
    loaded = loaded_after(*("import " + ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files))
    assert loaded & (OURS | {"flwr", "torch", "pandas", "sklearn", "sqlalchemy", "streamlit"}) == set()
    assert "numpy" in loaded


def test_importing_flfed_loads_nothing_heavy_and_a_public_name_only_its_own():
    assert loaded_after("import flfed") & (OURS | {"flwr", "torch", "pandas", "numpy"}) == set()
    assert loaded_after("from flfed import Study") & (OURS | {"flwr", "torch", "pandas"}) == set()


def test_importing_a_site_package_opens_no_file():
    # A table that is not there is no reason for a site not to be known.
    code = [
        "import builtins, pathlib", "from flfed.rows.data import site_discovery as sites",
        "found = [sites.load(n) for n in sites.names()]",
    ]  # fmt: skip
    code += ["assert len(found) >= 12", "assert not any(n.endswith('.csv') for n in opened)"]
    watch = ["opened = []", "import sys", "sys.addaudithook(lambda e, a: e == 'open' and opened.append(str(a[0])))"]
    assert "flfed.rows" in loaded_after(*watch, *code)


def test_the_folders_of_data_and_sites_are_no_packages():
    # With one, our `datasets` would shadow an installed Hugging Face `datasets`.
    assert not (ROOT / "datasets" / "__init__.py").exists()
    assert not (ROOT / "sites" / "__init__.py").exists()
    folders = [path for path in (ROOT / "datasets").iterdir() if path.is_dir()]
    assert len(folders) >= 5
    assert [path for path in folders if not (path / "schema.toml").is_file()] == []


def test_only_messages_build_a_reply():
    # What crosses is listed in one file: elsewhere a record is read, or is the strategy's global arrays.
    builders = {"RecordDict", "ConfigRecord", "MetricRecord", "ArrayRecord"}
    builders |= {"record_of", "config_record", "metric_record", "array_record"}
    allowed = {
        f"flfed/updates/messages/{name}.py"
        for name in ("enrol", "summarise", "train", "secure_sum", "vertical", "compare", "audit", "fields", "in_memory")
    }
    found: dict[str, set[str]] = {}
    for file in (ROOT / "flfed").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        used = {call.func.id for call in calls if isinstance(call.func, ast.Name)} & builders
        if used and str(file.relative_to(ROOT)) not in allowed:
            found[str(file.relative_to(ROOT))] = used
    assert found == {
        # a node's empty state, and Flower's own types for global arrays, settings and a round's loss
        "flfed/federation/engines/inprocess.py": {"RecordDict", "ConfigRecord"},
        "flfed/updates/strategies/fedavg.py": {"array_record", "ConfigRecord", "MetricRecord"},
        # the empty state of a message that was not read yet
        "flfed/deployment/flower/site_client.py": {"RecordDict"},
        "flfed/deployment/flower/grid.py": {"RecordDict"},
        # a message as one piece of bytes on its way
        "flfed/deployment/flower/message_parts.py": {"RecordDict", "ConfigRecord"},
        # the caller's settings, to see that no strategy writes into them
        "flfed/testing/strategies.py": {"ConfigRecord"},
        # a reply as it was sent, read from the site's own disk, and what a site keeps in its node's state
        "flfed/updates/checkpoints/site_state.py": {"RecordDict", "array_record"},
    }


def test_every_message_says_what_it_reveals():
    trees = [ast.parse(file.read_text()) for file in files_of("flfed/updates/messages")]
    nodes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    classes = {node.name: ast.get_docstring(node) or "" for node in nodes}
    messages = {name: text for name, text in classes.items() if name.endswith(("Request", "Reply")) or name == "Scores"}
    assert len(messages) >= 15
    assert [name for name, text in messages.items() if "Reveals: " not in text] == []


def test_the_page_is_a_list_of_pages():
    assert len((ROOT / "app.py").read_text().splitlines()) <= 60
