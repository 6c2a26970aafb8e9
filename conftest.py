"""Registers the fixtures and the hooks; nothing else."""

from __future__ import annotations

import pytest

from fixtures import (
    deployment,
    enrollment,
    expectation,
    mirrors,
    options,
    plugin,
    preflight,
    resumption,
    suites,
    triggers,
)

FIXTURES = (expectation, preflight, mirrors, suites, enrollment, deployment, triggers, resumption, plugin)


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if plugin.activate(config):
        for module in FIXTURES:
            config.pluginmanager.register(module)
