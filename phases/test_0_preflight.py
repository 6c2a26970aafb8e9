"""Phase 0, preflight. Writes nothing.

The forge, Drone and the host answer and are the configured ones, the accounts have the rights that a run needs, and
every recipe exists upstream. The current state is recorded, so that a rollback can restore it.
"""

from __future__ import annotations

import pytest

from fixtures.clients.git import MAIN
from fixtures.deploy.identity import wanted_identity
from fixtures.deploy.running_system import describe_running_system, name_generation
from fixtures.errors import MusterError
from fixtures.preflight.fixture import Preflight, clock_differences
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recorder import Recorder
from fixtures.run.surveys import Surveys

IDENTITY_COMMANDS = {
    "machine_id": "cat /etc/machine-id",
    "hostname": "hostname",
    "root_device": "findmnt -no SOURCE /",
}

pytestmark = pytest.mark.dependency(scope="session")


@pytest.mark.system("forge")
def test_the_forge_answers(context: Context, surveys: Surveys, expect: Expectation) -> None:
    expect.read("forge")
    expect.true(
        "the forge's version",
        bool(surveys.baseline.forge_version),
        expected="a version",
        seen=surveys.baseline.forge_version,
        check=f"curl -s {context.site.forge.url}/api/v1/version",
    )


@pytest.mark.system("forge")
def test_the_token_is_the_bots(context: Context, surveys: Surveys, expect: Expectation) -> None:
    expect.read("forge account")
    expect.equal(
        "the account that the forge's token belongs to",
        expected=context.site.forge.bot,
        seen=surveys.baseline.account,
        check=f"GET {context.site.forge.url}/api/v1/user",
    )


@pytest.mark.system("forge")
def test_the_token_has_the_scope(scope: str, preflight: Preflight, expect: Expectation) -> None:
    if scope == "read:user":
        expect.read("forge account")
        expect.true(
            "the scope read:user",
            bool(preflight.survey.account),
            expected="granted",
            seen=preflight.survey.account,
        )
        return
    expect.only_if_known(preflight.missing_scopes is not None, "the token's write scopes")
    missing = preflight.missing_scopes or ()
    expect.true(
        f"the scope {scope}",
        scope not in missing,
        expected="granted",
        seen="missing" if scope in missing else "granted",
        check="the bot's settings on the forge, page Applications",
    )


@pytest.mark.system("forge")
def test_the_organisation_can_be_read(context: Context, surveys: Surveys, expect: Expectation) -> None:
    expect.read("organisation")
    expect.read("pull requests")
    expect.read("cc-ci")
    expect.true(
        f"the number of repositories in {context.site.forge.org}",
        bool(surveys.baseline.repositories),
        expected="at least 1",
        seen=len(surveys.baseline.repositories),
    )


@pytest.mark.system("drone")
def test_drone_accepts_the_token(context: Context, surveys: Surveys, expect: Expectation) -> None:
    expect.read("drone account")
    expect.read("drone")
    expect.true(
        "the account that Drone's token belongs to",
        bool(surveys.baseline.drone_account),
        expected="an account; a wrong token makes a guest",
        seen=surveys.baseline.drone_account,
        check=f"GET {context.site.drone.url}/api/user",
    )


@pytest.mark.parametrize("fact", IDENTITY_COMMANDS)
@pytest.mark.system("host")
def test_the_host_is_the_configured_one(
    fact: str, context: Context, surveys: Surveys, expect: Expectation
) -> None:
    expect.read("host")
    seen = surveys.baseline.demand_host().identity
    expect.equal(
        f"the host's {fact.replace('_', ' ')}",
        expected=getattr(wanted_identity(context), fact),
        seen=getattr(seen, fact),
        check=f"ssh {context.site.host.address} '{IDENTITY_COMMANDS[fact]}'",
    )


