"""V.A. Medical Center, Long Beach: 200 patients examined for chest pain."""

from flfed import Csv, Field, Holdout, Mapped, Site

examination = {
    "sex": Field("sex", values={"0": "female", "1": "male"}),
    "cp": Field(
        "cp",
        values={"1": "typical-angina", "2": "atypical-angina", "3": "non-anginal-pain", "4": "asymptomatic"},
    ),
    "restecg": Field("restecg", values={"0": "normal", "1": "st-t-abnormality", "2": "left-ventricular-hypertrophy"}),
    "disease": Field("num", values={"0": "absent", "1": "present", "2": "present", "3": "present", "4": "present"}),
}

site = Site(
    name="long-beach",
    title="V.A. Medical Center, Long Beach",
    dataset="heart-disease",
    source=Csv(
        "processed.va.data",
        columns=(
            *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
            *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
        ),
        missing=("?",),
    ),
    mapping={
        **examination,
        "slope": Field("slope", values={"1": "up", "2": "flat", "3": "down"}),
        "thal": Field("thal", values={"3": "normal", "6": "fixed-defect", "7": "reversible-defect"}),
    },
    holdout=Holdout(share=0.3, salt="long-beach-2026"),
    also={"heart-flamby": Mapped(examination)},
)
