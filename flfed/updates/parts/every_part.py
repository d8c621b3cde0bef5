"""The list of all parts of a study."""

from __future__ import annotations

from flfed.updates.parts.codec import PackedArrays
from flfed.updates.parts.mechanism import CoveringNoise, NoiseOnRows, PrivacyMechanism
from flfed.updates.parts.part import Part
from flfed.updates.parts.run_kinds import Audit, FrozenLayers, PartOfUnits, Statistic, Training, Validation
from flfed.updates.parts.secure_aggregation import HomomorphicEncryption, SecureAggregation
from flfed.updates.parts.strategy import ArraysBesideModel, Strategy
from flfed.updates.parts.trees import Trees
from flfed.updates.parts.vertical import Vertical

PARTS: tuple[Part, ...] = (
    Trees(),
    Vertical(),
    Validation(),
    FrozenLayers(),
    PartOfUnits(),
    # Strategy and mechanism know best which plans they can run.
    Strategy(),
    PrivacyMechanism(),
    PackedArrays(),
    SecureAggregation(),
    HomomorphicEncryption(),
    ArraysBesideModel(),
    NoiseOnRows(),
    CoveringNoise(),
)
"""In the order in which they check a study."""

BORDER: tuple[Part, ...] = (
    Training(),
    Statistic(),
    Validation(),
    Vertical(),
    Audit(),
    Strategy(),
    PackedArrays(),
    ArraysBesideModel(),
    Trees(),
    SecureAggregation(),
    HomomorphicEncryption(),
    CoveringNoise(),
)
"""In the order in which they change a message, the innermost first: the last one has the last word on an output."""
