"""The embedded host behaves as a NixOS host: ssh, systemd, docker swarm and nix."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator

import paramiko
import pytest

from fixtures.rehearsal.host.removal import make_removable, remove
from fixtures.rehearsal.host.sshd import find_sshd
from tests_meta.rehearsal.host_world import BUILD, ENROLL, Answer, HostWorld, execute, until

KINDS = ["paramiko+stand-in", "openssh+nix"]
BRIDGE = "ccci-bridge_app"
TASK = f"docker service ps --no-trunc -q -f desired-state=running {BRIDGE} | head -n 1"
STATE = f"docker inspect $({TASK}) --format '{{{{.Status.State}}}}'"
POLLED = f"docker inspect $({TASK}) --format '{{{{json .Spec.ContainerSpec.Env}}}}'"
CURRENT = "readlink -f $HOME/../run/current-system"


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostWorld]:
    ssh, nix = request.param.split("+")
    if ssh == "openssh" and (find_sshd() is None or shutil.which("nix") is None):
        pytest.skip("sshd and nix are not both installed here")
    made = HostWorld(tmp_path_factory.mktemp("host") / "world", ssh=ssh, nix=nix)
    yield made
    made.close()


@pytest.fixture(scope="module")
def host(world: HostWorld) -> HostWorld:
    """A running host, for tests that do not change it."""
    world.start()
    return world


# -- ssh ---------------------------------------------------------------------------------------------------


def test_host_identity(host: HostWorld) -> None:
    """Machine id, hostname, root device and running system can be read in one session."""
    said = host.out(
        f"cat $HOME/../etc/machine-id; hostname; uname -n; findmnt -n -o SOURCE --target $HOME; {CURRENT}"
    ).splitlines()
    assert len(said[0]) == 32
    assert said[1:4] == ["nixos", "nixos", "/dev/disk/by-label/nixos"]
    assert said[4].startswith(str(host.paths.store))
    assert "nixos-system-nixos-" in said[4]


def test_path_is_the_hosts_and_no_profile_is_read(host: HostWorld) -> None:
    """PATH begins with the host's commands; ~/.bashrc and ~/.profile are not read."""
    for name in (".bashrc", ".profile", ".bash_profile"):
        (host.paths.home / name).write_text("echo poison; exit 9\n")
    assert host.out("command -v systemctl") == str(host.paths.bin / "systemctl")
    assert host.out("pwd") == str(host.paths.home)


def test_exit_status_and_both_outputs_arrive(host: HostWorld) -> None:
    """A command gets its input with the end of file, and its status, stdout and stderr are returned."""
    assert host.run("cat; echo wrong >&2; exit 37", given=b"given\n") == Answer(37, "given\n", "wrong\n")


def test_large_output_on_both_streams_is_complete(host: HostWorld) -> None:
    """Three megabytes on each stream arrive completely."""
    answer = host.run("head -c 3000000 /dev/zero | tr '\\0' x & head -c 3000000 /dev/zero | tr '\\0' y >&2; wait")
    assert (answer.out.count("x"), answer.err.count("y"), answer.status) == (3_000_000, 3_000_000, 0)


def test_killed_command_has_no_exit_status(host: HostWorld) -> None:
    """A killed command returns a signal, which paramiko shows as -1, and only after the request was accepted."""
    assert [host.run("kill -9 $$").status for _ in range(20)] == [-1] * 20


def test_channels_run_side_by_side(host: HostWorld) -> None:
    """Eight commands on one connection run at the same time."""
    client = host.connect()
    meet = "mkdir -p meet && touch meet/$$ && while [ $(ls meet | wc -l) -lt 8 ]; do :; done; echo met"
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(execute(client, meet))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert [answer.out for answer in answers] == ["met\n"] * 8


def test_session_ends_with_its_connection(host: HostWorld) -> None:
    """A lock that a session holds is released when its connection is closed."""
    client = host.connect()
    transport = client.get_transport()
    assert transport is not None
    channel = transport.open_session()
    channel.exec_command("exec 9>$HOME/lock; flock -n 9 && echo held; cat")
    assert channel.recv(5) == b"held\n"
    assert host.run("flock -n $HOME/lock true").status == 1
    client.close()
    until(lambda: host.run("flock -n $HOME/lock true").status == 0, "the lock to be free")