@pytest.mark.parametrize(
    "server", [pytest.param(name, marks=pytest.mark.system(name)) for name in ("forge", "drone", "host")]
)
def test_a_wrong_clock_is_reported(
    server: str, context: Context, record: Recorder, surveys: Surveys, preflight: Preflight, expect: Expectation
) -> None:
    """A clock that differs from ours by more than the limit is a finding, and comparisons of times allow for it."""
    ahead_s, limit_s = clock_differences(context, surveys)[server], context.site.limits.clock_skew_s
    expect.true(
        f"the clock of the {server} against ours",
        abs(ahead_s) <= limit_s or any(finding.id == f"clock-{server}" for finding in record.findings),
        expected=f"at most {limit_s:g} s apart, or a finding",
        seen=f"{ahead_s:+.1f} s",
    )


@pytest.mark.system("upstream")
def test_upstream_has_the_recipe(
    recipe: str, context: Context, surveys: Surveys, preflight: Preflight, expect: Expectation
) -> None:
    """Its repository has a main branch; if its mirror is missing, the host can also fetch the recipe with abra."""
    expect.read(f"upstream {recipe}")
    refs = surveys.baseline.upstreams.get(recipe)
    url = f"{context.site.upstream.url}/{context.site.upstream.owner}/{recipe}.git"
    expect.true(
        f"{MAIN} of {url}",
        refs is not None and MAIN in refs.branches,
        expected="a commit",
        seen=(refs.branches.get(MAIN) or f"no {MAIN}, but {sorted(refs.branches)}") if refs else "no repository",
        check=f"git ls-remote {url} refs/heads/{MAIN}",
    )
    fetched = preflight.fetched.get(recipe)
    if isinstance(fetched, MusterError):
        expect.no_problem(fetched, what=f"abra recipe fetch {recipe} on the host")
    elif fetched is not None:
        expect.equal(
            f"the exit status of abra recipe fetch {recipe} on the host",
            expected=0,
            seen=fetched.exit_status,
            check=f"ssh {context.site.host.address} ABRA_DIR=$(mktemp -d) abra recipe fetch {recipe} -n",
        )


@pytest.mark.system("host")
def test_the_baseline_is_complete(surveys: Surveys, expect: Expectation) -> None:
    """The baseline holds the poll set, the running system and the bridge's task.

    A bridge that was removed or scaled to 0 has no task: phase 4 has its own unit deploy it again.
    """
    expect.read("host")
    expect.read("bridge")
    expect.read("stacks")
    host = surveys.baseline.demand_host()
    expect.true(
        "the bridge's task in the baseline",
        bool(host.bridge.task_id) or host.bridge.deployable or bool(host.bridge.lives),
        expected="a task, or no bridge at all",
        seen=f"{host.bridge.state} {host.bridge.task_id}",
    )
    expect.true(
        "the running system in the baseline",
        bool(host.system.running),
        expected="a store path",
        seen=f"{host.system.running}, {name_generation(host.system)}",
    )


@pytest.mark.system("host")
def test_another_running_system_is_reported(
    context: Context, record: Recorder, surveys: Surveys, preflight: Preflight, expect: Expectation
) -> None:
    """The host runs the newest generation of its profile; a specialisation or another system is a finding."""
    expect.read("host")
    another = describe_running_system(surveys.baseline.demand_host().system)
    expect.true(
        "the running system against the profile's newest generation",
        not another or any(finding.id == "host-runs-another-system" for finding in record.findings),
        expected="the same, or a finding",
        seen=another or "the same",
        check=f"ssh {context.site.host.address} nixos-rebuild list-generations",
    )


@pytest.mark.system("host")
def test_nothing_was_written(
    context: Context, record: Recorder, preflight: Preflight, expect: Expectation
) -> None:
    """What others do on the host meanwhile is a finding."""
    expect.equal("muster's units on the host, before and after", expected=preflight.before, seen=preflight.after)
    expect.equal(
        "the number of changes in the journal",
        expected=0,
        seen=len(record.journal.changes()),
        check=f"python -m fixtures.journal show {context.folder}",
    )


@pytest.mark.dependency(name="phase 0", scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(0)
