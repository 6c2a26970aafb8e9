"""The schedules: systemd units, a NixOS module that makes the same units, cron, and CI pipelines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.config.site import Limits
from tests_meta.muster_runs import ROOT, listed
from tests_meta.shipped.units import SCHEDULE, evaluated, here, needs, settings_of, unit

SERVICES = ("muster.service", "muster-freshness.service")
UNITS = (*SERVICES, "muster.timer", "muster-freshness.timer")
PIPELINES = ("drone.yml", "woodpecker.yml", "gitea-actions.yml")
EXPOSURE = 20  # tenths: 2.0, which systemd calls OK
MODULE = SCHEDULE / "muster.nix"
FILES = {
    "forge-token": "/etc/muster/forge-token",
    "drone-token": "/etc/muster/drone-token",
    "ssh-key": "/etc/muster/ssh-key",
    "known-hosts": "/etc/muster/known-hosts",
}


def verified(folder: Path, *, instead: tuple[str, str] = ("", "")) -> str:
    """The output of ``systemd-analyze verify`` for the units, optionally with one text replaced."""
    for name in UNITS:
        text = here((SCHEDULE / name).read_text())
        (folder / name).write_text(text.replace(*instead) if instead[0] else text)
    paths = [str(folder / name) for name in UNITS]
    done = subprocess.run(
        [needs("systemd-analyze"), "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` reports nothing about the units, and does report a misspelt setting."""
    assert verified(tmp_path) == ""
    assert "ProtectHme" in verified(tmp_path, instead=("ProtectHome", "ProtectHme"))


