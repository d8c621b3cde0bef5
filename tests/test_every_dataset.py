"""What every dataset keeps: a schema, a source, a README, and files that are the ones it names."""

import hashlib
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.datasets import Dataset
from flfed.rows.data.mapping import map_table
from flfed.rows.features.summarise import layout_of

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.parent.name for path in ROOT.glob("datasets/*/schema.toml"))


@pytest.fixture(params=NAMES)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return datasets.load(request.param)


def test_every_folder_is_listed():
    assert sorted(path.name for path in (ROOT / "datasets").iterdir() if path.is_dir()) == NAMES
    assert set(NAMES) <= set(datasets.names())
    # With one, the folder would shadow an installed Hugging Face `datasets`.
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_a_schema_says_what_each_column_is(dataset):
    schema = dataset.schema
    assert (schema.name, bool(schema.title), bool(schema.description)) == (dataset.name, True, True)
    assert len(schema.features()) >= 2
    for name, column in schema.columns.items():
        assert column.description, name
        assert column.kind not in ("flag", "category") or not column.unit, name
    assert len(schema.sha256()) == 64


def test_every_number_has_a_unit_or_its_readme_says_why_not(dataset):
    without = [n for n, c in dataset.schema.columns.items() if c.kind == "number" and not c.unit]
    readme = (dataset.folder / "README.md").read_text(encoding="utf-8")
    assert not without or "gives no units" in readme, without


def test_a_readme_says_origin_licence_and_what_may_not_be_concluded(dataset):
    text = (dataset.folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {dataset.name}\n")
    for heading in ("## Origin", "## Traps", "## What may not be concluded", "## Licence"):
        assert heading in text
    assert dataset.source.licence and dataset.source.citation and dataset.source.homepage.startswith("https://")


def test_embedded_files_are_the_ones_named_and_downloads_have_an_address(dataset):
    for file in dataset.source.files:
        path = dataset.folder / file.name
        if dataset.source.embedded:
            content = path.read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        else:
            assert not path.exists()
            # One without an address says in its README how to get it.
            readme = (dataset.folder / "README.md").read_text(encoding="utf-8")
            assert file.url.startswith("https://") or "there is no public address with these bytes" in readme
    named = {file.name for file in dataset.source.files}
    tables = {path.name for path in dataset.folder.iterdir() if path.suffix in (".csv", ".gz", ".parquet", ".data")}
    assert tables == (named if dataset.source.embedded else set())


def test_an_embedded_table_has_the_script_that_extracted_it(dataset):
    scripts = [dataset.folder / name for name in ("extract.py", "make.py")]
    assert sum(script.is_file() for script in scripts) == dataset.source.embedded


def test_a_dataset_has_sites_or_a_table_to_cut(dataset):
    if not dataset.has_table:
        assert len(sites.of_dataset(dataset.name)) >= 2
        return
    if dataset.absent():
        with pytest.raises(UsageError, match=f"is not here yet .*: flfed data get {dataset.name}"):
            dataset.whole_table()
        return
    table, findings = map_table(dataset.whole_table(), dataset.schema, {})
    assert findings == []
    assert table[dataset.schema.target].notna().all()


def test_a_layout_follows_from_the_schema_alone(dataset):
    layout = layout_of(dataset.schema, dataset.schema.features())
    assert [column.name for column in layout.features] == list(dataset.schema.features())
    assert all(column.cells[-1] == "missing" for column in layout.columns)
    assert not any(dataset.schema.columns[column.name].leak for column in layout.features)
    total = sum(len(column.cells) for column in layout.columns)
    assert [place.stop for place in layout.slices().values()][-1] == total
