"""Small federations in this process, for the tests of this folder."""

from tests.small_runs import ask, closed, conduct, conducted, known, plain, record  # noqa: F401 - fixtures
