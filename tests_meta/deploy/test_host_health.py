"""What is wrong on a host: what earlier records decide, and what happens on a healthy host without being wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.bridge import BridgeTask
from fixtures.clients.bridge_configuration import configuration_command, configured_environment
from fixtures.clients.bridge_life import parse_life, watch_command
from fixtures.clients.nixos import Checkout, Generation, Identity, System, UnitState
from fixtures.config.known_failure import KnownFailure
from fixtures.config.site import Site, load_site
from fixtures.deploy.host_facts import environment_digests, lasting_units, wrong_facts
from fixtures.deploy.host_health import judge_facts
from fixtures.journal.host_memory import HealthyHost, HostMemory, WrongSince, recall_host
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.reader import StoredJournal, read
from fixtures.journal.writer import Journal
from fixtures.survey import HostState
from tests_meta.config.site_files import MINIMAL, write

ACTIVE = UnitState("active", "running")
REMOTE = "https://git.autonomic.zone/recipe-maintainers/cc-ci.git"
EXITED = UnitState("active", "exited")
CHECKOUT = Checkout("f" * 40, "main", (), (), REMOTE)
HEALTHY_HOST = HostState(
    identity=Identity("0" * 32, "nixos", "/dev/sda1"),
    clock_skew_s=0.0,
    system=System("/nix/store/b-nixos", Generation(42, "/nix/store/b-nixos")),
    failed_units=frozenset(),
    own_units=frozenset(),
    alerts=frozenset(),
    checkout=CHECKOUT,
    checkout_poll_file=None,
    poll_file_changed=None,
    bridge=BridgeTask(
        "task1",
        "running",
        "",
        "o/cc-ci",
        (),
        environment={"POLL_REPOS": "o/cc-ci", "POLL_INTERVAL": "30", "GITEA_URL": "https://forge"},
        configured={"POLL_INTERVAL": frozenset({"30"})},
        image="cc-ci-bridge:1",
    ),
    incomplete_services={},
    units={
        "docker.service": ACTIVE,
        "deploy-bridge.service": EXITED,
        "deploy-proxy.service": EXITED,
        "offsite-copy.timer": UnitState("active", "waiting"),
        "run-r1.timer": UnitState("active", "waiting"),
    },
)
RECORD = HealthyHost(
    run="20260602T001300Z-cc-ci-apply",
    at="2026-06-02T00:13:00+00:00",
    running="/nix/store/b-nixos",
    generation=42,
    head="f" * 40,
    built="/nix/store/b-nixos",
    units=lasting_units(HEALTHY_HOST),
    environment=environment_digests(HEALTHY_HOST),
    image="cc-ci-bridge:1",
    has_alerts_dir=True,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return load_site(write(tmp_path_factory.mktemp("site"), MINIMAL))


def wrong(site: Site, host: HostState, record: HealthyHost | None = RECORD) -> list[str]:
    return [fact.id for fact in wrong_facts(site, host, record)]


def with_units(**states: UnitState) -> HostState:
    named = {name.replace("_", "-").replace("-dot-", "."): state for name, state in states.items()}
    return replace(HEALTHY_HOST, units={**HEALTHY_HOST.units, **named})


def with_system(running: str, profile: str, number: int) -> HostState:
    return replace(HEALTHY_HOST, system=System(running, Generation(number, profile)))


def with_bridge(**fields: Any) -> HostState:
    return replace(HEALTHY_HOST, bridge=replace(HEALTHY_HOST.bridge, **fields))


def with_checkout(branch: str, remote: str) -> HostState:
    return replace(HEALTHY_HOST, checkout=replace(CHECKOUT, branch=branch, remote=remote))


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(with_checkout("main", REMOTE.replace("://", "://bot:secret@")), id="a remote with a login"),
        pytest.param(with_checkout("main", "git@git.autonomic.zone:recipe-maintainers/cc-ci"), id="a remote by ssh"),
        pytest.param(HEALTHY_HOST, id="nothing happened"),
        pytest.param(
            replace(HEALTHY_HOST, checkout_history=frozenset({"e" * 40, "f" * 40})), id="a commit on top of the head"
        ),
        pytest.param(
            replace(HEALTHY_HOST, bridge=replace(HEALTHY_HOST.bridge, task_id="task2")), id="restarted bridge"
        ),
        pytest.param(
            replace(with_system("/nix/store/c", "/nix/store/c", 43), checkout=replace(CHECKOUT, head="e" * 40)),
            id="a new head was deployed",
        ),
        pytest.param(with_system("/nix/store/b-nixos", "/nix/store/b-nixos", 40), id="the same system, renumbered"),
        pytest.param(with_units(backup_dot_service=UnitState("inactive", "dead")), id="a job that has ended"),
        pytest.param(with_units(deploy_proxy_dot_service=UnitState("activating", "start")), id="a unit that starts"),
        pytest.param(
            replace(
                HEALTHY_HOST,
                units={name: state for name, state in HEALTHY_HOST.units.items() if name != "run-r1.timer"},
            ),
            id="a transient timer that is over",
        ),
    ],
)  # fmt: skip
def test_harmless_events_are_not_wrong(site: Site, host: HostState) -> None:
    """A restart, a reboot, a new system for a new head, and ended jobs leave nothing that is wrong."""
    assert wrong(site, host) == []


@pytest.mark.parametrize(
    ("host", "fact"),
    [
        (with_units(docker_dot_service=UnitState("inactive", "dead")), "host-stopped-unit-docker.service"),
        (with_units(deploy_proxy_dot_service=UnitState("inactive", "dead")), "host-stopped-unit-deploy-proxy.service"),
        (with_units(offsite_copy_dot_timer=UnitState("inactive", "dead")), "host-stopped-unit-offsite-copy.timer"),
        (with_system("/nix/store/a", "/nix/store/b-nixos", 42), "host-system-running"),
        (with_system("/nix/store/a", "/nix/store/a", 41), "host-system-built"),
        (replace(HEALTHY_HOST, alerts=frozenset({"x.json"})), "host-alert-x.json"),
        (with_checkout("experiment", REMOTE), "host-checkout-branch"),
        (with_checkout("main", "https://evil.example/recipe-maintainers/cc-ci.git"), "host-checkout-remote"),
        (with_checkout("main", REMOTE.replace("recipe-maintainers", "somebody")), "host-checkout-remote"),
        (replace(HEALTHY_HOST, incomplete_services={"drone_app": "0/1"}), "host-service-drone_app"),
        (replace(HEALTHY_HOST, has_alerts_dir=False), "host-alert-folder"),
        (replace(HEALTHY_HOST, checkout_history=frozenset({"e" * 40})), "host-checkout-history"),
        (with_bridge(image="cc-ci-bridge:2"), "host-bridge-setting-image"),
        (with_bridge(replicas=2), "host-bridge-setting-replicas"),
    ],
)  # fmt: skip
def test_defects_are_wrong(site: Site, host: HostState, fact: str) -> None:
    """Each defect is one fact, by its kind and its subject."""
    assert wrong(site, host) == [fact]


def test_generation_that_was_set_back_is_wrong_without_a_known_build(site: Site) -> None:
    """Where no run has built the head, an older generation than in the last healthy record is wrong."""
    back = with_system("/nix/store/a", "/nix/store/a", 41)
    assert wrong(site, back, replace(RECORD, built="")) == ["host-system-generation"]


def test_unit_of_the_old_system_may_be_gone(site: Site) -> None:
    """After a new system, a unit that is not loaded any more is not missed; after the same system, it is."""
    units = {name: state for name, state in HEALTHY_HOST.units.items() if name != "deploy-proxy.service"}
    gone = replace(HEALTHY_HOST, units=units)
    assert wrong(site, gone) == ["host-stopped-unit-deploy-proxy.service"]
    newer = replace(gone, system=System("/nix/store/c", Generation(43, "/nix/store/c")))
    assert wrong(site, newer, replace(RECORD, head="")) == []


@pytest.mark.parametrize(("name", "value"), [("POLL_INTERVAL", "3600"), ("GITEA_URL", "https://other")])
def test_setting_of_the_bridge_is_compared_with_its_unit_and_the_record(
    site: Site, name: str, value: str
) -> None:
    """A value that the unit names is compared with it, any other with the last healthy record of the same system."""
    bridge = HEALTHY_HOST.bridge
    other = replace(HEALTHY_HOST, bridge=replace(bridge, environment={**bridge.environment, name: value}))
    assert wrong(site, other) == [f"host-bridge-setting-{name}"]
    newer = replace(other, system=System("/nix/store/c", Generation(43, "/nix/store/c")))
    expected = ["host-bridge-setting-POLL_INTERVAL"] if name == "POLL_INTERVAL" else []
    assert wrong(site, newer, replace(RECORD, head="")) == expected


def test_record_holds_no_value_of_the_bridges_environment() -> None:
    """The last healthy state has digests of the variables, never their values."""
    assert set(RECORD.environment) == {"POLL_INTERVAL", "GITEA_URL"}
    assert "https://forge" not in str(RECORD.environment)


def test_known_failure_names_its_subject_until_its_last_day() -> None:
    """A known failure covers names by pattern, on its last day still, and not after it."""
    known = KnownFailure(what="*-traefik-*.json", reason="known", until=date(2026, 6, 30))
    assert known.covers("20260613T054428Z-traefik-unhealthy.json")
    assert not known.covers("20260613T054428Z-drone-unhealthy.json")
    assert not known.expired(date(2026, 6, 30))
    assert known.expired(date(2026, 7, 1))


STACK = (
    '{"services":{"app":{"environment":["GITEA_URL=${GITEA_URL}","POLL_INTERVAL=30","CRON=30 3 * * *",'
    '"DRONE_REPO=o/cc-ci"]}}}'
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(STACK, id="stack file"),
        pytest.param(
            "export DRONE_REPO=o/cc-ci POLL_INTERVAL=30 CRON='30 3 * * *'\nGITEA_URL=$URL\n", id="script"
        ),
        pytest.param('POLL_INTERVAL="30"\nCRON="30 3 * * *"\nDRONE_REPO=o/cc-ci\n', id="environment file"),
    ],
)
def test_literal_values_of_the_unit_are_read(text: str) -> None:
    """Literal values are read from a stack file, a script and an environment file; filled-in ones are unknown."""
    found = configured_environment(text, ["GITEA_URL", "POLL_INTERVAL", "CRON", "DRONE_REPO", "REPO"])
    assert found == {
        "POLL_INTERVAL": frozenset({"30"}),
        "CRON": frozenset({"30 3 * * *"}),
        "DRONE_REPO": frozenset({"o/cc-ci"}),
    }


@pytest.fixture
def poller() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits and wakes up ten times a second, as a child of a shell."""
    code = "import time\nwhile True: time.sleep(0.1)"
    process = subprocess.Popen([sys.executable, "-c", code])
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def watch(pid: int, *, own: str = "", limit_s: float = 1.0) -> str:
    script = watch_command(f"echo {pid}", own, limit_s=limit_s, step_s=0.1)
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout


