"""A strategy that brings a table library into the place where only updates are."""

from __future__ import annotations

import pandas as pd

from flfed.updates.strategies.fedavg import FedAvg


class Tabular(FedAvg):
    """Sees tables. Source: none."""

    table = pd.DataFrame
