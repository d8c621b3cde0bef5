"""Codecs at the server: what they save, and what sites had left out before a break."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp import Grid

from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.codec import Codec, Shapes, codec_of, download_of
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.updates.strategies.fedavg import FedAvg

FORGOTTEN = (
    "the run was resumed on an engine that keeps no site's error feedback: what sites had left out of their updates "
    "until then is lost, and the arrays are not those of a run without a break"
)
UNKEPT = (
    "the run was resumed on an engine that keeps no site's own arrays: what the strategy had kept at sites until then "
    "is lost, and the arrays are not those of a run without a break"
)


def _codecs(study: Study) -> str:
    """Return the names of the codecs that sites must know, "" where there is none."""
    return ", ".join(dict.fromkeys(name for name in (study.codec.name, study.download) if name != "none"))


def packing_saves(study: Study, arrays: Arrays) -> dict[str, Any]:
    """Return the codecs and the bytes that each takes off a message of training; empty where a study has none."""
    if not _codecs(study):
        return {}
    saved = {
        "saved-to-site": _shorter(download_of(study), arrays),
        "saved-to-server": _shorter(codec_of(study), arrays),
    }
    return {"update": study.codec.name, "download": study.download, **saved}


def _shorter(codec: Codec | None, arrays: Arrays) -> int:
    """Return how many bytes shorter the section of these arrays is once it is packed.

    They are counted on both sections: a packed array's size does not depend on its values.
    """
    if codec is None:
        return 0
    packed = codec.encode(arrays, generator(0, site="", purpose="codec-bytes"))
    return count_array_bytes(arrays) - count_array_bytes(packed)


def restore_sites(grid: Grid, round: int, states: Mapping[str, Arrays], strategy: FedAvg, model: Shapes) -> str:
    """Give sites back what they kept for themselves; returns what is lost where nobody has it.

    In one process it goes with the checkpoint; institutions have it on their own disks.
    """
    run = strategy.run
    if (restore := getattr(grid, "restore_states", None)) is not None:
        restore(round, states)
        return ""
    at_sites = getattr(grid, "sites_keep_state", False)
    if at_sites:
        return ""
    if run.codec is not None and run.codec.feedback:
        return FORGOTTEN
    return UNKEPT if strategy.extra_shapes(model).stay else ""
