"""Test vectors of what crosses; `python -m tests.vectors.make` writes the JSON files beside this one.

Each file has what goes in and what comes out, so that another implementation can compute it anew. Texts, whole numbers
and bytes are to the last bit. Numbers of one processor differ from another's in their last digits: `compute` makes them
here, and a test holds them within 1e-9 of the file's. What `SHA256SUMS` says of the files is checked byte by byte.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from flfed.federation.client.training_step import FAR
from flfed.registry import kebab_keys
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import encode, input_names
from flfed.rows.features.summarise import layout_of, leaving
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.fit import fit
from flfed.rows.training.requests import FitRequest
from flfed.seeds import generator, words
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder, fit_encoder, merge, schema_encoder
from flfed.updates.aggregation.losses import RowLoss, decode_losses, encode_losses
from flfed.updates.aggregation.summer import Summer
from flfed.updates.arrays import shapes_of
from flfed.updates.codec import Codec
from flfed.updates.codecs.int8 import Int8
from flfed.updates.codecs.top_k import TopK
from flfed.updates.masks.pairs import Exchange, RunKey, SignedKey, exchange_key, keys_hash, mask, pair_secrets
from flfed.updates.masks.ring import rings
from flfed.updates.messages.enrol import EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.train import Scores, TrainReply, TrainRequest

HERE = Path(__file__).parent
SUMS = HERE / "SHA256SUMS"
SEED = 7
SITES = ("hill", "lake", "shore")
SCHEMA = {
    "format": 1,
    "name": "vectors",
    "title": "Rows of the test vectors",
    "task": "binary",
    "target": "outcome",
    "columns": {
        "age": {"kind": "number", "description": "Age", "range": [0, 100], "unit": "years"},
        "dose": {"kind": "number", "description": "Dose", "range": [0, 1000], "transform": "log1p"},
        "smoker": {"kind": "flag", "description": "Smokes"},
        "stage": {"kind": "category", "description": "Stage", "values": ["one", "two", "three"]},
        "outcome": {"kind": "target", "description": "Outcome", "values": ["no", "yes"]},
    },
}
ROWS = 24
PLAN = {"optimiser": "sgd", "lr": 0.5, "batch": 8, "steps": 5, "l2": 0.01}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays with type and shape, bytes as hex."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.newbyteorder("<").str, "shape": list(value.shape), "values": plain(value.tolist())}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(of) for of in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def message(content: RecordDict) -> dict[str, Any]:
    """Return a message's sections, and its bytes as Flower's protobuf has them, in base64."""
    sections: dict[str, Any] = {}
    for name, section in content.items():
        if isinstance(section, ArrayRecord):
            sections[name] = {"arrays": {key: array.numpy() for key, array in section.items()}}
        elif isinstance(section, MetricRecord):
            sections[name] = {"metrics": dict(section)}
        else:
            sections[name] = {"config": dict(section)}
    return {"sections": sections, "protobuf": base64.b64encode(protobuf(content)).decode()}


def protobuf(content: RecordDict) -> bytes:
    """Return a message's bytes; the same content has the same."""
    return recorddict_to_proto(content).SerializeToString(deterministic=True)


def content_of(sections: Mapping[str, Any]) -> RecordDict:
    """Return the message of sections as a file has them."""
    found = RecordDict()
    for name, section in sections.items():
        ((kind, values),) = section.items()
        if kind == "arrays":
            found[name] = ArrayRecord({key: _flower_array(of) for key, of in values.items()})
        elif kind == "metrics":
            found[name] = MetricRecord({key: _number(of) for key, of in values.items()})
        else:
            found[name] = ConfigRecord({key: _number(of) for key, of in values.items()})
    return found


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value


def array_of(value: Mapping[str, Any]) -> np.ndarray:
    """Return an array as a file has it."""
    return np.array(value["values"], dtype=np.dtype(value["dtype"])).reshape(value["shape"])


def _flower_array(value: Mapping[str, Any]) -> Any:
    from flwr.app import Array

    return Array(array_of(value))


def table_of(site: str) -> pd.DataFrame:
    """Return the rows of one of the sites; some cells are missing."""
    rng = np.random.default_rng(SITES.index(site))
    age = rng.integers(20, 90, ROWS).astype(float)
    dose = rng.integers(0, 900, ROWS).astype(float)
    smoker = rng.integers(0, 2, ROWS).astype(float)
    stage = np.array(["one", "two", "three"], dtype=object)[rng.integers(0, 3, ROWS)]
    outcome = np.where(age + 40 * smoker + rng.normal(0, 20, ROWS) > 75, "yes", "no").astype(object)
    age[3], dose[5], smoker[7] = np.nan, np.nan, np.nan
    return pd.DataFrame({"age": age, "dose": dose, "smoker": smoker, "stage": stage, "outcome": outcome})


