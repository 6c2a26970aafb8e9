"""Whose act a difference between a mirror's tags and upstream's is."""

from __future__ import annotations

import pytest

from fixtures.clients.git import Refs
from fixtures.mirrors.tags import TagDifferences, common_tags, compare_tags

KNOWN = {"1.0": "a" * 40, "2.0": "b" * 40}


@pytest.mark.parametrize(
    ("ours", "theirs", "known", "expected"),
    [
        ({"1.0": "a"}, {"1.0": "a", "3.0": "c"}, KNOWN, TagDifferences()),
        ({"2.0": "x"}, {"2.0": "b"}, KNOWN, TagDifferences(moved_in_mirror=("2.0",))),
        ({"2.0": "x"}, {"2.0": "y"}, KNOWN, TagDifferences(moved_in_mirror=("2.0",))),
        ({"2.0": "b"}, {"2.0": "x"}, KNOWN, TagDifferences(moved_upstream=("2.0",))),
        ({"2.0": "b"}, {}, KNOWN, TagDifferences(deleted_upstream=("2.0",))),
        ({"99.0": "x"}, {}, KNOWN, TagDifferences(added_in_mirror=("99.0",))),
        ({}, {"2.0": "b"}, KNOWN, TagDifferences(deleted_in_mirror=("2.0",))),
        ({"own": "x"}, {}, KNOWN, TagDifferences(undecided=("own",))),
        ({"99.0": "x", "2.0": "x"}, {"2.0": "y"}, None, TagDifferences(undecided=("2.0", "99.0"))),
    ],
)  # fmt: skip
def test_record_decides_who_changed_a_tag(
    ours: dict[str, str], theirs: dict[str, str], known: dict[str, str] | None, expected: TagDifferences
) -> None:
    """A tag that differs was changed by the side that is not as in the record; without a record nobody is blamed."""
    sides = [Refs("main", tags={tag: commit * 40 for tag, commit in tags.items()}) for tags in (ours, theirs)]
    assert compare_tags(sides[0], sides[1], known, frozenset({"own"})) == expected


def test_tag_that_was_moved_is_remembered_as_it_was() -> None:
    """Tags that both sides have with one commit are remembered; one that differs keeps the commit of the record."""
    ours = Refs("main", tags={"1.0": "c" * 40, "2.0": "x" * 40, "3.0": "d" * 40})
    theirs = Refs("main", tags={"1.0": "c" * 40, "2.0": "b" * 40})
    assert common_tags(ours, theirs, KNOWN) == {"1.0": "c" * 40, "2.0": "b" * 40}