def test_process_that_waits_and_wakes_is_alive(poller: subprocess.Popen[bytes]) -> None:
    """A process that sleeps between polls gives a sign of life; the watch ends with the first one."""
    life = parse_life(watch(poller.pid, limit_s=60.0), limit_s=60.0)
    assert life.alive, life.words


def test_stopped_process_is_not_alive(poller: subprocess.Popen[bytes]) -> None:
    """A process that was stopped gives no sign of life, and its state is named."""
    poller.send_signal(signal.SIGSTOP)
    life = parse_life(watch(poller.pid), limit_s=1.0)
    assert not life.alive
    assert "T (stopped)" in life.words


def test_process_that_is_not_there_is_not_alive() -> None:
    """Without a process there is no sign of life."""
    assert not parse_life(watch(0), limit_s=1.0).alive


def test_own_sign_of_life_has_to_change(tmp_path: Path) -> None:
    """The site's own command counts when its output changes, whatever the processes do."""
    assert not parse_life(watch(0, own="echo same"), limit_s=1.0).alive
    counting = f"echo x >> {tmp_path}/polls; cat {tmp_path}/polls"
    assert parse_life(watch(0, own=counting), limit_s=1.0).alive


def stored(folder: Path, name: str, *, rehearsal: bool, **line: Any) -> StoredJournal:
    """A record with one line about the host."""
    (folder / name).mkdir()
    journal = Journal(folder / name / FILE_NAME)
    journal.write("run", run=name, rehearsal=rehearsal)
    journal.write("host-health", **line)
    journal.close()
    return read(folder / name / FILE_NAME)


