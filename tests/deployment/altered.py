"""What alters one section of a message."""

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict


def with_array(name: str, value: np.ndarray, section: str = "arrays") -> Callable[[RecordDict], None]:
    """Return what writes an array into a section of a message."""

    def change(content: RecordDict) -> None:
        content[section] = ArrayRecord({**dict(content[section].items()), name: Array(value)})

    return change


def with_value(section: str, key: str, value: object) -> Callable[[RecordDict], None]:
    """Return what writes a value into a section of a message."""

    def change(content: RecordDict) -> None:
        content[section] = ConfigRecord({**dict(content.get(section, {}).items()), key: value})

    return change
