"""A run under the restrictions of muster.service: read-only file system, unnamed user, no home, credentials.

The tests do not start systemd. They use the kernel to set the same restrictions: only the state folder is writable, the
user has no name and no capability, and no memory is both writable and executable.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures.config.secret_reference import FromFile, SecretReference
from fixtures.config.site import load_site
from fixtures.errors import BadSetting
from tests_meta.config.site_files import MINIMAL, TOKEN, assert_one_sentence, refusal, with_line, write
from tests_meta.muster_runs import WorldPool
from tests_meta.shipped.units import confined

SECRETS = {"forge-token": "forge-token", "drone-token": "drone-token", "id_ed25519": "ssh-key",
           "known_hosts": "known-hosts"}  # fmt: skip
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
NIGHT_S = 120.0


def no_new_code() -> None:
    """In a child: set what MemoryDenyWriteExecute= sets (prctl(2), Linux 6.3); does nothing on older kernels."""
    ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)


class Service:
    """The unit's files: /etc with site and roster, a state folder, and credentials."""

    def __init__(self, folder: Path, world_pool: WorldPool) -> None:
        self.state, self.credentials, self._etc = (folder / name for name in ("state", "credentials", "etc"))
        for made in (self.state, self.credentials, self._etc, self.state / "tmp"):
            made.mkdir()
        for name, handed in SECRETS.items():
            shutil.copyfile(world_pool.world / "secrets" / name, self.credentials / handed)
            (self.credentials / handed).chmod(0o400)
        self.roster = shutil.copy(world_pool.roster, self._etc / "roster.toml")
        text = world_pool.site.read_text().replace('ssh_config = "secrets/ssh_config"\n', "")
        for name, handed in SECRETS.items():
            text = text.replace(f"secrets/{name}", f"$CREDENTIALS_DIRECTORY/{handed}")
        self.site = self._etc / "site.toml"
        self.site.write_text(
            text.replace('name = "rehearsal"', 'name = "embedded"') + "[record]\nmax_age_h = 26\n"
        )

    def run(self, *arguments: str, credentials: bool = True) -> subprocess.CompletedProcess[str]:
        given = [f"CREDENTIALS_DIRECTORY={self.credentials}"] * credentials
        environment = [
            "PATH=/usr/bin:/bin:/usr/sbin",
            f"TMPDIR={self.state / 'tmp'}",
            "PYTHONUNBUFFERED=1",
            *given,
        ]
        return subprocess.run(
            [*confined(self.state), *environment, sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=NIGHT_S,
            start_new_session=True,
            preexec_fn=no_new_code,
            check=False,
        )

    def night(self, **options: Any) -> subprocess.CompletedProcess[str]:
        """The ExecStart of muster.service."""
        return self.run(
            "pytest", "phases/", "--health", "--site", str(self.site), "--roster", str(self.roster),
            "--reports", str(self.state), "-p", "no:cacheprovider", **options,
        )  # fmt: skip

    def fresh(self) -> subprocess.CompletedProcess[str]:
        return self.run("reports", "--root", str(self.state), "freshness", "--max", "26h", "--site", "embedded")

    def runs(self) -> list[Path]:
        return sorted((self.state / "runs").iterdir())

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.runs()[-1] / "summary.json").read_text())
        return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Callable[[WorldPool], Service]:
    kept: list[Service] = []

    def made(world_pool: WorldPool) -> Service:
        if not kept:
            kept.append(Service(tmp_path_factory.mktemp("service"), world_pool))
        return kept[0]

    return made


def test_health_check_as_a_service(service: Callable[[WorldPool], Service], converged: WorldPool) -> None:
    """The unit's command makes a complete health check from a read-only source folder, and records it."""
    one = service(converged)
    stale = one.fresh()
    assert (stale.returncode, "STALE" in stale.stdout) == (1, True), stale.stdout
    ran = one.night()
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert "Traceback" not in ran.stdout
    assert "warnings summary" not in ran.stdout, "pytest itself has nothing to complain about"
    summary = one.summary()
    assert (summary["verdict"], summary["site"], summary["mirrored"]) == ("unchanged", "embedded", 19)
    assert not [f for f in summary["findings"] if f["id"] == "nights-missed"]
    for name in ("report.html", "journal.jsonl", "junit.xml"):
        assert (one.runs()[-1] / name).stat().st_size > 0, name
    fresh = one.fresh()
    assert (fresh.returncode, "FRESH" in fresh.stdout) == (0, True), fresh.stdout


