"""Messages: each comes back as it went, also through bytes, and a malformed one says what is missing."""

import dataclasses
import inspect
import io
import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.refusals import Refusal
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins
from flfed.summaries.summary import Encoder, Summary
from flfed.updates.messages import compare, enrol, fields, secure_sum, summarise, train, vertical
from flfed.updates.messages.compare import AuditReply, AuditRequest, CompareReply, CompareRequest, Figure
from flfed.updates.messages.enrol import EnrolReply, EnrolRequest
from flfed.updates.messages.fields import PROTOCOL, MalformedMessage
from flfed.updates.messages.in_memory import array_record, count_bytes
from flfed.updates.messages.secure_sum import KeysReply, KeysRequest, Masked, OpenReply, OpenRequest, SharedKey
from flfed.updates.messages.summarise import (
    BinsReply,
    BinsRequest,
    ScoresReply,
    StatisticReply,
    StatisticRequest,
    SummariseReply,
    SummariseRequest,
)
from flfed.updates.messages.train import NO_ENCODER, Offset, Scores, TrainReply, TrainRequest
from tests.updates.whole_requests import through_bytes

RNG = np.random.default_rng(0)
ENCODER = Encoder(**{name: RNG.normal(size=3) for name in ("center", "scale", "frequency", "spread", "class_weight")})
SUMMARY = Summary(**{field.name: RNG.normal(size=(2, 3)) for field in dataclasses.fields(Summary)})
ARRAYS = {"weight-0": RNG.normal(size=(3, 2)), "bias-0": RNG.normal(size=2).astype(np.float32)}
SCORES = Scores(
    rows="validation", num_examples=12, metrics={"loss": 0.4, "roc_auc_score": 0.71},
    variances={"roc_auc_score": float("nan")}, histogram=RNG.integers(0, 9, (2, 256)).astype(float),
)  # fmt: skip
OFFSET = Offset(value=np.array([0.4, -0.4]), error=np.array([0.2, 0.3]))
FIGURES = (
    Figure(metric="roc_auc_score", arm="global", value=0.7, low=0.6, high=0.8, extra=0.01, method="DeLong"),
    Figure(metric="log_loss", arm="global", value=float("nan"), low=float("nan"), high=0.0, extra=0.0, method=""),
)
MASKED = Masked(vector=RNG.integers(0, 2**32, 5, dtype=np.uint32), sums=RNG.integers(0, 2**63, 2, dtype=np.uint64))
EXAMPLES = [
    EnrolRequest(dataset="heart-disease", schema_sha256="ab" * 32, known_line=7),
    EnrolReply(site="cleveland", title="Cleveland Clinic", version="0.1", accepted=True, rows_low=100, rows_high=999),
    EnrolReply(site="a", title="", version="", accepted=False, reason=Refusal("not-approved"), resplit=True),
    SummariseRequest(), SummariseReply(summary=SUMMARY),
    TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=3, rounds=40),
    TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=1, rounds=1, lr_scale=0.5, fit=False, score=False,
                 settings={"proximal-mu": 0.1, "steps": 3.0}),
    TrainReply(delta=ARRAYS, num_examples=120, loss=0.3, steps=9),
    TrainReply(delta={}, num_examples=float("nan"), loss=0.0, steps=0, scores=SCORES),
    TrainReply(delta=ARRAYS, num_examples=-1.0, loss=float("inf"), steps=1,
               scores=Scores(rows="training", num_examples=0, metrics={})),
    CompareRequest(arrays=ARRAYS, encoder=ENCODER),
    CompareReply(num_examples=100, holdout_rows=30, arms=FIGURES, differences=FIGURES[:1], summary=SUMMARY,
                 histogram=SCORES.histogram, note="rows left out because a feature is missing: 3"),
    CompareReply(num_examples=0, holdout_rows=0, arms=(), differences=()),
    TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=6, rounds=5, fit=False, offset=True),
    TrainReply(delta={}, num_examples=12.0, loss=0.3, steps=0, offset=OFFSET),
    CompareRequest(arrays=ARRAYS, encoder=ENCODER, offset_deviation=0.25),
    CompareRequest(arrays=ARRAYS, encoder=ENCODER, offset_deviation=0.0),
    CompareRequest(arrays=ARRAYS, encoder=ENCODER, odds_centre=-2.5, odds_spread=0.5),
]  # fmt: skip
SUMS = [
    EnrolReply(site="a", title="A", version="0.3.0", accepted=True, signed_key=b"\x00\x01"),
    EnrolReply(site="a", title="A", version="0.3.0", accepted=True, ledger_lines=9, ledger_head="c" * 64,
        known_hash="e" * 64),
    KeysRequest(cohort="a,b,c", most_rows=999, signed=(b"0", b"1", b"2")),
    KeysRequest(cohort="a,b,c", most_rows=999, shared=SharedKey(sealed=b"sealed", keys=(b"one",))),
    KeysReply(sha256="ab" * 32), KeysReply(sha256="ab" * 32, shared=SharedKey(sealed=b"sealed", keys=(b"1", b"2"))),
    TrainReply(delta={}, num_examples=12.0, loss=0.3, steps=4, masked=MASKED),
]  # fmt: skip
EXTRA = {"variate": RNG.normal(size=(3, 2))}
EXTRAS = [
    TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=2, rounds=40, extra=EXTRA),
    TrainReply(delta=ARRAYS, num_examples=120.0, loss=0.3, steps=9, extra=EXTRA),
    BinsRequest(),
    BinsReply(counts={"x1": RNG.integers(0, 9, (1026, 1)).astype(np.uint16), "flag": np.ones((3, 1), np.uint16)}),
    TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=2, rounds=40, extra=EXTRA, trees_sha256="ab" * 32),
    TrainReply(delta={}, num_examples=120.0, steps=1, extra={"sums": np.arange(6).reshape(1, 3, 2)}),
]
STATISTICS = [
    StatisticRequest(), StatisticRequest(round=1, point={"coefficients": np.zeros(3)}),
    StatisticReply(sums={"table": np.arange(4, dtype=np.uint64).reshape(2, 2)}),
    StatisticReply(
        sums={"table": np.ones(2, dtype=np.uint64)},
        fit={"coefficients": np.array([1.5]), "variances": np.array([0.25])},
    ),
    summarise.ScoresRequest(arrays=ARRAYS, encoder=ENCODER, centre=-1.5),
    ScoresReply(counts=np.array([[12.5, -3.0], [0.25, 7.0]])),
]  # fmt: skip
MADE_HERE: dict[str, Any] = {"arrays": {}, "encoder": NO_ENCODER, "total": MASKED}
TOTALS = [
    TrainRequest(round=3, rounds=40, **MADE_HERE),
    TrainRequest(round=3, rounds=40, score=False, settings={"level": 2.0, "attempt": 0.0}, **MADE_HERE),
    TrainRequest(round=41, rounds=40, fit=False, **MADE_HERE), CompareRequest(sites=4, trained="enough", **MADE_HERE),
    BinsRequest(total=MASKED), StatisticRequest(round=0), StatisticRequest(round=2, total=MASKED),
]  # fmt: skip
PARTY = vertical.Party(site="bank", label=True, columns=3, identifiers=400, key=bytes(range(32)))
PARCELS = {"service": np.arange(200, dtype=np.uint8)}
PARTIES = [
    vertical.AlignRequest(exchange=vertical.ANSWER, parties=(PARTY,), sealed=PARCELS),
    vertical.AlignReply(parties=(PARTY,), sealed=PARCELS),
    vertical.PartialRequest(round=2, exchange=vertical.PRODUCTS, sealed=PARCELS),
    vertical.PartialReply(sealed=PARCELS),
]
OPENING = [
    TrainReply(delta={}, num_examples=12.0, steps=4, masked=MASKED, encrypted=np.arange(9, dtype=np.uint8)),
    OpenRequest(round=3, encrypted={"ciphertext": np.arange(9, dtype=np.uint8)}, total=MASKED),
    OpenReply(total=MASKED),
]
EVERY = [*EXAMPLES, *SUMS, *EXTRAS, *STATISTICS, *PARTIES, *TOTALS, *OPENING]
PLAIN_KEYS = {
    TrainRequest: {"protocol", "round", "rounds", "lr-scale", "fit", "score", "encoder-sha256"},
    CompareRequest: {"protocol", "sites", "trained", "encoder-sha256"},
}
"""Keys of requests in which nothing more is asked for."""
NAMES = [f"{type(example).__name__}-{number}" for number, example in enumerate(EVERY)]


