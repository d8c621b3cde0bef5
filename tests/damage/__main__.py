"""Write the page of damaged tables anew: `python -m tests.damage`."""

from tests.damage.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
