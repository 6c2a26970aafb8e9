"""Phase 4, deploy. The host runs cc-ci's head, a new bridge polls all recipes, and nothing else is worse than before.

If the checkout cannot be brought to the head, the deploy is withheld (claimed and flagged): a stale tree is never
deployed. If anything regresses, the end of the session restores the recorded generation.
"""

from __future__ import annotations

import pytest

from fixtures.ccci import nix_edit
from fixtures.ccci.poll_set import PollSet
from fixtures.deploy.host_facts import FactKind
from fixtures.deploy.host_health import HostHealth
from fixtures.deploy.result import Deployment
from fixtures.enrollment.fixture import Enrollment
from fixtures.journal.kinds import DEPLOY_KINDS
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.surveys import Surveys
from fixtures.survey import HostState, running_poll_set

pytestmark = pytest.mark.dependency(depends=["phase 3"], scope="session")


def test_it_was_deployed_or_needed_nothing(deployment: Deployment, expect: Expectation) -> None:
    expect.no_problem(deployment.problem, what="the deploy")
    expect.success(deployment.outcome, kinds=DEPLOY_KINDS)


def test_the_checkout_is_the_committed_head(
    context: Context, deployment: Deployment, expect: Expectation
) -> None:
    expect.depends_on(deployment.problem)
    expect.after_apply(deployment.planned, "the checkout")
    expect.read("host")
    checkout = deployment.survey.demand_host().checkout
    expect.equal(
        f"HEAD of {context.site.host.source}",
        expected=deployment.head or deployment.survey.demand_ccci().head,
        seen=checkout.problem or checkout.head,
        check=f"ssh {context.site.host.address} git -C {context.site.host.source} rev-parse HEAD",
    )


def test_the_configuration_is_this_hosts(context: Context, deployment: Deployment, expect: Expectation) -> None:
    """This host was once switched to another machine's configuration, and came up in emergency mode."""
    expect.depends_on(deployment.problem)
    expect.only_if_known(bool(deployment.built) or context.writer is not None, "the evaluated configuration")
    host = context.site.host
    expect.equal(
        f"the host name and root device in {host.flake_uri}",
        expected=(host.hostname, host.root_device),
        seen=deployment.target,
    )


def test_the_running_system_is_the_built_one(
    context: Context, deployment: Deployment, expect: Expectation
) -> None:
    expect.depends_on(deployment.problem)
    expect.only_if_known(bool(deployment.built) or context.writer is not None, "the built system")
    system = deployment.survey.demand_host().system
    expect.equal(
        "the running system, or the one that it is a specialisation of",
        expected=deployment.built,
        seen=system.base,
        check=f"ssh {context.site.host.address} readlink -f /run/current-system",
    )
    expect.equal("the system that the next boot starts", expected=deployment.built, seen=system.profile.path)


def test_the_bridge_runs(context: Context, deployment: Deployment, expect: Expectation) -> None:
    """It runs, and the tasks before it did not end by themselves: a crash loop runs too, for a moment."""
    expect.read("host")
    expect.read("bridge")
    expect.explained_by(deployment.problem)
    expect.after_apply(deployment.planned, "the new bridge")
    bridge = deployment.survey.demand_host().bridge
    expect.equal(
        f"the state of {context.site.bridge.service}",
        expected="running",
        seen=bridge.trouble(context.site.limits.bridge_stable_s) or bridge.state,
        check=f"ssh {context.site.host.address} docker service ps {context.site.bridge.service}",
    )


def test_a_new_bridge_polls_the_new_set(
    surveys: Surveys, enrollment: Enrollment, deployment: Deployment, expect: Expectation
) -> None:
    """A new poll set needs a new task, because it is part of the task's environment; the image may stay the same."""
    expect.depends_on(deployment.problem)
    expect.only_if_known(not deployment.planned, "the new task")
    before, now = surveys.baseline.demand_host().bridge, deployment.survey.demand_host().bridge
    if before.poll_set == enrollment.wanted.csv:
        expect.equal("the poll set that was already running", expected=enrollment.wanted.csv, seen=now.poll_set)
        return
    expect.true(
        "the bridge's task",
        now.task_id not in ("", before.task_id),
        expected=f"a task other than {before.task_id}",
        seen=now.task_id,
    )


def test_three_poll_sets_are_equal(
    context: Context, enrollment: Enrollment, deployment: Deployment, expect: Expectation
) -> None:
    """The poll set is the same in git, in the host's checkout and in the running task, which is the one that counts."""
    expect.depends_on(deployment.problem)
    expect.after_apply(deployment.planned, "the deployed poll set")
    host = deployment.survey.demand_host()
    on_host = nix_edit.find_assignment(host.checkout_poll_file or b"{}", context.site.ccci.poll_variable).entries
    running = running_poll_set(deployment.survey) or PollSet(())
    expect.equal("the poll set in the host's checkout", expected=enrollment.wanted.entries, seen=on_host)
    expect.equal("the poll set in the running bridge", expected=enrollment.wanted.entries, seen=running.entries)


def test_it_is_polled(
    recipe: str, context: Context, surveys: Surveys, deployment: Deployment, expect: Expectation
) -> None:
    expect.read("host")
    expect.read("bridge")
    expect.explained_by(deployment.problem)
    running = running_poll_set(deployment.survey) or PollSet(())
    entry = context.world.mirror(recipe)
    expect.after_apply(deployment.planned and entry not in running.entries, "the running poll set")
    was = running_poll_set(surveys.baseline) or PollSet(())
    expect.depends_on(deployment.problem if entry not in was.entries else None)
    expect.true(
        "the poll set in the running bridge",
        entry in running.entries,
        expected=f"contains {entry}",
        seen=f"{len(running.entries)} repositories" + ("" if entry in running.entries else ", without it"),
        check=f"ssh {context.site.host.address} docker service inspect {context.site.bridge.service}",
    )


