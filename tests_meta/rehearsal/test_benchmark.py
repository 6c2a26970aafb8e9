"""The benchmark's line about requests."""

from __future__ import annotations

import pytest

from fixtures.rehearsal.benchmark import format_requests


@pytest.mark.parametrize(
    ("name", "forge", "shown"),
    [
        ("health check", 30, "HTTP requests 50 (at most 50: ok), and 3 for news"),
        ("health check", 31, "HTTP requests 51 (at most 50: MISSED), and 3 for news"),
        ("whole rehearsal", 500, "520 HTTP requests (no budget: not a healthy night), and 3 for news"),
    ],
)
def test_budget_of_requests_is_compared_for_a_healthy_night(name: str, forge: int, shown: str) -> None:
    """A health check is compared with the budget of 2R+12 and says whether it is kept; other runs have no budget."""
    requests = {"forge": forge, "upstream": 19, "drone": 1, "news": 3}
    assert format_requests(name, requests, recipes=19) == shown