def test_only_the_authorized_key_logs_in(host: HostWorld) -> None:
    """Another key, or a password, is refused."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(host.settings.secrets_dir / "known_hosts"))
    with pytest.raises(paramiko.AuthenticationException):
        client.connect(
            "127.0.0.1",
            port=host.settings.ssh_port,
            username="root",
            pkey=paramiko.RSAKey.generate(2048),
            allow_agent=False,
            look_for_keys=False,
        )
    client.close()


# -- systemd -----------------------------------------------------------------------------------------------


def test_transient_service_outlives_its_connection(host: HostWorld) -> None:
    """A service started by systemd-run keeps running when its connection is closed."""
    client = host.connect()
    execute(client, "systemd-run --quiet --unit=stays --service-type=exec --remain-after-exit sleep 60")
    client.close()
    assert host.out("systemctl is-active stays") == "active"
    assert host.out("systemctl show -p SubState --value stays") == "running"
    host.out("systemctl stop stays")
    assert host.out("systemctl show -p LoadState --value stays") == "not-found"


def test_loaded_unit_name_is_refused(host: HostWorld) -> None:
    """The name of a transient unit is refused with systemd's message while the unit is loaded, also when it failed."""
    host.out("systemd-run --quiet --unit=once --service-type=exec sh -c 'exit 3'")
    host.until("systemctl is-failed once", "failed")
    again = host.run("systemd-run --quiet --unit=once --service-type=exec true")
    assert again.status == 1
    assert "Unit once.service was already loaded or has a fragment file." in again.err
    shown = host.out("systemctl show -p Result,ExecMainStatus,ExecMainCode once")
    assert shown.splitlines() == ["Result=exit-code", "ExecMainCode=1", "ExecMainStatus=3"]
    host.out("systemctl reset-failed once")
    host.out("systemd-run --quiet --unit=once --service-type=exec --collect true")


def test_stop_and_time_limit_end_every_process(host: HostWorld) -> None:
    """Stopping a unit, or reaching RuntimeMaxSec, also kills children with their own sessions."""
    script = "setsid sh -c 'exec sleep 4711' & exec sleep 4712"
    host.out(f'systemd-run --quiet --unit=tree --service-type=exec sh -c "{script}"')
    host.until("ps -eo args | grep -c '^sleep 471[12]'", "2")
    host.out("systemctl stop tree")
    assert host.run("ps -eo args | grep -c '^sleep 471[12]'").out.strip() == "0"
    host.out(f'systemd-run --quiet --unit=late --service-type=exec -p RuntimeMaxSec=200ms -r sh -c "{script}"')
    host.until("systemctl show -p Result --value late", "timeout")
    host.until("systemctl show -p ActiveState --value late", "failed")
    host.until("ps -eo args | grep -c '^sleep 471[12]'", "0")
    assert "late.service" in host.out("systemctl list-units --failed --plain --no-legend")
    host.out("systemctl reset-failed late")


def test_timer_fires_once_and_is_unloaded(host: HostWorld) -> None:
    """--on-active starts the service once, then both units are unloaded; the timer can be stopped before."""
    host.out("systemd-run --quiet --unit=soon --on-active=0.2 touch $HOME/fired")
    until(lambda: (host.paths.home / "fired").exists(), "the timer to fire")
    host.until("systemctl show -p LoadState --value soon.timer", "not-found")
    host.out("systemd-run --quiet --unit=never --on-active=1h touch $HOME/not-fired")
    assert host.out("systemctl is-active never.timer") == "active"
    assert "never.timer" in host.out("systemctl list-units --all --plain --no-legend")
    host.out("systemctl stop never.timer")
    assert host.run("systemctl is-active never.timer never.service").status == 4
    assert host.run("systemctl stop never.timer").status == 5


def test_manager_expands_variables_before_the_shell(host: HostWorld) -> None:
    """The manager expands ${NAME} in a transient unit's command, makes $$ a dollar, and keeps $NAME inside a word."""
    script = "echo ${HERE}-$$HOW-$HOW-${NOT} > $HOME/said"
    host.out(f"systemd-run -q --wait -E HERE=x -E HOW=y -E HOME=$HOME sh -c '{script}'")
    assert (host.paths.home / "said").read_text() == "x-y-y-\n"


def test_journal_is_selected_by_unit_and_invocation(host: HostWorld) -> None:
    """journalctl prints the lines of all starts of a unit in order, or of one start by its invocation id."""
    started = "systemd-run -q --wait --unit=said sh -c 'echo one; echo two; echo $$INVOCATION_ID'"
    invocation = ""
    for _ in range(2):
        host.out(started)
        lines = host.out("journalctl -u said -t sh -o cat").splitlines()
        assert lines[-3:-1] == ["one", "two"]
        assert lines[-1] != invocation
        invocation = lines[-1]
    assert len(lines) == 6
    of_the_last = host.out(f"journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={invocation}")
    assert of_the_last.splitlines() == ["one", "two", invocation]
    assert host.out("journalctl -u nothing --no-pager") == "-- No entries --"


# -- docker, abra ------------------------------------------------------------------------------------------


def test_swarm_shows_the_bridge_as_docker_does(host: HostWorld) -> None:
    """Service, task and stacks have docker's shapes; the poll set is one value in the task's environment."""
    host.until(STATE, "running")
    task = json.loads(host.out(f"docker inspect $({TASK})"))[0]
    assert len(task["ID"]) == 25
    values = dict(pair.split("=", 1) for pair in task["Spec"]["ContainerSpec"]["Env"])
    assert values["POLL_REPOS"].split(",")[0] == "recipe-maintainers/cc-ci"
    assert len(values["POLL_REPOS"].split(",")) == 11
    assert values["GITEA_URL"] == host.settings.forge_url
    services = host.out("docker service ls --format '{{.Name}}'").split()
    stacks = ["backups", "ccci-bridge", "ccci-dashboard", "drone", "traefik"]
    assert services == [f"{stack}_app" for stack in stacks]
    for stack in stacks:
        row = json.loads(host.out(f"docker stack services {stack} --format '{{{{json .}}}}'"))
        assert row["Replicas"] == "1/1"