@pytest.mark.parametrize("name", SERVICES)
def test_units_are_sandboxed(name: str, tmp_path: Path) -> None:
    """`systemd-analyze security` rates each service 2.0 or better, and worse without its sandbox."""

    def rated(text: str) -> int:
        (tmp_path / name).write_text(text)
        words = ["security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(tmp_path / name)]
        return subprocess.run([needs("systemd-analyze"), *words], capture_output=True, check=False).returncode

    text = (SCHEDULE / name).read_text()
    assert rated(text) == 0
    assert rated(re.sub(r"^(Protect|Private|Restrict|SystemCallF).*\n", "", text, flags=re.M)) != 0


@pytest.mark.parametrize("name", ["muster.timer", "muster-freshness.timer"])
def test_timers_catch_up_after_a_missed_night(name: str) -> None:
    """Each timer has a valid calendar, fires after a reboot for a missed time, and is wanted when enabled."""
    timer = unit(name)
    (when,) = timer["Timer", "OnCalendar"]
    done = subprocess.run([needs("systemd-analyze"), "calendar", when], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert timer["Timer", "Persistent"] == ["true"]
    assert timer["Install", "WantedBy"] == ["timers.target"]


def test_time_limit_stops_the_run_in_order() -> None:
    """The time limit takes effect, only muster gets the signal, and the stop timeout fits the longest undo."""
    service = unit("muster.service")
    assert service["Service", "Type"] == ["exec"]
    assert service["Service", "KillMode"] == ["mixed"]
    assert ("Service", "RuntimeMaxSec") in service
    limits = Limits()
    longest_s = limits.dead_man_s + 2 * limits.switch_s + limits.bridge_start_s + limits.probe_s
    (stop,) = service["Service", "TimeoutStopSec"]
    assert stop.endswith("min")
    assert int(stop.removesuffix("min")) * 60 > longest_s


def as_unit(made: dict[str, Any], kind: str) -> dict[tuple[str, str], list[str]]:
    """The unit file that NixOS writes for a unit of a module, as far as these modules need."""
    rows: dict[tuple[str, str], list[str]] = {("Unit", "Description"): [made["description"]]}
    for key, name in (("wants", "Wants"), ("after", "After")):
        if made.get(key):
            rows["Unit", name] = [" ".join(made[key])]
    if "environment" in made:
        rows["Service", "Environment"] = [" ".join(f"{k}={v}" for k, v in made["environment"].items())]
    if "wantedBy" in made:
        rows["Install", "WantedBy"] = made["wantedBy"]
    for name, value in (made.get("serviceConfig") or made["timerConfig"]).items():
        values = value if isinstance(value, list) else [value]
        texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
        rows[kind, name] = [" ".join(texts)] if name == "RestrictAddressFamilies" else texts
    return rows


def plain(rows: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """The settings with commands unquoted and variables sorted, for comparison."""
    values = dict(rows)
    if ("Service", "ExecStart") in values:
        values["Service", "ExecStart"] = shlex.split(values["Service", "ExecStart"][0])
        values["Service", "Environment"] = sorted(values["Service", "Environment"][0].split())
    return {where: sorted(value) if where[1] == "LoadCredential" else value for where, value in values.items()}


def module(**given: object) -> Any:
    """The units that the module makes of the required options and `given`."""
    least = {"enable": True, "source": "/opt/muster", "python": "/opt/muster/.venv/bin/python", **given}
    return evaluated(MODULE, {"services": {"muster": least}})


def test_nixos_module_makes_the_same_units() -> None:
    """Each service and timer of the module has all settings of the unit file with its name."""
    made = module(credentials=FILES)
    for name in UNITS:
        stem, _, suffix = name.partition(".")
        one = made["systemd"][f"{suffix}s"][stem]
        assert plain(as_unit(one, suffix.capitalize())) == plain(unit(name)), name
    assert made["users"]["users"]["muster"]["isSystemUser"] is True


def test_options_of_the_nixos_module_take_effect() -> None:
    """An apply has no --health, the freshness of one site names it, and disabled units are not made."""
    made = module(mode="apply", onFailure=["tell@%n.service"], freshness={"site": "cc-ci", "max": "50h"})
    services = made["systemd"]["services"]
    assert "--health" not in services["muster"]["serviceConfig"]["ExecStart"]
    assert '"--max" "50h" "--site" "cc-ci"' in services["muster-freshness"]["serviceConfig"]["ExecStart"]
    assert all(one["onFailure"] == ["tell@%n.service"] for one in services.values())
    alone = module(user="nobody-else", freshness={"enable": False})
    assert set(alone["systemd"]["services"]) == {"muster"}
    assert "users" not in alone["users"]
    assert module(enable=False) == {}
    with pytest.raises(AssertionError, match="does not exist"):
        module(tiem="03:00")


def commands() -> dict[str, list[str]]:
    """Every command of muster in a schedule, as the arguments after ``python -m``."""
    found: dict[str, list[str]] = {}
    for path in sorted(SCHEDULE.iterdir()):
        for words in re.findall(
            r"^[^#\n]*python -m ((?:pytest|reports) [^|&;>\n]*)", path.read_text(), flags=re.M
        ):
            found.setdefault(" ".join(words.split()), []).append(path.name)
    return found


def test_every_scheduled_command_is_valid(tmp_path: Path) -> None:
    """The pytest commands select all phases of a real site's health check; the freshness command works."""
    given = commands()
    runs = {said for said in given if said.startswith("pytest")}
    assert {name for said in runs for name in given[said]} == {"muster.service", "crontab", *PIPELINES}
    tests = set()
    for said in {re.sub(r"(--site|--reports) \S+", r"\1 HERE", one) for one in runs}:
        assert "--health --site HERE" in said
        # A real site refuses --collect-only, because such a run would check nothing.
        line = said.replace("--health --site HERE", "").replace("--reports HERE", f"--reports {tmp_path}")
        tests.add(len(listed(*shlex.split(line.removeprefix("pytest phases/")))))
    assert len(tests) == 1
    assert tests.pop() > 100
    for said in given.keys() - runs:
        words = shlex.split(said.replace("/var/lib/muster", str(tmp_path)))
        done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout.split()[:2]) == (1, ["muster:", "STALE"]), done.stderr


def test_pipelines_run_by_schedule_and_contain_no_secret() -> None:
    """Drone, Woodpecker and Gitea Actions start the pipeline only by schedule, and every secret is a reference."""
    drone, woodpecker, gitea = (yaml.safe_load((SCHEDULE / name).read_text()) for name in PIPELINES)
    assert drone["trigger"] == {"event": ["cron"], "cron": ["nightly"]}
    assert woodpecker["when"] == [{"event": "cron", "cron": "nightly"}]
    assert list(gitea[True]) == ["schedule"]  # YAML 1.1 reads the word `on` as a truth
    assert all(len(one["cron"].split()) == 5 for one in gitea[True]["schedule"])
    for step in (*drone["steps"], *woodpecker["steps"]):
        assert step["environment"]
        assert all(list(value) == ["from_secret"] for value in step["environment"].values())
    for step in gitea["jobs"]["health"]["steps"]:
        assert all(re.fullmatch(r"\$\{\{ (secrets|github)\.\w+ \}\}", value) for value in step["env"].values())


def crontab_lines() -> list[tuple[str, str]]:
    """Schedule and command of each line; cron needs a backslash before a percent sign (crontab(5))."""
    lines = [line for line in (SCHEDULE / "crontab").read_text().splitlines() if re.match(r"[0-9*]", line)]
    parts = [line.split(maxsplit=5) for line in lines]
    assert all(not re.search(r"(?<!\\)%", fields[5]) for fields in parts)
    return [(" ".join(fields[:5]), fields[5].replace("\\%", "%")) for fields in parts]


@pytest.mark.parametrize(("status", "heard"), [(0, False), (1, True)])
def test_cron_mails_only_after_a_failed_night(status: int, heard: bool, tmp_path: Path) -> None:
    """Each night logs a line with its exit code; cron has output to mail only after a failed night."""
    interpreter = tmp_path / "muster" / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(
        f"#!/bin/sh\necho collected\necho 'muster: WORD 19/19'\necho 1 passed\nexit {status}\n"
    )
    interpreter.chmod(0o755)
    (tmp_path / "state").mkdir()
    nightly, freshness = crontab_lines()
    assert nightly[0] == "17 2 * * *"
    for _, command in (nightly, freshness):
        words = command.replace("/opt/muster", str(tmp_path / "muster"))
        done = subprocess.run(
            ["/bin/sh", "-c", words.replace("/var/lib/muster", str(tmp_path / "state"))],
            env={"PATH": os.defpath}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert bool(done.stdout) is heard, done
        assert done.stderr == ""
    line = (tmp_path / "state" / "cron.log").read_text()
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\S+Z exit {status} muster: WORD 19/19\n", line)


def test_unit_file_parser_keeps_repeated_settings() -> None:
    """The parser that these tests use keeps repeated settings and ignores comments."""
    read = settings_of("[Service]\nA=1\n#A=2\nA=3\nB=x=y\n")
    assert read == {("Service", "A"): ["1", "3"], ("Service", "B"): ["x=y"]}