def alike(a, b) -> bool:
    """Tell whether two messages are equal to the last bit, NaN being NaN."""
    if type(a) is not type(b) and not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
        return False
    if dataclasses.is_dataclass(a):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


def test_trees_that_a_site_has_cross_as_their_hash_alone():
    request = dataclasses.replace(EXTRAS[4], by_hash=True)
    record = request.to_record()
    assert "arrays" not in record and "encoder" not in record
    record["encoder"] = dataclasses.replace(request, by_hash=False).to_record()["encoder"]
    assert alike(TrainRequest.from_record(record), dataclasses.replace(request, by_hash=False, arrays={}))
    del record["config"]["trees-sha256"]
    with pytest.raises(MalformedMessage):
        TrainRequest.from_record(record)


@pytest.mark.parametrize("example", EVERY, ids=NAMES)
def test_a_message_comes_back_as_it_went_here_and_through_bytes(example):
    assert alike(type(example).from_record(example.to_record()), example)
    assert alike(type(example).from_record(through_bytes(example.to_record())), example)


def test_every_message_is_among_the_examples_frozen_and_says_what_it_reveals():
    files = (enrol, summarise, train, compare, secure_sum, vertical)
    kinds = {kind for file in files for kind in vars(file).values() if inspect.isclass(kind)}
    kinds = {kind for kind in kinds if hasattr(kind, "from_record") and not kind.__name__.startswith("_")}
    found = set(filter(dataclasses.is_dataclass, kinds))
    # Those of an audit have examples of their own, in `test_auditing.py`.
    elsewhere = {AuditRequest, AuditReply}
    assert found - elsewhere == {type(example) for example in EVERY}
    for kind in (*found, Scores, Offset, Masked):
        assert kind.__dataclass_params__.frozen
        assert "Reveals: " in inspect.getdoc(kind)


