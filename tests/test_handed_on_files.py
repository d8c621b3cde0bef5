"""Files that somebody handed on end in a sentence: no trace, no cell, and no memory for what they only claim."""

import copy
import hashlib
import json
import sqlite3
import time
import tomllib
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from flfed.errors import FlfedError, UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.predict import predict_table
from flfed.export.predictions import explain_predictions
from flfed.parsers import parse_tensors
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Excel, Sql
from flfed.rows.data.table_check import check_site
from flfed.rows.model_files import ENCODER, INDEX, MODEL, READ, SCHEMA, STUDY, seal
from flfed.rows.study_model import first_model, model_shapes, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256, schema_encoder
from tests.boosting import trees_study
from tests.conftest import small_table

ROOT = Path(__file__).resolve().parents[1]
CELL = "Roe-4711"
DEEP = 100_000
HUGE = "hidden = [100000, 100000]"


def test_a_study_whose_model_is_huge_is_refused_before_an_array_is_made(small_sites, small_study, flfed, tmp_path):
    small_sites(1)
    huge = small_study.replace('name = "logistic"', f'name = "mlp"\n{HUGE}')
    (tmp_path / "huge.toml").write_text(huge)
    # 5 inputs: 5 * 100,000 + 100,000 + 100,000² + 100,000 + 100,000 + 1.
    count = 5 * 10**5 + 10**5 + 10**10 + 10**5 + 10**5 + 1
    code, _, said = flfed("study", "check", tmp_path / "huge.toml")
    assert code == 2 and f"[model] mlp: {count:,} parameters are more than the 16,777,216" in said and "hidden" in said
    schema = datasets.load("small").schema
    tracemalloc.start()
    with pytest.raises(UsageError, match="lower hidden"):
        model_shapes(Study.parse(huge), schema)
    with pytest.raises(UsageError, match="lower depth or max-bins or rounds"):
        model_shapes(Study.parse(trees_study(small_study, rounds=10**9)), schema)
    # A model of 12 million numbers is within the bound, and none of them is made.
    shapes = model_shapes(Study.parse(huge.replace("100000, 100000", "3500, 3500")), schema)
    assert sum(int(np.prod(shape)) for shape, _ in shapes.values()) == 12_278_001
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["logistic", "mlp", "trees"])
def test_shapes_are_those_of_the_arrays_that_a_run_begins_with(kind: str, small_sites: Any, small_study: str):
    small_sites(1)
    study, schema = Study.parse(text_of(kind, small_study)), datasets.load("small").schema
    made = first_model(study, schema)
    assert model_shapes(study, schema) == {name: (value.shape, value.dtype) for name, value in made.items()}


def text_of(kind: str, small_study: str) -> str:
    """Return the small study with a model of a kind."""
    if kind == "trees":
        return trees_study(small_study)
    changes = {} if kind == "logistic" else {"model.name": "mlp", "hidden": [4]}
    return Study.parse(small_study).replace(changes).text


def shared(kind: str, small_study: str) -> SharedModel:
    """Return a model that no run made."""
    study, schema = Study.parse(text_of(kind, small_study)), datasets.load("small").schema
    arrays = first_model(study, schema)
    layout = study_layout(study, schema)
    if kind == "trees":
        # The first tree has one split.
        for name, values in (
            ("column", (0, -1, -1)),
            ("left", (1, 0, 0)),
            ("value", (0, 0.5, -0.5)),
            ("cover", (6, 2, 4)),
        ):
            arrays[name][0, 0, :3] = values
        arrays["cuts"][0, :3] = (30, 50, 70)
        arrays["missing"] = (arrays["cuts"] < 1e30).sum(axis=1) + 1.0
    return SharedModel(
        run="r", study=study, schema=schema, arrays=arrays, encoder=schema_encoder(layout), figures={"global": {}}
    )


@pytest.fixture
def folders(small_sites: Any, small_study: str, tmp_path: Path) -> dict[str, dict[str, bytes]]:
    """The files of a model folder of each kind, by name."""
    small_sites(1)
    for kind in ("logistic", "trees"):
        shared(kind, small_study).write(tmp_path / kind)
    small_table(20, 1).replace({"person": {"P1-0003": CELL}}).to_csv(tmp_path / "rows.csv", index=False)
    kinds = [tmp_path / kind for kind in ("logistic", "trees")]
    return {kind.name: {file.name: file.read_bytes() for file in kind.iterdir()} for kind in kinds}


