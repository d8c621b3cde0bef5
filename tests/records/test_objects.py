"""Objects of a record as dataclasses: keys, numbers as they were written, and what a picture of a chart is made of."""

import re
from dataclasses import dataclass, field

import pandas as pd

from flfed.records.charts.chart import Chart, picture
from flfed.records.objects import read, read_some, write


@dataclass(frozen=True)
class At:
    site: str
    held_back: float | None = None


@dataclass(frozen=True)
class Whole:
    global_: list[At] = field(default_factory=list)
    by_site: dict[str, At] = field(default_factory=dict)


FOUND = {"global": [{"site": "a", "held-back": 5}], "by-site": {"b": {"site": "b", "held-back": None}}}


def test_an_object_is_read_by_its_keys_and_written_as_it_was():
    whole = read(Whole, FOUND | {"of-a-later-version": 1})
    assert whole == Whole([At("a", 5)], {"b": At("b")})
    assert write(whole) == FOUND and list(write(whole)) == ["global", "by-site"]
    # A whole number stays one: JSON would show 5.0 otherwise.
    assert isinstance(whole.global_[0].held_back, int)
    assert read(Whole, whole) is whole
    assert read_some(At, [None, {"site": "c"}]) == [At("c")]


def test_a_picture_loads_nothing_and_its_words_stay_as_they_are():
    mark = {
        "mark": {"type": "text"},
        "encoding": {"text": {"field": "said"}, "y": {"field": "said", "type": "nominal"}},
    }
    svg = picture(Chart(pd.DataFrame({"said": ["0.94567", "<b>&\u202e"]}), {"layer": [mark]}), 200)
    assert "0.94567" in svg and "<b>" not in svg and "&lt;b&gt;&amp;" in svg
    assert "\u202e" not in svg and re.search(r"https?:|url\(|<script|xmlns", svg) is None