def test_rehearsals_and_real_runs_do_not_share_a_memory(tmp_path: Path) -> None:
    """A real run takes over what the latest real run recorded, and a rehearsal what the latest rehearsal did."""
    wrong_since = {"host-alert-x": {"since": "2026-06-01T00:00:00+00:00", "before_first_look": True}}
    healthy = asdict(RECORD) | {"units": sorted(RECORD.units)}
    real = stored(
        tmp_path, "real", rehearsal=False, first_look="2026-06-01T00:00:00Z", wrong=wrong_since, healthy=healthy
    )
    rehearsed = stored(
        tmp_path, "rehearsed", rehearsal=True, first_look="2026-06-02T00:00:00Z", wrong={}, healthy=None
    )
    found = recall_host(iter([rehearsed, real]), rehearsal=False)
    assert found.healthy == RECORD
    assert found.wrong["host-alert-x"].before_first_look
    assert recall_host(iter([real, rehearsed]), rehearsal=True).wrong == {}
    assert recall_host(iter([]), rehearsal=False).first_look is None


@pytest.mark.parametrize(
    ("recorded", "known_until", "status"),
    [
        ({}, "", "new"),
        ({"host-alert-x.json": WrongSince(None, before_first_look=False)}, "", "new"),
        ({"host-alert-x.json": WrongSince(None, before_first_look=True)}, "", "before"),
        ({}, "9999-12-31", "known"),
        ({}, "2020-01-01", "expired"),
    ],
)
def test_record_and_site_decide_what_a_wrong_fact_means(
    site: Site, recorded: dict[str, WrongSince], known_until: str, status: str
) -> None:
    """A fact is new unless the first look saw it or the site accepts it until a day that has not passed."""
    known = (
        [KnownFailure(what="x.json", reason="known", until=date.fromisoformat(known_until))]
        if known_until
        else []
    )
    accepting = replace(site, host=replace(site.host, known_failures=tuple(known)))
    alert = replace(HEALTHY_HOST, alerts=frozenset({"x.json"}))
    memory = HostMemory(datetime(2026, 6, 1, tzinfo=UTC), recorded, RECORD)
    (one,) = judge_facts(
        accepting, memory, alert, baseline=alert, today=date(2026, 6, 2), now=datetime(2026, 6, 2, tzinfo=UTC)
    )
    assert one.status == status


