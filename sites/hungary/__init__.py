"""Hungarian Institute of Cardiology, Budapest: 294 patients examined for chest pain."""

from flfed import Csv, Field, Holdout, Mapped, Site

examination = {
    "sex": Field("sex", values={"0": "female", "1": "male"}),
    "cp": Field(
        "cp",
        values={"1": "typical-angina", "2": "atypical-angina", "3": "non-anginal-pain", "4": "asymptomatic"},
    ),
    "restecg": Field("restecg", values={"0": "normal", "1": "st-t-abnormality", "2": "left-ventricular-hypertrophy"}),
    "disease": Field("num", values={"0": "absent", "1": "present"}),
}

site = Site(
    name="hungary",
    title="Hungarian Institute of Cardiology, Budapest",
    dataset="heart-disease",
    source=Csv(
        "processed.hungarian.data",
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
    holdout=Holdout(share=0.3, salt="hungary-2026"),
    also={"heart-flamby": Mapped(examination)},
)