def schema() -> Schema:
    """Return the schema of the rows."""
    return Schema.model_validate(SCHEMA)


def encoder() -> Encoder:
    """Return the encoder of all sites' rows."""
    layout = _layout()
    return fit_encoder(layout, merge([leaving(table_of(site), layout, None) for site in SITES]))


def _layout() -> Any:
    found = schema()
    return layout_of(found, found.features(None), missing_indicator=True)


def enrolment() -> dict[str, Any]:
    """Return what a coordinator asks at first, and what a site answers."""
    request = EnrolRequest(dataset="vectors", schema_sha256=schema().sha256())
    reply = EnrolReply(
        site="hill", title="Hill Hospital", version="0.4.0", accepted=True, rows_low=10, rows_high=99,
        disclosure="open", resplit=False,
    )  # fmt: skip
    refusal = EnrolReply(site="lake", title="Lake Hospital", version="0.4.0", accepted=False, reason="a policy")
    return {
        "schema": SCHEMA,
        "schema-sha256": request.schema_sha256,
        "request": message(request.to_record()),
        "reply": message(reply.to_record()),
        "refusal": message(refusal.to_record()),
    }


def encoding() -> dict[str, Any]:
    """Return the sums of each site's rows, the encoder that follows from their total, and rows through it."""
    layout = _layout()
    tables = {site: table_of(site) for site in SITES}
    exact = {site: leaving(table, layout, None) for site, table in tables.items()}
    total, made = merge(list(exact.values())), encoder()
    encoded = encode(tables["hill"], layout, made)
    return {
        "schema": SCHEMA,
        "missing-indicator": True,
        "columns": [{"name": column.name, "cells": len(column.cells)} for column in layout.columns],
        "rows": {site: json.loads(table.to_json(orient="records")) for site, table in tables.items()},
        "sums": {site: found.arrays() for site, found in exact.items()},
        "sums-of-an-institution": {"site": "hill", "cell-minimum": 5, **leaving(tables["hill"], layout, 5).arrays()},
        "total": total.arrays(),
        "encoder": made.arrays(),
        "encoder-sha256": made.sha256(),
        "encoder-of-scaler-schema": schema_encoder(layout).arrays(),
        "inputs": {"site": "hill", "names": list(input_names(layout)), "x": encoded.x, "y": encoded.y},
    }


def one_round() -> dict[str, Any]:
    """Return a request of a round, what a site draws and trains, and its reply."""
    layout, made, plan, number = _layout(), encoder(), Plan(**PLAN), 2
    rows = encode(table_of("hill"), layout, made)
    start = {"weight": np.linspace(-0.5, 0.5, rows.x.shape[1])[:, None], "bias": np.array([0.25])}
    request = TrainRequest(arrays=start, encoder=made, round=number, rounds=3)
    order = generator(SEED, site="hill", purpose="fit", number=number).permutation(len(rows))
    trained = fit(
        FitRequest(
            model=Logistic(), task="binary", arrays=start, rows=rows, plan=plan, lr=plan.lr, delta=True,
            rng=generator(SEED, site="hill", purpose="fit", number=number),
        )
    )  # fmt: skip
    scores = Scores(rows="training", num_examples=len(rows), metrics={"loss": 0.75}, variances={}, histogram=None)
    reply = TrainReply(
        delta=trained.arrays, num_examples=float(len(rows)), loss=trained.loss, steps=trained.steps, scores=scores
    )
    return {
        "site": "hill",
        "plan": {"name": "logistic", **PLAN},
        "seed": SEED,
        "words-of-the-draw": words("hill/fit"),
        "entropy": [SEED, *words("hill/fit"), number],
        "order-of-the-first-epoch": order,
        "inputs": {"x": rows.x, "y": rows.y},
        "request": message(request.to_record()),
        "delta": trained.arrays,
        "loss": trained.loss,
        "reply": message(reply.to_record()),
    }


CODECS: dict[str, Codec] = {"int8": Int8(), "top-k": TopK(share=0.25)}


def codecs() -> dict[str, Any]:
    """Return an update as each codec packs it, and what is read of that."""
    rng = np.random.default_rng(3)
    update = {"weight": np.round(rng.normal(size=(5, 2)), 4), "bias": np.array([0.5, -0.125])}
    # A codec draws from the round's generator, far beyond what training draws of it.
    found: dict[str, Any] = {"update": update, "seed": SEED, "site": "hill", "purpose": "fit", "round": 2}
    found["advanced-by"] = FAR
    for name, codec in CODECS.items():
        stream: Any = generator(SEED, site="hill", purpose="fit", number=2).bit_generator
        packed = codec.encode(update, np.random.Generator(stream.advance(FAR)))
        found[name] = {"packed": packed, "read": codec.decode(packed, shapes_of(update))}
    return found


