"""References to secrets: resolved late, never shown, and refused in one sentence unless they are private."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fixtures.config.secret_reference import FromCommand, FromEnvironment, FromFile, SecretReference
from fixtures.errors import BadSetting
from tests_meta.config.site_files import TOKEN, assert_one_sentence


def reference(source: FromEnvironment | FromFile | FromCommand) -> SecretReference:
    return SecretReference(file="site.toml", key="forge.token", source=source)


def unresolved(source: FromEnvironment | FromFile | FromCommand) -> str:
    with pytest.raises(BadSetting) as caught:
        reference(source).resolve()
    said = str(caught.value)
    assert said.startswith("site.toml: forge.token needs ")
    assert TOKEN not in said
    assert_one_sentence(said)
    return said


def test_secret_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is read when the reference is resolved; an unset or empty one is refused by name."""
    source = FromEnvironment("MUSTER_TEST_TOKEN")
    assert "MUSTER_TEST_TOKEN to be set" in unresolved(source)
    monkeypatch.setenv("MUSTER_TEST_TOKEN", "")
    assert "empty" in unresolved(source)
    monkeypatch.setenv("MUSTER_TEST_TOKEN", f"{TOKEN}\r\nX-Header: 1")
    assert "not shown" in unresolved(source)
    monkeypatch.setenv("MUSTER_TEST_TOKEN", TOKEN)
    secret = reference(source).resolve()
    assert secret.reveal() == TOKEN
    assert TOKEN not in repr(secret) + str(secret) + secret.where


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o4600])
def test_secret_file_for_others(mode: int, tmp_path: Path) -> None:
    """A secret file that others may read, or with any mode beyond 0600, is refused."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    said = unresolved(FromFile(path))
    assert f"its mode is {mode:04o}" in said
    assert str(path) in said


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_secret_file(mode: int, tmp_path: Path) -> None:
    """The one line of a private file is the secret, with or without its line end."""
    for ending in ("", "\n", "\r\n"):
        path = tmp_path / f"token{len(ending)}"
        path.write_bytes((TOKEN + ending).encode())
        path.chmod(mode)
        assert reference(FromFile(path)).resolve().reveal() == TOKEN


def test_secret_file_of_another_kind(tmp_path: Path) -> None:
    """Missing, a directory, a FIFO, a dangling link, empty, two lines, not text: each is refused."""
    assert "No such file" in unresolved(FromFile(tmp_path / "none"))
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in unresolved(FromFile(tmp_path / "fifo"))
    unresolved(FromFile(tmp_path))
    (tmp_path / "link").symlink_to("nowhere")
    assert "No such file" in unresolved(FromFile(tmp_path / "link"))
    for content, says in ((b"", "empty"), (b"\n", "empty"), (b"a\nb", "not shown"), (b"\xff", "not text")):
        path = tmp_path / "token"
        path.touch(0o600)
        path.write_bytes(content)
        assert says in unresolved(FromFile(path))


def test_secret_file_of_another_owner(tmp_path: Path) -> None:
    """A secret file that somebody else owns is refused."""
    path = tmp_path / "token"
    path.touch(0o600)
    owner = os.geteuid()
    if owner == 0:
        owner = 12345
        os.chown(path, owner, owner)
    else:
        path, owner = Path("/etc/passwd"), Path("/etc/passwd").stat().st_uid
    assert f"user {owner} owns it" in unresolved(FromFile(path))


def test_secret_from_command(tmp_path: Path) -> None:
    """A command's first line is the secret; no shell reads the words."""
    script = "import sys; print(sys.argv[1]); print('second line')"
    assert reference(FromCommand((sys.executable, "-c", script, TOKEN))).resolve().reveal() == TOKEN
    marker = tmp_path / "marker"
    words = (sys.executable, "-c", script, f"$(touch${{IFS}}{marker})")
    assert reference(FromCommand(words)).resolve().reveal().startswith("$(touch")
    assert not marker.exists()


def test_secret_command_that_fails() -> None:
    """A command that is missing, fails, prints nothing or does not end is refused; its output is not shown."""
    assert "cannot be started" in unresolved(FromCommand(("/no/such/program",)))
    assert "exit code 3" in unresolved(FromCommand(("/bin/sh", "-c", f"echo {TOKEN}; echo {TOKEN} >&2; exit 3")))
    assert "empty" in unresolved(FromCommand(("/bin/sh", "-c", ":")))
    assert "still running" in unresolved(FromCommand(("/bin/sh", "-c", "exec sleep 600"), limit_s=0.2))