def test_first_look_finds_what_was_wrong_before_it_and_fails_over_what_it_broke(site: Site) -> None:
    """Without a record, what the baseline shows was wrong before; what came since is new."""
    alert = replace(HEALTHY_HOST, alerts=frozenset({"x.json"}))
    now = datetime(2026, 6, 2, tzinfo=UTC)
    (before,) = judge_facts(site, HostMemory(), alert, baseline=alert, today=now.date(), now=now)
    (new,) = judge_facts(site, HostMemory(), alert, baseline=HEALTHY_HOST, today=now.date(), now=now)
    assert (before.status, new.status) == ("before", "new")


def test_unit_is_read_with_its_script_and_the_stack_file_that_the_script_names(tmp_path: Path) -> None:
    """The command prints the unit, its script, and of the store's files that it names the one with the poll set."""
    (store := tmp_path / "nix/store").mkdir(parents=True)
    (store / "abc-stack.json").write_text('["POLL_REPOS=o/cc-ci","POLL_INTERVAL=30"]\n')
    (store / "abc-other.json").write_text('["POLL_INTERVAL=99"]\n')
    (store / "abc-start").write_text(
        f"docker stack deploy -c {store}/abc-stack.json x; cat {store}/abc-other.json\n"
    )
    (programs := tmp_path / "bin").mkdir()
    systemctl = programs / "systemctl"
    shows = f"ExecStart={{ path=/bin/sh ; argv[]=/bin/sh {store}/abc-start ; }}"
    systemctl.write_text(f"#!/bin/sh\necho 'Environment=MODE=x'\necho '{shows}'\n")
    systemctl.chmod(0o755)
    shown = subprocess.run(
        ["/bin/sh", "-c", configuration_command("deploy-bridge.service", "POLL_REPOS")],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = configured_environment(shown, ["POLL_REPOS", "POLL_INTERVAL", "MODE"])
    assert found == {
        "POLL_REPOS": frozenset({"o/cc-ci"}),
        "POLL_INTERVAL": frozenset({"30"}),
        "MODE": frozenset({"x"}),
    }