def test_next_run_reports_missed_and_killed_nights(
    service: Callable[[WorldPool], Service], converged: WorldPool
) -> None:
    """If the latest finished run is older than record.max_age_h, the next run reports that, and the killed runs.

    A --plan in between does not count as a run. The finding does not change the exit code.
    """
    one = service(converged)
    last = one.runs()[-1]
    summary = one.summary()
    ended = datetime.now(UTC) - timedelta(hours=75)
    stamp = f"{ended:%Y-%m-%dT%H:%M:%S}Z"
    (last / "summary.json").write_text(json.dumps({**summary, "started": stamp, "finished": stamp}))
    plan, killed = (one.state / "runs" / f"{ended + timedelta(hours=h):%Y%m%dT%H%M%S}000Z-embedded-{mode}"
                    for h, mode in ((60, "plan"), (70, "health")))  # fmt: skip
    last.rename(one.state / "runs" / f"{ended:%Y%m%dT%H%M%S}000Z-embedded-health")
    for folder, mode, verdict in ((plan, "plan", "planned"), (killed, "health", "interrupted")):
        folder.mkdir()
        finished = datetime.now(UTC).isoformat() if mode == "plan" else None
        about = {**summary, "run": folder.name, "mode": mode, "verdict": verdict, "finished": finished}
        (folder / "summary.json").write_text(json.dumps(about))
    ran = one.night()
    assert ran.returncode == 0, ran.stdout[-4000:]
    (found,) = (f for f in one.summary()["findings"] if f["id"] == "nights-missed")
    assert re.search(r"ended (75 h|3 d)", found["what"]), found
    assert "more than the 26 h" in found["what"]
    assert "1 run since then did not finish" in found["what"]
    assert "list-timers" in found["do"]


def test_run_without_its_credentials(service: Callable[[WorldPool], Service], converged: WorldPool) -> None:
    """Without the credentials that the site file names, a run ends with exit 4, one message and no record."""
    one = service(converged)
    before = one.runs()
    ran = one.night(credentials=False)
    assert ran.returncode == 4, ran.stdout
    (said,) = re.findall(r"ERROR: muster: (.*)", ran.stdout)
    assert "$CREDENTIALS_DIRECTORY is not set" in said
    assert_one_sentence(said)
    assert one.runs() == before


def credential(folder: Path, mode: int) -> SecretReference:
    path = folder / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    return SecretReference(file="site.toml", key="forge.token", source=FromFile(path))


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_credential_with_group_bits_is_private(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd's ACL shows as group bits, so 0440 counts as private in the credentials folder, and only there."""
    reference = credential(tmp_path, mode)
    if mode & 0o077:
        with pytest.raises(BadSetting, match="mode is 0440"):
            reference.resolve()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert reference.resolve().reveal() == TOKEN


@pytest.mark.parametrize("mode", [0o444, 0o660, 0o404, 0o750])
def test_credential_readable_by_others_is_rejected(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the credentials folder only systemd's modes are accepted, and not for files in its subfolders."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(BadSetting, match=f"its mode is {mode:04o}"):
        credential(tmp_path, mode).resolve()
    (tmp_path / "deeper").mkdir()
    with pytest.raises(BadSetting, match="its mode is 0440"):
        credential(tmp_path / "deeper", 0o440).resolve()


def test_paths_of_a_site_may_be_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, key and known_hosts may be under $CREDENTIALS_DIRECTORY; no other variable is expanded."""
    (tmp_path / "ssh-key").write_text("key")
    site = write(tmp_path, with_line("host", 'identity_file = "$CREDENTIALS_DIRECTORY/ssh-key"'))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    said = refusal(site)
    assert "$CREDENTIALS_DIRECTORY is not set" in said
    assert_one_sentence(said)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_site(site).host.identity_file == tmp_path / "ssh-key"
    token = 'token = { file = "$CREDENTIALS_DIRECTORY/forge-token" }'
    assert load_site(write(tmp_path, with_line("forge", token))).forge.token.source == FromFile(
        tmp_path / "forge-token"
    )
    assert "exists" in refusal(write(tmp_path, with_line("host", 'identity_file = "$HOME/ssh-key"')))


def test_user_without_a_home_folder(tmp_path: Path) -> None:
    """Without a home folder no default path is used, and the paths in the site file are enough."""
    (tmp_path / "state").mkdir()
    site = write(tmp_path, MINIMAL)
    read = f"load_site(__import__('pathlib').Path({str(site)!r})).host"
    script = f"from fixtures.config.site import load_site; print({read})"
    words = [*confined(tmp_path / "state"), f"PATH={os.defpath}", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ssh_config=None" in done.stdout


@pytest.mark.parametrize("value", ["0", "true", '"26"', "9999"])
def test_max_age_h_is_a_number_of_hours(value: str, tmp_path: Path) -> None:
    """record.max_age_h is a number of hours; any other value gives one message."""
    said = refusal(write(tmp_path, MINIMAL + f"[record]\nmax_age_h = {value}\n"))
    assert "a number of hours from 1 to 8760" in said
    assert_one_sentence(said)