def found_host(surveys: Surveys, deployment: Deployment) -> HostState:
    """The host as the deploy found it: what broke before that is not the deploy's doing, and a finding of its own."""
    return deployment.before or surveys.baseline.demand_host()


def test_no_unit_failed_that_had_not_failed_before(
    context: Context, surveys: Surveys, deployment: Deployment, host_health: HostHealth, expect: Expectation
) -> None:
    """Neither during this run nor since the first record of the site."""
    expect.read("host")
    expect.explained_by(deployment.problem)
    check = f"ssh {context.site.host.address} systemctl --failed"
    before, now = found_host(surveys, deployment), deployment.survey.demand_host()
    failed = sorted(now.failed_units - before.failed_units)
    expect.nothing("units that failed since the deploy began", failed, check=check)
    expect.stops_nothing()
    expect.nothing(
        "units that failed since earlier records", host_health.failing(FactKind.FAILED_UNIT), check=check
    )


def test_no_unit_was_stopped(context: Context, host_health: HostHealth, expect: Expectation) -> None:
    """The units that have to be active are, and so is each timer and each service that remained active before."""
    expect.read("host")
    expect.stops_nothing()
    expect.nothing(
        "units that are not active any more",
        host_health.failing(FactKind.STOPPED_UNIT),
        check=f"ssh {context.site.host.address} systemctl list-units --all --type=service,timer",
    )


def test_no_alert_was_written(
    context: Context, surveys: Surveys, deployment: Deployment, host_health: HostHealth, expect: Expectation
) -> None:
    """A reconcile unit that fails can still exit 0; then only its alert file shows the failure."""
    expect.read("host")
    expect.explained_by(deployment.problem)
    check = f"ssh {context.site.host.address} ls {context.site.host.alerts_dir}"
    before, now = found_host(surveys, deployment), deployment.survey.demand_host()
    new = sorted(now.alerts - before.alerts)
    expect.nothing(f"new files in {context.site.host.alerts_dir}", new, check=check)
    expect.stops_nothing()
    expect.nothing("alerts written since earlier records", host_health.failing(FactKind.ALERT), check=check)


def test_every_stack_is_complete(
    surveys: Surveys, deployment: Deployment, host_health: HostHealth, expect: Expectation
) -> None:
    expect.read("host")
    expect.read("stacks")
    expect.explained_by(deployment.problem)
    before, now = found_host(surveys, deployment), deployment.survey.demand_host()
    short = sorted(set(now.incomplete_services) - set(before.incomplete_services))
    expect.nothing(
        "services that lost a replica since the deploy began",
        [f"{name} {now.incomplete_services[name]}" for name in short],
    )
    expect.stops_nothing()
    expect.nothing("services that lost a replica since earlier records", host_health.failing(FactKind.SERVICE))


def test_no_other_system_replaced_it(context: Context, host_health: HostHealth, expect: Expectation) -> None:
    """The running system is the one that boots next, the one that the head builds to if a run has built it, and no
    older generation than before."""
    expect.read("host")
    expect.stops_nothing()
    expect.nothing(
        "differences of the running system",
        host_health.failing(FactKind.SYSTEM),
        check=f"ssh {context.site.host.address} readlink -f /run/current-system {context.site.host.profile}",
    )


def test_the_checkout_is_the_forges(context: Context, host_health: HostHealth, expect: Expectation) -> None:
    """It is on cc-ci's branch and has the head of earlier records in its history; its remote is cc-ci on the forge."""
    expect.read("host")
    expect.stops_nothing()
    expect.nothing(
        "differences of the checkout's branch, history and remote",
        host_health.failing(FactKind.CHECKOUT),
        check=f"ssh {context.site.host.address} git -C {context.site.host.source} remote -v",
    )


def test_the_bridge_has_the_settings_of_its_unit(
    context: Context, host_health: HostHealth, expect: Expectation
) -> None:
    """Interval, URLs and token of the running bridge are those that its unit gives it, its image that of earlier
    records, and it runs once."""
    expect.read("host")
    expect.stops_nothing()
    expect.nothing(
        "settings of the running bridge that differ",
        host_health.failing(FactKind.BRIDGE),
        check=f"ssh {context.site.host.address} docker service inspect {context.site.bridge.service}",
    )


def test_the_bridge_gives_a_sign_of_life(
    context: Context, deployment: Deployment, host_health: HostHealth, expect: Expectation
) -> None:
    """Its processes run again within two poll intervals; lines of its log are no sign of life."""
    expect.read("host")
    life = host_health.life
    expect.only_if_known(life is not None, "whether the bridge polls")
    expect.stops_nothing()
    expect.true(
        f"a sign of life of {context.site.bridge.service}",
        life is not None and life.alive,
        expected="its processes run",
        seen=life.words if life else "not watched",
        check=f"ssh {context.site.host.address} docker service logs {context.site.bridge.service}",
    )


def test_the_hosts_own_revert_is_disarmed(deployment: Deployment, expect: Expectation) -> None:
    """No revert timer or other unit of muster is left on the host."""
    expect.read("host")
    expect.explained_by(deployment.problem)
    expect.nothing("units of muster on the host", sorted(deployment.survey.demand_host().own_units))


@pytest.mark.dependency(name="phase 4", depends=["phase 3"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(4)