@pytest.mark.parametrize("example", EVERY, ids=NAMES)
def test_every_key_that_crosses_is_kebab_case_or_a_metrics_own_name(example):
    def keys(record):
        for name, part in record.items():
            yield name
            yield from () if name.endswith(("metrics", "variances")) or isinstance(part, ArrayRecord) else part

    assert [key for key in keys(example.to_record()) if "_" in key or key != key.lower()] == []


def test_bytes_are_counted_as_flower_does_and_where_flower_cannot():
    for example in EVERY:
        record = example.to_record()
        try:
            by_flower = sum(part.count_bytes() for part in record.values())
        except ValueError:
            assert any("" in part.values() for part in record.config_records.values())
            continue
        assert count_bytes(record) == by_flower
    # key "a" and no text, key "b" and nothing, key "c" and a bool, key "d" and two numbers
    odd = RecordDict({"x": ConfigRecord({"a": "", "b": [], "c": True}), "y": MetricRecord({"d": [1.0, 2.0]})})
    assert count_bytes(odd) == 1 + 1 + 2 + 17


def spoiled(record: RecordDict, section: str, key: str | None, value) -> RecordDict:
    """A copy of a record with one section, or one value of it, gone (None) or another."""
    copy = through_bytes(record)
    if key is None:
        del copy[section]
    elif value is None:
        del copy[section][key]
    else:
        copy[section][key] = value
    return copy


@pytest.mark.parametrize("example", EVERY, ids=NAMES)
def test_without_a_required_section_or_field_the_error_names_it(example):
    whole = example.to_record()
    optional = {
        "settings", "extra", "scores", "holdout", "summary", "histogram", "arms", "differences", "offset", "masked",
        "signed", "shared", "edges", "fit", "parties", "sealed",
    }  # fmt: skip
    if isinstance(example, SummariseReply):
        optional.remove("summary")
    for section, part in whole.items():
        if section.split("-")[0] in optional or (
            section in ("arrays", "encrypted") and isinstance(example, TrainReply)
        ):
            continue
        if section == "arrays" and getattr(example, "trees_sha256", ""):
            continue  # they are named by their hash
        if section in ("total", "asked") and isinstance(example, BinsRequest | StatisticRequest):
            continue  # a gate knows which of them a study needs
        with pytest.raises(MalformedMessage) as caught:
            type(example).from_record(spoiled(whole, section, None, None))
        # Without a total it would be a request with a model.
        has_model = section == "total" and not isinstance(example, OpenRequest | OpenReply)
        assert ("arrays" if has_model else section) in str(caught.value) or section == "metrics"
        if section in ("arrays", "counts", "sums", "total", "encrypted"):
            continue
        for key in list(part):
            try:
                type(example).from_record(spoiled(whole, section, key, None))
            except MalformedMessage as error:
                assert key in str(error) or key.replace("-", "_") in str(error)
            else:
                field = next(f for f in dataclasses.fields(example) if f.name == key.replace("-", "_"))
                assert field.default is not dataclasses.MISSING


