"""Sentences of `flfed/words/`: each is used, and each that is used is there with the facts that stand in it."""

from __future__ import annotations

import re
import string
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORDS = sorted((ROOT / "flfed" / "words").glob("*.toml"))
CODE = "\n".join(file.read_text("utf-8") for file in (ROOT / "flfed").rglob("*.py"))
SUFFIXES = ("-summed", "-encrypted")
"""What parts of a study add to the key of a guarantee or of a way of sharing."""


@pytest.mark.parametrize("file", WORDS, ids=lambda file: file.stem)
def test_every_sentence_is_used(file: Path):
    keys = [key for table in tomllib.loads(file.read_text("utf-8")).values() for key in table]
    quoted = set(re.findall(r"""["']([a-z][a-z-]*)["']""", CODE))
    made = re.findall(r'f"([a-z]+-)\{', CODE)
    unused = []
    for key in keys:
        stem = key
        for suffix in SUFFIXES:
            stem = stem.removesuffix(suffix)
        if stem not in quoted and not key.startswith(tuple(made)):
            unused.append(key)
    assert len(keys) > 5 and unused == []


@pytest.mark.parametrize("file", WORDS, ids=lambda file: file.stem)
def test_a_sentence_is_one_paragraph_whose_places_are_named(file: Path):
    for table in tomllib.loads(file.read_text("utf-8")).values():
        for key, sentence in table.items():
            assert "\n" not in sentence and "  " not in sentence, key
            places = [name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None]
            assert all(name.isidentifier() for name in places), key