def sealed(files: dict[str, bytes], change: Callable[[Any], Any] = lambda index: index) -> dict[str, bytes]:
    """Return a folder whose hashes are put right, as somebody who wants to be believed does."""
    index = json.loads(files[INDEX])
    index.pop("sha256")
    index["files"] |= {name: hashlib.sha256(files[name]).hexdigest() for name in READ}
    index["hashes"]["study-sha256"] = hashlib.sha256(files[STUDY]).hexdigest()
    for name, key in ((MODEL, "arrays-sha256"), (ENCODER, "encoder-sha256")):
        with suppress(UsageError, KeyError, ValueError):
            arrays = parse_tensors(files[name], name)
            index["hashes"][key] = arrays_sha256(arrays)
    index = change(index)
    text = json.dumps(index | {"sha256": seal(index)} if isinstance(index, dict) else index)
    return files | {INDEX: text.encode()}


def predicted(folder: Path, files: dict[str, bytes]) -> str:
    """Return what predicting with a folder says, "" where it predicts."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        model = SharedModel.read(folder)
        found = predict_table(model, folder.parent / "rows.csv")
        if model.study.model.name != "mlp":
            explain_predictions(model, found)
    except FlfedError as error:
        assert error.exit_code == 2 and CELL not in str(error)
        return str(error)
    return ""


def header(text: str) -> bytes:
    """Return a safetensors file that is all header."""
    return len(text).to_bytes(8, "little") + text.encode()


def tensor_header(dtype: str, shape: str, size: int) -> bytes:
    """Return the header of a file with one array, "weight"."""
    return header(f'{{"weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{size}]}}}}')


def tensors(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    """Return a change of one array of a safetensors file."""

    def changed(content: bytes) -> bytes:
        arrays = load(content)
        return save({**arrays, name: np.ascontiguousarray(change(arrays[name]))})

    return changed


BAD_FOLDERS: dict[str, tuple[str, str, Callable[[bytes], bytes], str]] = {
    "a huge model": ("logistic", STUDY, lambda c: c.replace(b'"logistic"', f'"mlp"\n{HUGE}'.encode()), "hidden"),
    "huge trees": ("trees", STUDY, lambda c: c.replace(b"rounds = 8", b"rounds = 1000000000"), "rounds"),
    "endless resamples": ("logistic", STUDY, lambda c: c.replace(b"= 200", b"= 9007199254740992"), "resamples"),
    "a study that nests": ("logistic", STUDY, lambda c: c + b"[a]\na = " + b"[" * DEEP, "32 levels"),
    "a schema that nests": ("logistic", SCHEMA, lambda c: c + b"\na = " + b"[" * DEEP, "32 levels"),
    "no study in UTF-8": ("logistic", STUDY, lambda c: c + b"# \xff", "UTF-8"),
    "a huge shape": ("logistic", MODEL, lambda c: tensor_header("F64", "[0,1000000000000000000]", 0), "apart"),
    "a nested header": ("logistic", MODEL, lambda c: header("[" * DEEP), "safetensors"),
    "an unknown type": ("logistic", MODEL, lambda c: tensor_header("F8_E4M3", "[1]", 1) + b"0", "safetensors"),
    "whole numbers": ("logistic", MODEL, tensors("weight", lambda v: v.astype(np.int64)), "apart"),
    "an encoder of no numbers": ("logistic", ENCODER, tensors("center", lambda v: v * np.nan), "apart"),
    "an encoder of no width": ("logistic", ENCODER, tensors("scale", lambda v: v * 0), "apart"),
    "a tree with a circle": ("trees", MODEL, tensors("left", lambda v: v * 0), "apart"),
    "trees without a code": ("trees", MODEL, tensors("missing", lambda v: v + 90), "apart"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_model_folder_that_only_seems_whole_is_refused(case: str, folders: Any, tmp_path: Path):
    kind, name, change, words = BAD_FOLDERS[case]
    files = folders[kind]
    assert predicted(tmp_path / "case", sealed(files)) == ""
    spoilt = {**files, name: change(files[name])}
    assert spoilt[name] != files[name]
    start = time.process_time()
    said = predicted(tmp_path / "case", sealed(spoilt))
    assert time.process_time() - start < 5
    assert {"apart": "belong together"}.get(words, words) in said


def test_facts_of_a_model_that_are_missing_or_of_another_type_are_named(folders: Any, tmp_path: Path):
    place = str(tmp_path / "case" / INDEX)
    for key in ("run", "files", "hashes", "figures"):
        for value in (None, 1, ["a"]):
            changed = sealed(folders["logistic"], lambda index, of={key: value}: {**index, **of})
            assert f"{place}: {key!r} is not as an export writes it" in predicted(tmp_path / "case", changed)
    none = sealed(folders["logistic"], lambda index: {**index, "files": {}})
    assert f"{place}: names other files" in predicted(tmp_path / "case", none)
    nested = folders["logistic"] | {INDEX: b"[" * DEEP}
    assert "is not the file that was exported: it is not valid JSON" in predicted(tmp_path / "case", nested)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3),
    st.sampled_from([[], {}, [[1]], "9" * 5000, [1e308, -1e308], 10**9]),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes]:
    """Draw a folder with one spoiled file: bytes put in, taken out or changed, or a value of its text replaced."""
    name = draw(st.sampled_from([INDEX, *READ]))
    content = files[name]
    if draw(st.booleans()) or name in (MODEL, ENCODER):
        place = draw(st.integers(0, len(content) - 1))
        end = place + draw(st.sampled_from([0, 1, 8, len(content)]))
        return {**files, name: content[:place] + draw(st.binary(max_size=8)) + content[end:]}
    table = json.loads(content) if name == INDEX else tomllib.loads(content.decode())
    value, changed = draw(ODD), copy.deepcopy(table)
    place = changed
    while True:
        key = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    if name == INDEX:
        return {**files, INDEX: json.dumps(changed).encode()}
    try:
        return {**files, name: tomli_w.dumps(changed).encode()}
    except (TypeError, ValueError):  # no TOML can say it
        return files


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_spoiled_model_folder_predicts_or_says_why_not(data: Any, folders: Any, tmp_path: Path):
    files = data.draw(mutated(folders[data.draw(st.sampled_from(sorted(folders)))]))
    # No hash can be put into an index that is none.
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        files = sealed(files)
    assert len(predicted(tmp_path / "case", files)) < 6000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_spoiled_study_is_parsed_or_refused(data: Any, folders: Any):
    kind = data.draw(st.sampled_from(sorted(folders)))
    files = data.draw(mutated({INDEX: folders[kind][INDEX], **dict.fromkeys(READ, folders[kind][STUDY])}))
    try:
        assert Study.parse(files[STUDY].decode("utf-8", "replace")).rounds >= 0
    except UsageError as error:
        assert str(error)


LAUGHS = '<!DOCTYPE x [<!ENTITY a0 "Roe-4711">' + "".join(
    f'<!ENTITY a{level + 1} "{f"&a{level};" * 10}">' for level in range(10)
) + "]>"  # fmt: skip


@pytest.mark.parametrize("member", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "[Content_Types].xml"])
def test_entities_of_a_workbook_are_refused_and_not_expanded(member: str, tmp_path: Path):
    small_table(20, 1).to_excel(tmp_path / "good.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "good.xlsx") as good, zipfile.ZipFile(tmp_path / "bad.xlsx", "w") as bad:
        for name in good.namelist():
            text = good.read(name).decode()
            if name == member:
                head, _, rest = text.rpartition("?>")
                text = head + ("?>" if head else "") + LAUGHS + rest.replace("><", ">&a10;<", 1)
            bad.writestr(name, text)
    assert len(Excel(str(tmp_path / "good.xlsx")).read(())) == 20
    start = time.process_time()
    with pytest.raises(UsageError, match="cannot be read as an Excel file") as refused:
        Excel(str(tmp_path / "bad.xlsx")).read(())
    assert time.process_time() - start < 5  # expanded they are 80 GB
    assert CELL not in str(refused.value)


def of_query(column: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a site whose query gives `cell` in place of the first seven values of a column."""
    table = small_table(40, 1)
    with sqlite3.connect(tmp_path / "ward.db") as connection:
        table.to_sql("ward", connection, index=False)
    monkeypatch.setenv("WARD", f"sqlite:///{tmp_path / 'ward.db'}")
    chosen = [f"CASE WHEN rowid < 8 THEN {cell} ELSE {c} END AS {c}" if c == column else c for c in table.columns]
    source = Sql(f"SELECT {', '.join(chosen)} FROM ward", url_variable="WARD")
    return Site("ward", "small", source, holdout=Holdout(salt="ward"), policy=Policy(disclosure="open"))


@pytest.mark.parametrize("column", ["x1", "flag", "colour", "y"])
def test_cells_of_zero_bytes_are_counted_as_what_they_are_not(column, small_sites, tmp_path, monkeypatch):
    small_sites(1)
    checked = check_site(of_query(column, "zeroblob(20)", tmp_path, monkeypatch))
    wrong = [line for line in checked.lines if "in 7 rows" in line.detail]
    assert not checked.passed and len(wrong) == 1 and "\0" not in wrong[0].detail


def test_a_gigabyte_of_zeros_is_refused_before_it_is_made(small_sites, tmp_path, monkeypatch):
    small_sites(1)
    tracemalloc.start()
    with pytest.raises(UsageError, match="a cell or row has more than 10,000,000 bytes"):
        check_site(of_query("x1", "zeroblob(900000000)", tmp_path, monkeypatch))
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