def masked_sum() -> dict[str, Any]:
    """Return one sum over all sites of a run: signed keys, pair secrets and masks of three sites, and the total."""
    study = {"study_sha256": hashlib.sha256(b"study").hexdigest(), "run": "run-1", "repeat": 0}
    own, gates, signed = {}, {}, []
    for site in SITES:
        own[site] = RunKey.of_private(hashlib.sha256(f"key of {site}".encode()).digest())
        gates[site] = hashlib.sha256(f"gate of {site}".encode()).digest()
        unsigned = SignedKey(site=site, public_key=own[site].public.hex(), changed=site == "lake", **study)
        signed.append(unsigned.sign(Ed25519PrivateKey.from_private_bytes(gates[site])))
    most_rows, number = 24, 3
    exchange = Exchange("train", number, hashlib.sha256(b"request").hexdigest())
    updates_ring, sums_ring = rings(len(SITES), 2.0)
    sites: dict[str, Any] = {}
    for place, site in enumerate(SITES):
        secrets = pair_secrets(site, own[site], signed, most_rows)
        weight = (place + 1) / len(SITES)
        losses = {"fit": RowLoss(most_rows * weight, 0.693), "scores": RowLoss(most_rows * weight, 0.5 + place / 10)}
        rounding = generator(SEED, site=site, purpose="sum train", number=number)
        updates = updates_ring.encode(weight * np.linspace(-2, 2, 4), rounding)
        sums = sums_ring.encode(np.array([weight]), rounding)
        beside = encode_losses(losses, sites=len(SITES), most_rows=most_rows, rng=rounding)
        numbers = [np.concatenate([np.ones(1, part.dtype), part]) for part in (updates, np.concatenate([sums, beside]))]
        sizes = [part.size for part in numbers]
        masks = mask(site, secrets, exchange, *sizes)
        sites[site] = {
            "gate-private-key": gates[site],
            "private-key": own[site].private,
            "packed-key": signed[place].pack().decode(),
            "pair-secrets": secrets,
            "mask-keys": {peer: exchange_key(secret, "mask", exchange, *sizes) for peer, secret in secrets.items()},
            "weighted-update": weight * np.linspace(-2, 2, 4),
            "weight": weight,
            "losses": {part: asdict(loss) for part, loss in losses.items()},
            "numbers": numbers,
            "masked": [part + of_mask for part, of_mask in zip(numbers, masks, strict=True)],
        }
    sent = {site: Masked(vector=own["masked"][0], sums=own["masked"][1]) for site, own in sites.items()}
    total = Summer(cohort=SITES, largest_entry=2.0).add(sent)
    return {
        **kebab_keys(study),
        "most-rows": most_rows,
        "keys-sha256": keys_hash(signed, most_rows),
        "exchange": kebab_keys(asdict(exchange)),
        "seed": SEED,
        "purpose-of-rounding": "sum train",
        "ring": {"bits": updates_ring.bits, "scale": updates_ring.scale},
        "ring-of-weights": {"bits": sums_ring.bits, "scale": sums_ring.scale},
        "sites": sites,
        "total": total,
        "weighted-update": updates_ring.decode(total[0]),
        "weight": sums_ring.decode(total[1][:1])[0],
        "mean-losses": decode_losses(total[1][1:], sites=len(SITES), scored="training").means,
    }


VECTORS: dict[str, Callable[[], dict[str, Any]]] = {
    "enrolment": enrolment,
    "encoder": encoding,
    "round": one_round,
    "codec": codecs,
    "masked-sum": masked_sum,
}


def compute(name: str) -> Any:
    """Return a vector as its file has it, made anew."""
    return json.loads(written(name))


def written(name: str) -> str:
    """Return the text of a vector's file."""
    return json.dumps(plain(VECTORS[name]()), indent=1, ensure_ascii=False) + "\n"


def checksums(folder: Path) -> str:
    """Return a line for each file, as `sha256sum` writes it."""
    lines = [
        f"{hashlib.sha256((folder / f'{name}.json').read_bytes()).hexdigest()}  {name}.json" for name in sorted(VECTORS)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for made in VECTORS:
        (HERE / f"{made}.json").write_text(written(made), encoding="utf-8")
    SUMS.write_text(checksums(HERE), encoding="ascii")
