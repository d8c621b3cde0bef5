"""What every codec of the listing promises: the rules are in `flfed.testing`, for other packages' too."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from flfed import registry
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.registry import load, names
from flfed.study.study import Study
from flfed.testing import CODEC_RULES, RuleBroken, Subject, check_codec, keep
from flfed.updates.arrays import flattened, shapes_of
from flfed.updates.codec import Codec, codec_of
from flfed.updates.codecs.int8 import Int8
from flfed.updates.codecs.top_k import TopK
from tests.test_every_mechanism import installed

CODECS = names("codec")


@pytest.mark.parametrize("rule", CODEC_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", CODECS)
def test_a_codec_keeps_every_rule_of_the_contract(name, rule):
    keep(rule, Subject(load("codec", name)))


def test_the_listing_has_our_two_and_every_rule_says_why_there_is_one():
    assert {"int8", "top-k"} <= set(CODECS)
    assert len(CODEC_RULES) >= 13
    assert all(len(inspect.getdoc(rule).split()) > 5 for rule in CODEC_RULES)


def test_ours_keep_the_contract_with_other_settings_too():
    check_codec(TopK, {"share": 0.6})
    with pytest.raises(
        RuleBroken, match="it takes fewer bytes than the model: it takes 1470 bytes, and the model takes 1028"
    ):
        check_codec(TopK, {"share": 0.95})


# One for each rule, that breaks it and none before it.


class Unbased:
    """Source: none. Reveals: all."""


class Unsourced(Int8):
    """Reveals: all."""


class Loose(Int8):
    """Source: none. Reveals: all."""

    def __init__(self, levels: int = 127) -> None:
        self.levels = levels


class Secretive(Int8):
    """Source: none."""


class Tabular(Int8):
    """Source: none. Reveals: all."""


class Shifting(Int8):
    """Only what is not zero. Source: none. Reveals: all."""

    def encode(self, arrays, rng):
        packed = super().encode(arrays, rng)
        return packed | {"values": packed["values"][packed["values"] != 0]}


class Wasteful(Codec):
    """Source: none. Reveals: all."""

    def shapes(self, model):
        return {name: (shape, np.dtype(np.float64)) for name, (shape, _) in model.items()}

    def encode(self, arrays, rng):
        return {name: value.astype(np.float64) for name, value in arrays.items()}


class Double(Int8):
    """Source: none. Reveals: all."""

    def decode(self, packed, model):
        return {name: value.astype(np.float64) for name, value in super().decode(packed, model).items()}


class Restless(Int8):
    """Never at rest. Source: none. Reveals: all."""

    def decode(self, packed, model):
        small = packed["scales"].min() / 1e3
        return {name: value + value.dtype.type(small) for name, value in super().decode(packed, model).items()}


class Free(Int8):
    """Draws of its own. Source: none. Reveals: all."""

    def encode(self, arrays, rng):
        return super().encode(arrays, np.random.default_rng())


class Careless(Int8):
    """Source: none. Reveals: all."""

    def decode(self, packed, model):
        found = super().decode(packed, model)
        packed["scales"] *= 2
        return found


class Suspicious(Int8):
    """No update of one entry is believed. Source: none. Reveals: all."""

    def defect(self, packed, model):
        wrong = super().defect(packed, model)
        return "a single entry" if wrong is None and len(packed["values"]) == 1 else wrong


class Formless(Int8):
    """Source: none. Reveals: all."""

    def defect(self, packed, model):
        scales = packed.get("scales", np.zeros(1))
        return None if np.isfinite(scales).all() else super().defect(packed, model)


class Trusting(Int8):
    """Source: none. Reveals: all."""

    def defect(self, packed, model):
        return super().defect({name: np.ones_like(value) for name, value in packed.items()}, model)


def test_every_rule_is_broken_by_one_that_breaks_only_it(monkeypatch: pytest.MonkeyPatch):
    broken = (
        Unbased, Unsourced, Loose, Secretive, Tabular, Shifting, Wasteful, Double, Restless, Free,
        Careless, Suspicious, Formless, Trusting,
    )  # fmt: skip
    for rule, kind in zip(CODEC_RULES, broken, strict=True):
        # Where a class is defined, all that its file imports comes along: this file's is not what is looked at.
        monkeypatch.setattr(kind, "__module__", "flfed.rows.data.site" if kind is Tabular else Int8.__module__)
        with pytest.raises(RuleBroken) as told:
            check_codec(kind)
        assert rule.__name__.replace("_", " ") in str(told.value), (rule, str(told.value))


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
    assert codec_of(study.replace({"codec.name": "top-k", "share": 0.5})).share == 0.5
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
    ('name = "top-k"\nshare = nan', "[codec]: share=nan must be a finite number"),
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
    check_codec(load("codec", "first-k"))
    study = parsed('name = "first-k"\nshare = 0.5')
    check(study)
    made = codec_of(study)
    assert len(made.encode({"w": np.arange(10.0)}, np.random.default_rng(1))["values"]) == 5


def test_entries_stand_in_the_order_of_names_each_array_row_by_row():
    arrays = {"b": np.array([5.0]), "a": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])}
    assert flattened(arrays).tolist() == [1, 2, 3, 4, 5]
    assert flattened({"a": arrays["a"].astype(np.float32)}).dtype == np.float64