def test_every_field_of_a_train_reply_that_the_guard_reads_is_required():
    whole = EXAMPLES[7].to_record()
    for section, key in (("metrics", "num-examples"), ("metrics", "steps"), ("config", "kind")):
        with pytest.raises(MalformedMessage, match=key):
            TrainReply.from_record(spoiled(whole, section, key, None))
    with pytest.raises(MalformedMessage, match="the other side runs another version of flfed"):
        TrainReply.from_record(spoiled(whole, "config", "protocol", PROTOCOL + 1))


@pytest.mark.parametrize(("example", "section", "key", "value"), [
    (EXAMPLES[1], "config", "rows-high", "many"), (EXAMPLES[1], "config", "rows-high", True),
    (EXAMPLES[1], "config", "rows-high", 999.0), (EXAMPLES[1], "config", "accepted", 1),
    (EXAMPLES[1], "config", "site", 7), (EXAMPLES[1], "config", "colour", "blue"),
    (EXAMPLES[6], "config", "round", "one"), (EXAMPLES[6], "settings", "proximal-mu", "a lot"),
    (EXAMPLES[8], "scores", "num-examples", 3.5), (EXAMPLES[11], "arms", "value", ["high", "low"]),
    (EXAMPLES[11], "arms", "value", [0.5]), (EXAMPLES[11], "arms", "value", 0.5),
    (EXAMPLES[11], "config", "holdout-rows", 1.5),
    # What no honest site sends, and would fill a record, a page or a database.
    (EXAMPLES[1], "config", "site", "Cleveland/../x"), (EXAMPLES[1], "config", "site", "a" * 101),
    (EXAMPLES[1], "config", "site", "a\n"), (EXAMPLES[1], "config", "title", "long " * 500),
    (EXAMPLES[1], "config", "title", "red \x1b[31m"), (EXAMPLES[1], "config", "version", "0.1\n0.2"),
    (EXAMPLES[2], "config", "reason", "x" * 2001), (EXAMPLES[1], "config", "disclosure", "closed"),
    (EXAMPLES[1], "config", "disclosure", "loudly"), (EXAMPLES[7], "config", "kind", "delta\x00"),
    (EXAMPLES[8], "scores-metrics", "loss\n", 0.5), (EXAMPLES[11], "config", "note", "x" * 2001),
    (EXAMPLES[11], "config", "holdout-rows", 2**63 - 1), (EXAMPLES[11], "arms", "method", ["", "\x07"]),
])  # fmt: skip
def test_a_value_of_a_wrong_type_is_malformed_and_not_found_later(example, section, key, value):
    with pytest.raises(MalformedMessage):
        type(example).from_record(spoiled(example.to_record(), section, key, value))


@pytest.mark.parametrize("example", [e for e in EXAMPLES if type(e) in PLAIN_KEYS], ids=lambda e: type(e).__name__)
def test_what_is_not_asked_for_has_no_key_in_the_request(example):
    new = {TrainRequest: "offset", CompareRequest: "offset-deviation"}[type(example)]
    asked = getattr(example, "offset", False) or getattr(example, "deviation", None) is not None
    about = isinstance(example, CompareRequest) and example.bins != EVEN_ODDS
    bins = {"odds-centre", "odds-spread"} if about else set()
    assert set(example.to_record()["config"]) == PLAIN_KEYS[type(example)] | ({new} if asked else set()) | bins
    assert "offset" not in TrainReply(delta={}, num_examples=1.0, steps=0).to_record()


@pytest.mark.parametrize(
    "changed",
    [{"odds-spread": 0.2}, {"odds-spread": math.inf}, {"odds-spread": None}, {"odds-centre": None},
     {"odds-spread": -1.0}, {"odds-centre": math.inf}, {"odds-centre": "0"}, {"odds-centre": True},
     {"odds-spread": math.nan}],
)  # fmt: skip
def test_bins_without_a_centre_or_too_narrow_are_malformed(changed):
    whole = CompareRequest(arrays=ARRAYS, encoder=ENCODER, odds_centre=-2.5, odds_spread=0.25).to_record()
    assert CompareRequest.from_record(whole).bins == ScoreBins(-2.5, 0.25)
    kept = {**dict(whole["config"].items()), **changed}
    whole["config"] = ConfigRecord({name: value for name, value in kept.items() if value is not None})
    with pytest.raises(MalformedMessage, match="are not two numbers that bins have|is of a wrong type"):
        CompareRequest.from_record(whole)


