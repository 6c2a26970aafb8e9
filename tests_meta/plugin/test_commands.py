"""The commands: the short manual, the pytest runs behind ``muster``, the world to practise in, and the installation."""

from __future__ import annotations

import importlib.metadata
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.plugin import commands
from tests_meta.muster_runs import ROOT, environment, processes_of

sys.path.insert(0, str(ROOT / "fixtures" / "shipped"))


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# -- the manual ----------------------------------------------------------------------------------------------


def test_manual_is_what_the_command_alone_prints() -> None:
    """``python -m fixtures`` prints it and exits with 0; a name that is no command exits with 2."""
    shown = run("-m", "fixtures")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, commands.MANUAL, "")
    wrong = run("-m", "fixtures", "aply")
    assert (wrong.returncode, wrong.stdout) == (commands.USAGE, "")
    assert "invalid choice: 'aply'" in wrong.stderr


def test_manual_lists_every_command_and_only_valid_ones() -> None:
    """Each command of the parser is in it, and each option in it is one of muster's or of the record's commands."""
    help_text = commands.build_parser().format_help()
    names = set(re.findall(r"^    (\w+) ", help_text, re.M)) - {"completion", "man"}
    assert names >= {"plan", "apply", "health", "recover", "check", "rehearse", "report"}
    assert names <= set(re.findall(r"`(?:muster )?(\w+)`", commands.MANUAL))
    known = help_of("apply") | {"--apply"}
    lines = [line for line in commands.MANUAL.splitlines() if line.startswith("  pytest")]
    assert set(re.findall(r"--\w+", "".join(lines))) <= known
    for words in re.findall(r"^  python -m reports (\w+)", commands.MANUAL, re.M):
        assert words == "RUN" or run("-m", "reports", words, "--help").returncode == 0


def help_of(command: str) -> set[str]:
    """The options that ``COMMAND --help`` names."""
    return set(re.findall(r"--\w+", run("-m", "fixtures", command, "--help").stdout))


# -- the pytest runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words", "given"),
    [
        ("plan", ["--out", "p.json"], ["--plan", "--out", "p.json"]),
        ("apply", ["--site", "s.toml"], ["--site", "s.toml"]),
        ("apply", ["p.json", "--site", "s.toml"], ["--apply", "p.json", "--site", "s.toml"]),
        ("health", ["-q"], ["--health", "-q"]),
        ("recover", [], ["--recover"]),
    ],
)
def test_modes_are_pytest_runs(mode: str, words: list[str], given: list[str]) -> None:
    """Each is pytest on all of phases/, with the option of its mode and everything that was given."""
    command = commands.pytest_command(mode, words)
    assert command[command.index(str(ROOT / "phases")) + 1 :] == given
    assert command[:4] == [sys.executable, "-P", "-m", "pytest"]


def test_records_of_a_read_only_checkout_go_to_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where reports/ cannot be written to, the records go to the user's state folder, unless a folder is named."""
    assert commands.own_reports("--reports") == []
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert commands.pytest_command("health", [])[-2:] == ["--reports", str(tmp_path / "muster")]
    assert commands.pytest_command("health", ["--reports=here"])[-1] == "--reports=here"


def test_command_runs_from_any_folder(tmp_path: Path) -> None:
    """In a folder that has a package ``fixtures`` of another project, it selects the same tests as in the checkout."""
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures" / "__init__.py").write_text("raise RuntimeError('another project')\n")
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'fixtures/shipped/command')!r}); import muster; muster.main()"
    elsewhere = run("-P", "-c", code, "apply", "--collect-only", "-q", cwd=tmp_path)
    here = run("-m", "pytest", "phases/", "--collect-only", "-q")
    assert elsewhere.returncode == here.returncode == 0, elsewhere.stdout + elsewhere.stderr

    def names(output: str) -> set[str]:
        return set(re.findall(r"test_\d_\w+\.py::\S+", output))

    assert names(elsewhere.stdout) == names(here.stdout) != set()


# -- completion and manual page -----------------------------------------------------------------------------------


def test_completion_is_a_valid_script_with_the_options() -> None:
    """bash accepts it, and it completes muster's options, its commands and files."""
    made = run("-m", "fixtures", "completion", "bash")
    assert made.returncode == 0, made.stderr
    assert subprocess.run(["bash", "-n"], input=made.stdout, text=True, check=False).returncode == 0
    for word in ("--fault", "--world", "rehearse", "_shtab_compgen_files"):
        assert word in made.stdout


def test_manual_page_has_every_command() -> None:
    """It is a page in man's macros with a heading for each command."""
    made = run("-m", "fixtures", "man")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith((".TH MUSTER", '.TH "MUSTER"', ".TH muster"))
    assert all(f"muster {name}" in made.stdout.replace("\\fR", "").replace("\\fI", "") for name in commands.RUNS)


# -- the world to practise in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_rehearse_keeps_a_world_until_a_signal(name: str, tmp_path: Path) -> None:
    """It prints the path of a site file whose forge answers, and ends with 0 and without a trace."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fixtures", "rehearse"],
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    site = next((line.strip() for line in process.stdout if line.startswith("  /")), "")
    checked = run("-m", "fixtures", "check", site, "--only", "forge")
    assert checked.returncode == 0, checked.stdout
    assert processes_of(str(Path(site).parent)), "no process of the world: this test would see nothing"
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert processes_of(str(Path(site).parent)) == []
    assert list(tmp_path.iterdir()) == []


# -- the installation ----------------------------------------------------------------------------------------------


def test_installation_adds_the_command_and_no_package() -> None:
    """The environment gets one folder with one module, ``muster``; the packages' names stay free for others."""
    files = importlib.metadata.files("muster") or []
    outside = [file for file in files if ".dist-info" not in str(file)]
    assert [file.name for file in outside if file.suffix != ".pth"] == ["muster"]
    (link,) = (file for file in outside if file.suffix == ".pth")
    folder = Path(Path(link.locate()).read_text().strip())
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".py") == ["__main__.py", "muster.py"]
    site_packages = Path(link.locate()).parent
    assert not [name for name in ("fixtures", "reports", "phases") if list(site_packages.glob(f"{name}*"))]


def test_wheel_is_refused() -> None:
    """The build backend builds editable installations only, and says how to install."""
    import build_from_checkout as backend

    with pytest.raises(SystemExit, match=r"runs from its checkout.*pip install -e \."):
        backend.build_wheel("dist")
    with pytest.raises(SystemExit, match="git repository"):
        backend.build_sdist("dist")
    assert callable(backend.build_editable)
