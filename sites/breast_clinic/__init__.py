"""Breast clinic: the diagnosis of 569 masses, and ten measurements of their largest cell nuclei."""

from flfed import Csv, Field, Holdout, Site

MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)

site = Site(
    name="breast-clinic",
    title="Breast clinic (a file of FATE)",
    dataset="breast-cancer-parties",
    source=Csv("breast_hetero_guest.csv"),
    mapping={
        "patient": "id",
        # FATE's x0 to x9 are the worst values of Wisconsin's table: they are equal to six decimals.
        **{f"worst {name}": f"x{place}" for place, name in enumerate(MEASURES)},
        **{f"mean {name}": None for name in MEASURES},
        **{f"{name} error": None for name in MEASURES},
        "diagnosis": Field("y", values={"0": "malignant", "1": "benign"}),
    },
    holdout=Holdout(share=0.3, salt="breast-clinic-2026"),
    partial=True,
)
