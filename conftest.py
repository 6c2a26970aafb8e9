"""Registers the fixtures and the hooks; nothing else."""

from __future__ import annotations

import pytest

from fixtures.deploy import fixture as deployment
from fixtures.enrollment import fixture as enrollment
from fixtures.mirrors import fixture as mirrors
from fixtures.plugin import command_line
from fixtures.plugin import hooks as plugin
from fixtures.preflight import fixture as preflight
from fixtures.resume import fixture as resumption
from fixtures.run import expectation
from fixtures.suites import fixture as suites
from fixtures.triggers import fixture as triggers

FIXTURES = (expectation, preflight, mirrors, suites, enrollment, deployment, triggers, resumption, plugin)


def pytest_addoption(parser: pytest.Parser) -> None:
    command_line.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if plugin.activate(config):
        for module in FIXTURES:
            config.pluginmanager.register(module)
