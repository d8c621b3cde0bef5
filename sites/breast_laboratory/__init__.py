"""Laboratory: twenty measurements of the cell nuclei of 569 masses, without their diagnosis."""

from flfed import Csv, Site

MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)

site = Site(
    name="breast-laboratory",
    title="Laboratory (a file of FATE)",
    dataset="breast-cancer-parties",
    source=Csv("breast_hetero_host.csv"),
    mapping={
        "patient": "id",
        # FATE's x0 to x19 are means and their standard errors.
        **{f"mean {name}": f"x{place}" for place, name in enumerate(MEASURES)},
        **{f"{name} error": f"x{10 + place}" for place, name in enumerate(MEASURES)},
        **{f"worst {name}": None for name in MEASURES},
        "diagnosis": None,
    },
    holds="columns",
)
