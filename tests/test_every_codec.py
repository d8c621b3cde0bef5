"""What every codec of the listing promises, and what a study may ask for."""

import inspect
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flfed import registry
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.registry import load, names
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.testing.rules import Subject, are_same, the_docstring_names_a_source, the_signature_is_the_config_schema
from flfed.updates.arrays import Arrays, Shapes, flattened, shapes_of
from flfed.updates.codec import Codec, codec_of
from flfed.updates.codecs.top_k import TopK
from tests.test_every_mechanism import installed

DTYPES = ("float64", "float32")
ROUNDS = 3
STEPS = 4
SITES = 12
ROWS = 20
CLOSE = 1e-9
PLAN = Plan(steps=STEPS)


CODECS = names("codec")


@pytest.fixture(params=CODECS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(load("codec", request.param))


def test_a_codec_says_its_source_and_takes_what_a_study_may_set(subject: Subject) -> None:
    the_docstring_names_a_source(subject)
    the_signature_is_the_config_schema(subject)


def test_it_builds_on_codec(subject: Subject) -> None:
    """Sites and server ask it what `Codec` answers.

    What it does not change has the answer there.
    """
    assert issubclass(subject.kind, Codec)


def test_the_docstring_says_what_it_reveals(subject: Subject) -> None:
    """Whoever approves a study reads what of an update can still be seen: fewer bytes are no protection."""
    assert "Reveals:" in (inspect.getdoc(subject.kind) or "")


def test_the_packed_shapes_follow_from_the_model(subject: Subject) -> None:
    """A gate knows what a message must look like before it comes: no value of the arrays has a say in it."""
    for arrays in _updates():
        made = subject.make()
        expected = made.shapes(shapes_of(arrays))
        shapes = shapes_of(made.encode(arrays, np.random.default_rng(1)))
        assert shapes == dict(expected)


def test_it_takes_fewer_bytes_than_the_model(subject: Subject) -> None:
    """Of a model of some hundred parameters in single precision.

    Else nothing is gained by it.
    """
    model = shapes_of(_arrays("float32"))
    packed = _bytes(subject.make().shapes(model))
    plain = _bytes(model)
    assert packed < plain


def test_it_reads_back_names_shapes_and_types(subject: Subject) -> None:
    """Unpacked arrays replace the originals in everything that follows."""
    for dtype in DTYPES:
        arrays = _arrays(dtype)
        decoded_shapes = shapes_of(_back(subject, arrays))
        expected = shapes_of(arrays)
        same = decoded_shapes == expected and list(decoded_shapes) == list(expected)
        assert same


def test_zeros_come_back_as_zeros(subject: Subject) -> None:
    """A site that learned nothing must not move the model."""
    assert not any(value.any() for value in _back(subject, _zeros("float64")).values())


def test_the_same_state_gives_the_same_bytes(subject: Subject) -> None:
    """A round that is done again after a failure sends what it sent before."""
    first, second = (_packed(subject) for _ in range(2))
    same = list(first) == list(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert same


def test_the_given_arrays_are_unchanged(subject: Subject) -> None:
    """They are the caller's: the model itself, or what error feedback is reckoned from."""
    made = subject.make()
    arrays = _arrays("float64")
    packed = _packed(subject)
    before = {name: value.copy() for name, value in packed.items()}
    made.encode(arrays, np.random.default_rng(4))
    made.decode(packed, shapes_of(arrays))
    same = are_same(arrays, _arrays("float64")) and are_same(packed, before)
    assert same


def test_it_finds_no_defect_in_what_it_packed(subject: Subject) -> None:
    """An honest site is never set aside."""
    for arrays in _updates():
        made = subject.make()
        defect = made.defect(made.encode(arrays, np.random.default_rng(5)), shapes_of(arrays))
        assert defect is None


def test_it_refuses_arrays_of_another_form(subject: Subject) -> None:
    """Names, lengths and types are looked at before anything is read by them."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for name, value in _packed(subject).items():
        rest = {key: other for key, other in _packed(subject).items() if key != name}
        wrong = {
            "missing": rest,
            "cut short": rest | {name: value[:-1]},
            "of more dimensions": rest | {name: value[None]},
            "of another type": rest | {name: value.astype(np.complex128)},
            "given twice": rest | {name: value, "more": value},
        }
        for packed in wrong.values():
            assert made.defect(packed, model) is not None


def test_it_refuses_what_is_not_finite(subject: Subject) -> None:
    """One site must not make everybody's model NaN, whether by its update or by what it says of it."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for bad in (math.nan, math.inf, -math.inf):
        for name in model:
            arrays = _arrays("float64")
            arrays[name].flat[0] = bad
            packed = made.encode(arrays, np.random.default_rng(6))
            assert made.defect(packed, model) is not None
        for _, packed in _spoilt(subject, bad):
            assert made.defect(packed, model) is not None
    model = shapes_of(_arrays("float32"))
    # Values that are finite as they cross must be finite as they are read.
    for _, packed in _spoilt(subject, 3e38):
        refused = made.defect(packed, model) is not None
        decoded = {} if refused else made.decode(packed, model)
        assert all(np.isfinite(value).all() for value in decoded.values())


def _arrays(dtype: str) -> Arrays:
    """Return an update whose names are in no order, with an odd number of entries and one array in Fortran's order."""
    rng = np.random.default_rng(7)
    shapes = {"weight-1": (8, 1), "bias-0": (8,), "weight-0": (30, 8), "bias-1": (1,)}
    made = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return made | {"weight-0": np.asfortranarray(made["weight-0"])}


def _zeros(dtype: str) -> Arrays:
    return {name: np.zeros_like(value) for name, value in _arrays(dtype).items()}


def _uneven(dtype: str) -> Arrays:
    """Return an update whose entries differ by five powers of ten, some of them zeros, in arrays of unlike sizes."""
    scales = np.array([1.0, 1e-5, 0.0, -1e-3, 1e-2, 1e-5, -1e-4, 1e-5])
    arrays = {"b": np.outer(scales, [3.0, 0.7, -0.2]), "a": 1e-3 * scales, "c": 1e-4 * scales[::-1]}
    return {name: value.astype(dtype) for name, value in arrays.items()}


def _updates() -> Iterator[Arrays]:
    """Yield an update of each kind, in both precisions."""
    for dtype in DTYPES:
        one_entry = {"mean": np.array([0.3], dtype)}
        yield from (_arrays(dtype), _zeros(dtype), one_entry, _uneven(dtype))


def _packed(subject: Subject) -> Arrays:
    packed: Arrays = subject.make().encode(_arrays("float64"), np.random.default_rng(8))
    return {name: value.copy() for name, value in packed.items()}


def _spoilt(subject: Subject, value: float) -> Iterator[tuple[str, Arrays]]:
    """Yield packed arrays with a value at the end of one of them, for each that has numbers."""
    for name, array in _packed(subject).items():
        if array.dtype.kind == "f":
            array.flat[-1] = min(value, float(np.finfo(array.dtype).max)) if math.isfinite(value) else value
            yield name, _packed(subject) | {name: array}


def _back(subject: Subject, arrays: Arrays) -> Arrays:
    """Return arrays as a reader has them who knows only the model's shapes."""
    packed = subject.make().encode(arrays, np.random.default_rng(9))
    decoded_arrays: Arrays = subject.make().decode(packed, shapes_of(arrays))
    return decoded_arrays


def _bytes(shapes: Shapes) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())


@pytest.mark.parametrize("name", CODECS)
def test_unpacking_needs_no_more_than_the_models_shapes_whatever_they_are(name):
    made = load("codec", name)()
    rng = np.random.default_rng(1)
    for shapes in (
        {"a": (3,), "empty": (0, 4), "b": ()},
        {"one": (1, 1, 1)},
        {"z": (257, 256), "middle": (0,), "a": (2,)},
    ):
        arrays = {key: np.asarray(rng.normal(size=shape)) for key, shape in shapes.items()}
        model = shapes_of(arrays)
        packed = made.encode(arrays, rng)
        assert shapes_of(packed) == dict(made.shapes(model)) and made.defect(packed, model) is None
        found = made.decode(packed, model)
        assert shapes_of(found) == model and list(found) == list(arrays)


# What a study may ask for.

STUDY = """
format = 1
name = "asking"
purpose = "ask for a codec"
legal-basis = "no data"
[dataset]
name = "wine"
[model]
name = "logistic"
[strategy]
name = "fedavg"
rounds = 5
"""


def parsed(table: str = "") -> Study:
    return Study.parse(f"{STUDY}\n[codec]\n{table}\n" if table else STUDY)


def test_a_study_has_the_codec_of_its_table_and_none_without_it():
    assert (parsed().codec.name, codec_of(parsed())) == ("none", None)
    study = parsed('name = "top-k"\nshare = 0.25')
    check(study)
    made = codec_of(study)
    assert isinstance(made, TopK) and made.share == 0.25 and made.feedback
    assert codec_of(parsed('name = "none"')) is None


def test_codecs_are_set_key_by_key_and_as_keywords():
    study = parsed()
    assert study.replace({"codec.name": "int8"}).codec.name == "int8"
    assert codec_of(study.replace({"codec.name": "top-k", "codec.share": 0.5})).share == 0.5
    parts = {"by": "iid", "sites": 3}
    assert Study(dataset="wine", partition=parts, codec="int8").codec.name == "int8"
    made = Study(dataset="wine", partition=parts, codec={"name": "top-k", "share": 0.2})
    assert (made.codec.name, dict(made.codec.settings)) == ("top-k", {"share": 0.2})
    assert Study.parse(made.text).codec == made.codec


@pytest.mark.parametrize(("table", "said"), [
    ('name = "int9"', "[codec]: name='int9' is not known; did you mean 'int8'? Known: int8, top-k"),
    ("name = 8", "[codec]: name is missing; known: int8, top-k"),
    ('name = "int8"\nshare = 0.2', "[codec] int8: key 'share' is not known. Allowed: name"),
    ('name = "top-k"\nshares = 0.2', "key 'shares' is not known; did you mean 'share'? Allowed: name, share"),
    ('name = "top-k"\nshare = 0.01', "[codec]: share=0.01 must be in [0.1, 1)"),
    ('name = "top-k"\nshare = 1.0', "[codec]: share=1.0 must be in [0.1, 1)"),
    ('name = "top-k"\nshare = nan', "[codec] top-k: share=nan must be a finite number"),
    ('name = "top-k"\nshare = "all"', "[codec] top-k: share='all' must be a number"),
    ('name = "int8"\ndownload = "int8"', "[codec] int8: key 'download' is not known. Allowed: name"),
    ("share = 0.2", "[codec]: share needs name; known: int8, top-k"),
    ('name = "none"\nshare = 0.2', "[codec]: share needs name; known: int8, top-k"),
])  # fmt: skip
def test_a_codec_that_cannot_be_is_refused_before_any_row_is_read(table, said):
    with pytest.raises(UsageError) as refused:
        check(parsed(table))
    assert said in str(refused.value)


def test_another_packages_codec_is_listed_built_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Path(inspect.getfile(TopK)).read_text().replace("TopK", "FirstK")
    installed(tmp_path, "first_k", source, "[flfed.codec]\nfirst-k = first_k:FirstK\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "first-k" in names("codec") and "first-k" in registry.others("codec")
    study = parsed('name = "first-k"\nshare = 0.5')
    check(study)
    made = codec_of(study)
    assert len(made.encode({"w": np.arange(10.0)}, np.random.default_rng(1))["values"]) == 5


def test_entries_stand_in_the_order_of_names_each_array_row_by_row():
    arrays = {"b": np.array([5.0]), "a": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])}
    assert flattened(arrays).tolist() == [1, 2, 3, 4, 5]
    assert flattened({"a": arrays["a"].astype(np.float32)}).dtype == np.float64