@pytest.mark.parametrize("value", [-0.1, math.inf, -math.inf, "0.1", True, 10**400])
def test_a_deviation_that_is_no_number_of_at_least_0_is_malformed(value):
    whole = CompareRequest(arrays=ARRAYS, encoder=ENCODER, offset_deviation=0.25).to_record()
    whole["config"]["offset-deviation"] = value
    with pytest.raises(MalformedMessage, match="deviation is (not a number of at least 0|of a wrong type)"):
        CompareRequest.from_record(whole)


@pytest.mark.parametrize(("value", "error", "said"), [
    ([0.4, -0.4], [0.2, 0.3], None), ([0.4], [0.2], "its offset is not of 2 outputs"),
    ([[0.4, -0.4]], [0.2, 0.3], "its offset is not of 2 outputs"),
    ([0.4, math.nan], [0.2, 0.3], "its offset is not finite, or its standard error not above 0"),
    ([0.4, -0.4], [0.2, math.inf], "its offset is not finite, or its standard error not above 0"),
    ([0.4, -0.4], [0.2, 0.0], "its offset is not finite, or its standard error not above 0"),
])  # fmt: skip
def test_an_offset_that_cannot_be_used_is_said_to_be_one(value, error, said):
    assert Offset(value=np.array(value), error=np.array(error)).defect(2) == said


def test_a_message_of_another_protocol_is_refused_without_repeating_what_it_says():
    with pytest.raises(MalformedMessage) as caught:
        TrainReply.from_record(spoiled(EXAMPLES[7].to_record(), "config", "protocol", "x" * 5000))
    assert len(str(caught.value)) < 200


def test_a_list_of_figures_or_of_numbers_that_is_too_long_is_malformed():
    many = dataclasses.replace(EXAMPLES[11], arms=FIGURES * 1001)
    with pytest.raises(MalformedMessage, match="too long"):
        CompareReply.from_record(many.to_record())
    metrics = {f"metric-{number}": 0.5 for number in range(2001)}
    wide = dataclasses.replace(EXAMPLES[8], scores=dataclasses.replace(SCORES, metrics=metrics))
    with pytest.raises(MalformedMessage, match="too many"):
        TrainReply.from_record(wide.to_record())


@pytest.mark.parametrize(("reason", "told"), [
    ("the study is not approved here", "the study is not approved here"), ("", "error code 7"),
    (None, "error code 7"), ("\x1b[2J\n", "said something else (5 characters)"),
    ("x" * 9999, "said something else (9999 characters)"),
])  # fmt: skip
def test_the_reason_of_a_node_without_an_answer_is_a_sentence_of_ours_or_counted(reason: str | None, told: str):
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    assert fields.reason_of(Message(Error(code=7, reason=reason), reply_to=asked)) == told


def test_a_number_that_only_python_can_hold_is_no_number():
    record = EXAMPLES[7].to_record()
    record["metrics"]["loss"] = 10**400
    with pytest.raises(MalformedMessage, match="loss"):
        TrainReply.from_record(record)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 255), np.uint16), ((3, 256), np.uint16), (512, np.uint32), ((2, 256), np.int64), ((2, 256), np.float64)],
)
def test_a_histogram_that_cannot_be_added_to_others_is_malformed(shape, dtype):
    record = EXAMPLES[11].to_record()
    record["histogram"] = ArrayRecord({"counts": Array(np.ones(shape, dtype))})
    with pytest.raises(MalformedMessage, match="histogram"):
        CompareReply.from_record(record)


@pytest.mark.parametrize("bad", [np.array(["a", "b"]), np.arange(3), np.ones(3, dtype=np.float32)])
def test_sums_and_encoders_are_float64_or_malformed(bad):
    with pytest.raises(MalformedMessage):
        SummariseReply.from_record(SummariseReply(summary=dataclasses.replace(SUMMARY, cells=bad)).to_record())
    with pytest.raises(MalformedMessage):
        CompareRequest.from_record(
            CompareRequest(arrays=ARRAYS, encoder=dataclasses.replace(ENCODER, scale=bad)).to_record()
        )


