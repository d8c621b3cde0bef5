"""Shared linear model as a scikit-learn pipeline, from the schema's columns."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.predict import inputs_of
from flfed.rows.features.encode import input_names


class Encoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # - scikit-learn has no types
    """Transformer from a table in the schema's columns to a model's inputs.

    Parameters
    ----------
    shared : SharedModel
    """

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Return itself: the encoder was made by the run."""
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the inputs, float64 [rows, inputs]."""
        return inputs_of(self.shared, X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the inputs."""
        return np.array(input_names(self.shared.layout), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell that it is fitted."""
        return True


def to_sklearn(model: SharedModel) -> Pipeline:
    """Return a linear model as a fitted pipeline of encoder and scikit-learn's own class.

    Raises
    ------
    UsageError
        If the model is not linear, or its target is logarithmic.
    """
    made = model.study.model.build("model")
    if not made.linear:
        raise UsageError(f"model {model.study.model.name!r} is not linear: scikit-learn has no class for its arrays")
    weight, bias = (model.arrays[name].astype(float) for name in made.layers[0])
    if model.schema.task == "regression":
        if model.layout.target.transform == "log1p":
            raise UsageError("the target is logarithmic, which scikit-learn's linear regression does not know")
        scale, center = model.encoder.scale[-1], model.encoder.center[-1]
        estimator: Any = LinearRegression()
        estimator.coef_, estimator.intercept_ = weight[:, 0] * scale, float(bias[0] * scale + center)
    else:
        estimator = LogisticRegression()
        estimator.coef_, estimator.intercept_ = weight.T, bias
        estimator.classes_ = np.array(model.schema.classes, dtype=object)
    estimator.n_features_in_ = len(weight)
    return Pipeline([("encode", Encoder(model)), ("predict", estimator)])
