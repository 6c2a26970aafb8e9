"""Run `pytest phases/` as a person does, in a pool of worlds.

Each run is a separate process with its own record folder. Tests read its output, exit code and record as plain
text and JSON; `tests_meta.world_view` shows what it did in the world.

A `WorldPool` keeps copies of worlds and restores them byte for byte at the same path and ports, so that slow
preparations (seeding, a whole migration) are made once per session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.config.roster import ROSTER_FILE
from fixtures.config.run_options import Parts
from fixtures.errors import BadSetting
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.settings import SETTINGS_FILE, WorldSettings
from fixtures.rehearsal.settings import load as load_settings
from fixtures.rehearsal.site_file import SITE_FILE
from fixtures.rehearsal.world import Rehearsal
from tests_meta import forked_runs as forked

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0
PACE = 0.02
NIGHT, CONVERGED = "night", "converged"


@dataclass(frozen=True)
class Ran:
    """One finished run; `folder` has its record, or is None if it wrote none."""

    exit: int
    output: str
    folder: Path | None
    reports: Path

    @property
    def summary(self) -> dict[str, Any]:
        assert self.folder is not None, self.output
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The journal's lines, parsed as JSON."""
        assert self.folder is not None, self.output
        return [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]

    def titles(self, outcome: str) -> set[str]:
        """The assertions with this outcome, as sentences: ``it exists: mumble``."""
        return {line["title"] for line in self.of("assertion") if line["outcome"] == outcome}

    @property
    def failed(self) -> set[str]:
        return self.titles("failed")

    def demand(self, status: int) -> Ran:
        """Assert this exit code and the absence of tracebacks; returns itself."""
        assert self.exit == status, f"exit {self.exit}, expected {status}:\n{self.output[-4000:]}"
        for words in ("Traceback (most recent call last)", "INTERNALERROR"):
            assert words not in self.output, self.output[-4000:]
        return self

    def refused(self) -> str:
        """The only error message of a run that was refused with exit 4 before it started."""
        found = re.findall(r"^ERROR: muster: (.+)$", self.demand(4).output, re.M)
        assert len(found) == 1, self.output
        assert found[0].endswith("."), found[0]
        assert len(found[0]) < 600, found[0]
        return str(found[0])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without the variables of an outer pytest or a developer's shell."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "MUSTER_", "COV_", "GIT_"))
    }
    return kept | more


# Users of muster do not have hypothesis, and its plugin takes a second per run.
PLUGINS_OFF = ("-p", "no:hypothesispytest")


def command(*arguments: str, python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "pytest", *PLUGINS_OFF, *arguments]


def muster(
    *arguments: str,
    phases: Sequence[str] = ("phases/",),
    reports: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    limit_s: float = LIMIT_S,
    prefix: Sequence[str] = (),
    before: Callable[[], None] | None = None,
    cold: bool = False,
) -> Ran:
    """Run muster to its end; fails the test at the time limit.

    `prefix` is put before the command (``unshare …``); `before` is called in the new process before the command. If
    none of these, and no folder or environment variable, needs a new interpreter, the run is forked from a running one
    (see `tests_meta.forked_runs`). `cold` forces the command that a person types.
    """
    folder = reports or Path(tempfile.mkdtemp(prefix="muster-reports-"))
    known = set(_runs(folder))
    cache = tempfile.mkdtemp(prefix="muster-cache-")
    words = [*phases, "-o", f"cache_dir={cache}", "--reports", str(folder), *arguments]
    try:
        needs_interpreter = any(not name.startswith(("MUSTER_", "PYTEST_")) for name in env or ())
        if not (cold or prefix or before or cwd != ROOT or needs_interpreter):
            status, output = forked.run(
                [*PLUGINS_OFF, *words], cwd=cwd, env=environment(**(env or {})), limit_s=limit_s
            )
        else:
            status, output = _run([*prefix, *command(*words)], cwd, environment(**(env or {})), limit_s, before)
    except TimeoutError as timeout:
        raise AssertionError(f"not within {limit_s:.0f} s: {' '.join(words)}\n{str(timeout)[-4000:]}") from None
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    new = [run for run in _runs(folder) if run not in known]
    return Ran(status, output, new[-1] if new else None, folder)


def _run(
    words: list[str], cwd: Path, env: dict[str, str], limit_s: float, before: Callable[[], None] | None
) -> tuple[int, str]:
    """Returns exit code and output; at the limit kills it and raises `TimeoutError` with the output so far."""
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=before,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()  # its world stops with it
        output, _ = process.communicate()
        raise TimeoutError(output) from None
    return process.returncode, output


