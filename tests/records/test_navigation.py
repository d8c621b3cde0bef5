"""The margin's list of pages: every page in the order of its number, and none under a heading."""

from pathlib import Path

import pytest

from flfed.records.dashboard import page_files, pages_in

LINKS = "[data-testid=stSidebarNavLink]"


def test_a_new_page_comes_by_its_file_alone_in_the_order_of_its_number(tmp_path: Path):
    for name in ("p80_proof", "p10_runs", "p45_two_hospitals", "notes"):
        (tmp_path / f"{name}.py").touch()
    assert list(pages_in(tmp_path)) == ["runs", "two-hospitals", "proof"]


@pytest.mark.browser
def test_the_margin_lists_every_page(window):
    links = window.page.locator(LINKS)
    links.first.wait_for()
    assert [link.strip().lower().replace(" ", "-") for link in links.all_inner_texts()] == list(page_files())
