"""docs/messages.md: made from the classes of the messages, and as they are now."""

import re

from flfed.updates.messages.kinds import KINDS
from tests.messages_page import PAGE, classes, kinds_of, page

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_classes_say():
    assert page() == TEXT, "write it anew: python -m tests.messages_page"


def test_the_page_lists_every_kind_that_a_site_answers_and_both_ways():
    assert {name for kind in classes() for name in kinds_of(kind)} == set(KINDS)
    assert re.findall(r"^## (\w+)$", TEXT, re.MULTILINE) == [kind.__name__ for kind in classes()]
    assert len(classes()) == 24
    assert TEXT.count("· coordinator → site") == TEXT.count("· site → coordinator") == 12
    assert TEXT.count("**Reveals:**") == 24


def test_every_key_on_the_page_has_words():
    lines = re.findall(r"^\| .*`.* \|$", TEXT, re.MULTILINE)
    assert len(lines) > 80
    assert [line for line in lines if line.endswith("|  |")] == []