def _runs(reports: Path) -> list[Path]:
    return sorted((reports / "runs").glob("*")) if (reports / "runs").is_dir() else []


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def listed(*arguments: str, phases: Sequence[str] = ("phases/",)) -> list[str]:
    """The tests that a selection would run, in order, as ``--collect-only`` lists them."""
    ran = muster(*arguments, "--collect-only", "-q", phases=phases).demand(0)
    return [line for line in ran.output.splitlines() if "::" in line]


def phases_of(nodeids: Sequence[str]) -> list[int]:
    return [int(match[1]) for nodeid in nodeids if (match := re.search(r"test_(\d)_\w+\.py::", nodeid))]


def processes_of(text: str) -> list[str]:
    """The command lines of live processes that name `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found


class WorldPool:
    """Runs one world at a time in one folder, and keeps copies of worlds; `parts` replaces parts of the world."""

    def __init__(self, folder: Path, parts: Parts | None = None) -> None:
        self.folder = folder
        self.parts = parts
        self.world = folder / "world"
        self._kept = folder / "kept"
        self._kept.mkdir()
        self._running: Rehearsal | None = None
        self._shared = ""
        self.roster = folder / "roster.toml"
        # The roster's known failures expire, and these tests must not depend on the date.
        self.roster.write_text(re.sub(r"until = [0-9-]+", "until = 9999-12-31", ROSTER_FILE.read_text()))

    @property
    def settings(self) -> WorldSettings:
        return load_settings(self.world)

    @property
    def site(self) -> Path:
        return self.world / SITE_FILE

    def start(self, *faults: str) -> None:
        """Start the world in the folder, or seed and start a new one if the folder is empty."""
        self.end()
        self.await_ports()
        self._running = rehearsal_world.start(folder=self.world, pace=PACE, faults=faults, parts=self.parts)

    def await_ports(self) -> None:
        """Wait until the ports of a kept world are free: a world of another worker may have them for a while."""
        try:
            settings = self.settings
        except OSError:
            return  # a new world has no ports yet
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            try:
                rehearsal_world.demand_free(settings)
                return
            except BadSetting:
                time.sleep(0.1)

    def end(self) -> None:
        if self._running:
            self._running.end()
        self._running, self._shared = None, ""

    @property
    def running_pid(self) -> int:
        """The process below which everything of the running world is."""
        assert self._running is not None
        return self._running.pid

    def keep(self, name: str) -> None:
        """Stop the world and keep a copy under this name."""
        self.end()
        subprocess.run(["cp", "-a", str(self.world), str(self._kept / name)], check=True)

    def lay(self, name: str) -> None:
        """Restore a kept world into the folder."""
        self.end()
        self.clear()
        subprocess.run(["cp", "-a", str(self._kept / name), str(self.world)], check=True)

    def has(self, name: str) -> bool:
        return (self._kept / name / SETTINGS_FILE).exists()

    def clear(self) -> None:
        self.end()
        if self.world.exists():
            subprocess.run(["chmod", "-R", "u+w", str(self.world)], check=True)
            shutil.rmtree(self.world)

    def run(self, *arguments: str, **options: Any) -> Ran:
        """Run a rehearsal with ``--world``: muster starts and stops the world in the folder."""
        self.end()
        return muster("--world", str(self.world), *arguments, **options)

    def visit(self, *arguments: str, roster: Path | None = None, site: Path | None = None, **options: Any) -> Ran:
        """Run against the running world by its site file, as against a real system."""
        assert self._running is not None
        where = ("--site", str(site or self.site), "--roster", str(roster or self.roster))
        return muster(*where, *arguments, **options)

    @contextmanager
    def live(self, name: str, *faults: str) -> Iterator[WorldPool]:
        """The world `name`, restored and running, for one test that may change it."""
        self.lay(name)
        self.start(*faults)
        try:
            yield self
        finally:
            self.end()

    def untouched(self, name: str) -> WorldPool:
        """The world `name`, running, shared by tests that do not change it."""
        if self._shared != name or self._running is None:
            self.lay(name)
            self.start()
            self._shared = name
        return self

    @contextmanager
    def breaking(self, *rules: Mapping[str, object]) -> Iterator[None]:
        """Break chosen requests to both forges inside the block (rules: forge_embedded.wire_faults)."""
        file = self.world / "forge-faults.json"
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(list(rules)))
        draft.replace(file)
        try:
            yield
        finally:
            file.unlink()
