"""Registers the fixtures and the hooks; nothing else."""

from __future__ import annotations

import pytest

import fixtures.deploy.fixture
import fixtures.deploy.host_health
import fixtures.enrollment.fixture
import fixtures.mirrors.fixture
import fixtures.mirrors.forge_health
import fixtures.preflight.fixture
import fixtures.resume.fixture
import fixtures.suites.fixture
import fixtures.triggers.fixture
from fixtures.plugin import command_line, hooks
from fixtures.run import expectation

FIXTURES = (
    expectation,
    fixtures.preflight.fixture,
    fixtures.mirrors.fixture,
    fixtures.mirrors.forge_health,
    fixtures.suites.fixture,
    fixtures.enrollment.fixture,
    fixtures.deploy.fixture,
    fixtures.deploy.host_health,
    fixtures.triggers.fixture,
    fixtures.resume.fixture,
    hooks,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    command_line.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    hooks.refuse_listings(config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hooks.activate(config):
        for module in FIXTURES:
            config.pluginmanager.register(module)