def test_docker_reports_a_missing_service(host: HostWorld) -> None:
    """A missing service gives docker's exit codes and messages."""
    assert host.run("docker service ps nosuch") == Answer(1, "", "no such service: nosuch\n")
    assert host.run("docker service logs nosuch") == Answer(1, "", "no such task or service: nosuch\n")
    inspected = host.run("docker service inspect nosuch")
    assert (inspected.status, inspected.out) == (1, "[]\n")


def test_bridge_log_is_the_process_output(host: HostWorld) -> None:
    """docker service logs prints the output of the bridge process, with the task's ID unless ``--raw``."""
    host.until(STATE, "running")
    until(
        lambda: "watching all 11 repos" in host.run(f"docker service logs --raw {BRIDGE}").out,
        "the bridge's first lines",
    )
    assert host.out(TASK) in host.out(f"docker service logs {BRIDGE}")


def test_abra_fetches_from_upstream(host: HostWorld) -> None:
    """abra recipe fetch clones an existing recipe and fails for a missing one."""
    host.out(
        "ABRA_DIR=$HOME/fetched abra recipe fetch mumble -n && test -f $HOME/fetched/recipes/mumble/compose.yml"
    )
    missing = host.run("ABRA_DIR=$HOME/fetched abra recipe fetch nosuch -n")
    assert missing.status == 1
    assert missing.err.startswith("FATA")


# -- nix ---------------------------------------------------------------------------------------------------


def test_build_depends_only_on_the_content(host: HostWorld) -> None:
    """Commits with the same content build the same path, other content another path."""
    build = BUILD.format(attribute="cc-ci")
    assert host.out(build) == host.out(CURRENT)
    host.out("cd ~/cc-ci && git commit -q --allow-empty -m same")
    assert host.out(build) == host.out(CURRENT)
    host.out(ENROLL)
    assert host.out(build) != host.out(CURRENT)
    host.out("cd ~/cc-ci && git reset -q --hard HEAD~2")


def test_evaluation_reads_the_identity_of_a_configuration(host: HostWorld) -> None:
    """nix eval --apply reads hostname and root device of each attribute without building it."""
    pick = 'c: { hostname = c.networking.hostName; root_device = c.fileSystems."/".device; }'
    for attribute, wanted in {"cc-ci": "nixos", "cc-ci-hetzner": "nixos", "cc-ci-incus": "cc-ci"}.items():
        flake = f"git+file://$HOME/cc-ci?submodules=1#nixosConfigurations.{attribute}.config"
        identity = json.loads(host.out(f"nix eval --json \"{flake}\" --apply '{pick}'"))
        assert identity["hostname"] == wanted
        assert (identity["root_device"] == "/dev/disk/by-label/nixos") == (wanted == "nixos")


def test_flake_needs_its_submodule(host: HostWorld) -> None:
    """Evaluation fails without ?submodules=1, because the sops file is missing, and for an unknown attribute."""
    with_submodule = BUILD.format(attribute="cc-ci").split("|")[0]
    assert host.run(with_submodule).status == 0
    without = host.run(with_submodule.replace("?submodules=1", ""))
    assert without.status == 1
    assert "secrets.yaml" in without.err
    unknown = host.run(BUILD.format(attribute="nosuch").split("|")[0])
    assert unknown.status == 1
    assert "does not provide attribute" in unknown.err


def test_stores_can_be_removed(host: HostWorld) -> None:
    """`make_removable` makes the read-only folders of a nix store removable by their owner."""
    copy = host.settings.root / "copy"
    shutil.copytree(host.paths.store, copy, symlinks=True)
    make_removable(copy)
    assert all(path.stat().st_mode & 0o200 for path in copy.rglob("*") if path.is_dir() and not path.is_symlink())
    remove(copy)
    assert not copy.exists()


def test_rollback_goes_to_the_previous_generation_number(host: HostWorld) -> None:
    """nix-env --rollback goes to the previous generation number, here the legacy machine's system."""
    profile = "nix-env -p $HOME/../nix/var/nix/profiles/system"
    host.out(f"{profile} --rollback")
    name = host.out("readlink -f $HOME/../nix/var/nix/profiles/system")
    host.out(f"{profile} --switch-generation 42")
    assert "nixos-system-cc-ci-" in name
    assert host.out("readlink $HOME/../nix/var/nix/profiles/system") == "system-42-link"
    host.out(f"{profile} --set $({CURRENT})")
    assert "43" not in host.out(f"{profile} --list-generations")
    assert host.run(f"{profile} --switch-generation 99").status == 1
