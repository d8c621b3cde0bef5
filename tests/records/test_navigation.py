"""The margin's list of pages: the page Runs alone at its top, all others under a heading."""

from __future__ import annotations

from pathlib import Path

import pytest

from flfed.records import dashboard
from flfed.records.dashboard import GROUPS, page_files, page_groups

HEADINGS = "[data-testid=stNavSectionHeader]"
LINKS = "[data-testid=stSidebarNavLink]"


def test_every_page_is_in_one_group_and_only_runs_has_no_heading():
    groups = page_groups()
    assert list(groups[""]) == ["runs"]
    assert [name for pages in groups.values() for name in pages] == list(page_files())
    assert all(heading and heading.lower() not in pages for heading, pages in groups.items() if pages is not groups[""])


def test_a_new_page_is_found_by_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("p10_runs", "p45_hospitals", "p80_proof"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(dashboard, "page_files", lambda: dashboard.pages_in(tmp_path))
    found = {heading: list(pages) for heading, pages in page_groups().items()}
    assert found == {"": ["runs"], GROUPS["2"]: ["hospitals"], GROUPS["8"]: ["proof"]}


@pytest.mark.browser
def test_no_heading_stands_above_the_link_to_runs(window):
    links = window.page.locator(LINKS)
    links.first.wait_for()
    assert [link.strip().lower() for link in links.all_inner_texts()] == list(page_files())
    shown = [heading.strip() for heading in window.page.locator(HEADINGS).all_inner_texts()]
    assert shown == [heading for heading in page_groups() if heading]
    assert links.first.bounding_box()["y"] < window.page.locator(HEADINGS).first.bounding_box()["y"]
