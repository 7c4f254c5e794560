"""The fingerprints that workers compare with are those that the parsers give."""

from __future__ import annotations

from importlib import import_module

from apps.documents.parsing.fingerprints import FINGERPRINTS, is_current
from apps.documents.parsing.formats import FORMATS, PACKAGE


def test_every_parsers_fingerprint_is_the_one_that_it_gives() -> None:
    modules = {fmt.module for fmt in FORMATS}
    assert {name: import_module(f"{PACKAGE}.{name}").FINGERPRINT for name in modules} == FINGERPRINTS


def test_no_two_parsers_go_by_one_name() -> None:
    names = [fingerprint.partition("/")[0] for fingerprint in FINGERPRINTS.values()]
    assert len(set(names)) == len(names)


def test_an_older_number_and_an_unknown_name_are_not_todays() -> None:
    assert is_current(FINGERPRINTS["markup.html"])
    assert not is_current("html/0") and not is_current("gone/1") and not is_current("")
