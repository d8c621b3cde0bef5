"""Reading of data frames by a model that was trained on such.

It is kept beside the schema, so that a model that is loaded later reads them alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd

from flfed.files import write_whole
from flfed.packages import FRAMES
from flfed.paths import home
from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.sources import Frame
from flfed.rows.proposals.tables import columns_by_name
from flfed.rows.proposals.workspace import Workspace

FILE = "reading.json"


@dataclass(frozen=True)
class FrameReading:
    """Reading of data frames, as those of a training.

    Attributes
    ----------
    fields : mapping of schema column to Field or None
        None where a column is read as it is.
    labels : tuple
        The target's own values for the schema's classes, in their order; none of a regression.
    """

    fields: Mapping[str, Field | None]
    labels: tuple[Any, ...] = ()

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """Return how the data frames of a workspace are read."""
        proposal = workspace.proposal
        return cls(proposal.fields(), _labels(workspace))

    @classmethod
    def kept(cls, dataset: str) -> Self | None:
        """Return how the data frames of a dataset were read on this machine, None where there were none."""
        path = home() / FRAMES / "datasets" / dataset / FILE
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        fields = {name: None if said is None else _field(said) for name, said in found["fields"].items()}
        return cls(fields, tuple(found["labels"]))

    def keep(self, dataset: str) -> None:
        """Write it beside the dataset's schema."""
        said = {name: None if field is None else asdict(field) for name, field in self.fields.items()}
        text = json.dumps({"fields": said, "labels": self.labels}, ensure_ascii=False)
        write_whole(home() / FRAMES / "datasets" / dataset / FILE, text.encode())

    def mapping(self, names: Sequence[object]) -> dict[str, str | Field | None]:
        """Return how a data frame of these column names is read."""
        return columns_by_name(self.fields, names)


def _field(said: Mapping[str, Any]) -> Field:
    return Field(**{**said, "missing": tuple(said["missing"])})


def _labels(workspace: Workspace) -> tuple[Any, ...]:
    """Return the target's own values for the classes, of each the first that a frame has.

    They are texts where a value is no plain one, or where two classes would be equal.
    """
    schema = workspace.proposal.schema
    column = schema.columns[schema.target]
    found: dict[str, Any] = {}
    for site in workspace.sites:
        table = site.source.table if isinstance(site.source, Frame) else pd.DataFrame()
        own = workspace.proposal.mapping(list(table.columns)).get(schema.target, schema.target)
        field = Field(own) if isinstance(own, str) else own
        if field is None:
            continue
        cells = table[field.column]
        read = pd.Series(read_column(cells, schema.target, column, field)[0])
        for name in set(schema.classes) - set(found):
            own_values = cells[(read == name).to_numpy(dtype=bool)]
            if len(own_values):
                value = own_values.iloc[0]
                found[name] = value.item() if hasattr(value, "item") else value
    labels = tuple(found.get(name, name) for name in schema.classes)
    plain = all(isinstance(label, (bool, int, float, str)) for label in labels) and len(set(labels)) == len(labels)
    return labels if plain else schema.classes


def is_number(value: object) -> bool:
    """Tell whether a parameter is a number, which a flag is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