def npy(value: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, value, version=version, allow_pickle=True)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


WHOLE = npy(np.ones((2, 3)))
BYTES = {
    "nothing": b"", "not an array": b"\x93NUMPY", "cut off": WHOLE[:-1], "too long": WHOLE + b"\0",
    "an archive": archive(), "a broken archive": archive()[:-9], "objects": npy(np.array([{}, []], dtype=object)),
    "texts": npy(np.array(["Jane Roe"])),
    "a terabyte by its header": WHOLE.replace(b"(2, 3), }            ", b"(999999, 999999), }  "),
    "a length that overflows": WHOLE.replace(b"(2, 3), }                   ", b"(99999999999999999999999), }"),
    "nothing times too much": WHOLE[:-48].replace(b"(2, 3), }                ", b"(0, 9999999999999999999)}"),
    "a negative length": WHOLE.replace(b"(2, 3)", b"(-2,3)"),
    "a hundred dimensions": WHOLE.replace(b"(2, 3), }" + b" " * 30, b"(" + b"1," * 14 + b"6), }" + b" " * 2),
    "a type that is none": WHOLE.replace(b"<f8", b"<f7"),
    "code in its header": WHOLE.replace(b"(2, 3), }            ", b"exit(), }            "),
}  # fmt: skip


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_array_are_malformed_and_never_read_otherwise(case):
    data = BYTES[case]
    assert data != WHOLE
    record = EXAMPLES[7].to_record()
    record["arrays"]["weight-0"] = Array(dtype="float64", shape=(2, 3), stype="numpy.ndarray", data=data)
    try:
        found = TrainReply.from_record(record)
    except MalformedMessage as error:
        assert "'arrays'" in str(error)
    else:  # many dimensions of one are an array still; the guard compares shapes
        assert case == "a hundred dimensions" and found.delta["weight-0"].size == 6


def test_an_array_comes_back_whatever_its_type_order_and_size():
    by_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for value in (np.zeros((0, 3)), np.ones((2, 3, 4), dtype=np.float32), by_columns, np.array([True, False]),
                  np.arange(5, dtype=np.int8), np.arange(3, dtype=">f8")):  # fmt: skip
        record = RecordDict({"arrays": ArrayRecord({"a": Array(value)})})
        found = fields.ndarrays(record, "arrays")["a"]
        assert found.dtype == value.dtype and not found.flags.writeable
        np.testing.assert_array_equal(found, value)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.lists(st.floats(), max_size=3), st.lists(st.text(max_size=3), max_size=3),
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32", ">f8", "int64", "uint8", "bool", "<U3"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_arrays_cross_in_the_very_bytes_of_numpy_save(dtype, shape):
    value = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape).T
    for _ in range(2):  # the second time how it starts is known
        found, saved = array_record({"a": value})["a"], io.BytesIO()
        np.save(saved, np.ascontiguousarray(value), allow_pickle=False)
        assert found.data == saved.getvalue()
        assert found == Array(np.ascontiguousarray(value))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_record_makes_a_message_raise_anything_but_malformed(data):
    example = data.draw(st.sampled_from(EXAMPLES))
    record = through_bytes(example.to_record())
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from([*record, "scores", "scores-histogram", "histogram", "new"]))
        change = data.draw(st.sampled_from(["remove", "other kind", "value", "new key"]))
        part = record.get(section)
        if change == "remove":
            record.pop(section, None)
        elif change == "other kind" or part is None:
            record[section] = data.draw(
                st.sampled_from([ConfigRecord({"a": 1}), MetricRecord({"a": 1}), ArrayRecord({"a": Array(np.ones(2))})])
            )
        else:
            key = data.draw(st.sampled_from([*part, "new"])) if change == "value" else "another-key"
            value = data.draw(scalars)
            if isinstance(part, ArrayRecord):
                raw = data.draw(st.binary(max_size=200))
                value = Array(dtype="float64", shape=(2,), stype="numpy.ndarray", data=raw)
            try:
                part[key] = value
            except TypeError:  # Flower itself does not take it
                part.pop(key, None)
    try:
        type(example).from_record(record)
    except MalformedMessage as error:
        assert str(error)
    assert count_bytes(record) >= 0
