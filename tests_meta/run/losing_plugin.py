"""A foreign pytest plugin that makes a run check less than was asked for; MUSTER_LOSES says how."""

from __future__ import annotations

import os

import pytest

LOSES = os.environ.get("MUSTER_LOSES", "")
TARGET = "test_it_is_covered[ghost]"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in [item for item in items if item.name == TARGET]:
        if LOSES == "removed":
            items.remove(item)
        elif LOSES == "skipped":
            item.add_marker(pytest.mark.skip("not tonight"))
        elif LOSES == "expected to fail":
            item.add_marker(pytest.mark.xfail(run=False))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return True if LOSES == "not called" and pyfuncitem.name == TARGET else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if LOSES == "skipped":
        session.exitstatus = pytest.ExitCode.OK
