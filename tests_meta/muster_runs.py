"""Runs of `pytest phases/` as a person starts them, and the worlds that they are started in.

Each run is a process of its own with a folder of its own for its record. What it said, its exit code and its
record are read back as plain text and JSON; what it did is looked up in the world by `tests_meta.world_view`.

A *station* is one place for worlds: a world that was kept is put back byte for byte, at the path and on the ports
that its own files name. So the slow ways to a state (seeding, a whole migration) are gone once per session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.config.options import Parts
from fixtures.config.roster import ROSTER_FILE
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.settings import SETTINGS_FILE, WorldSettings
from fixtures.rehearsal.settings import load as load_settings
from fixtures.rehearsal.site_file import SITE_FILE
from fixtures.rehearsal.world import Rehearsal
from tests_meta import forked_runs as warm_runs

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0
PACE = 0.02
NIGHT, CONVERGED = "night", "converged"


@dataclass(frozen=True)
class Ran:
    """One finished run; `folder` is its record's, or None where it came to none."""

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
        """The journal, as JSON lines and nothing more."""
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
        """Itself, when it ended with this exit code and without a traceback of muster's or pytest's own."""
        assert self.exit == status, f"exit {self.exit}, expected {status}:\n{self.output[-4000:]}"
        for words in ("Traceback (most recent call last)", "INTERNALERROR"):
            assert words not in self.output, self.output[-4000:]
        return self

    def refused(self) -> str:
        """The one sentence of a run that was refused with exit 4 before it began."""
        found = re.findall(r"^ERROR: muster: (.+)$", self.demand(4).output, re.M)
        assert len(found) == 1, self.output
        assert found[0].endswith("."), found[0]
        assert len(found[0]) < 600, found[0]
        return str(found[0])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what a pytest around it, or a developer's shell, would add."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "MUSTER_", "COV_", "GIT_"))
    }
    return kept | more


# Whoever runs muster has no hypothesis; its plugin costs each run a second.
WITHOUT = ("-p", "no:hypothesispytest")


def command(*arguments: str, python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "pytest", *WITHOUT, *arguments]


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
    """Run muster to its end; fails when it does not come to one.

    `prefix` is put before the command (``unshare …``), `before` runs in the new process before it starts. Where
    neither these nor the folder nor the environment make a difference to an interpreter's start, a process is forked
    that has started already (see `tests_meta.forked_runs`); with `cold` it is the command that a person types.
    """
    folder = reports or Path(tempfile.mkdtemp(prefix="muster-reports-"))
    known = set(_runs(folder))
    cache = tempfile.mkdtemp(prefix="muster-cache-")
    words = [*phases, "-o", f"cache_dir={cache}", "--reports", str(folder), *arguments]
    try:
        if not (
            cold or prefix or before or cwd != ROOT or any(not name.startswith("MUSTER_") for name in env or ())
        ):
            status, output = warm_runs.run(
                [*WITHOUT, *words], cwd=cwd, env=environment(**(env or {})), limit_s=limit_s
            )
        else:
            status, output = _run([*prefix, *command(*words)], cwd, environment(**(env or {})), limit_s, before)
    except TimeoutError as late:
        raise AssertionError(f"not within {limit_s:.0f} s: {' '.join(words)}\n{str(late)[-4000:]}") from None
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    new = [run for run in _runs(folder) if run not in known]
    return Ran(status, output, new[-1] if new else None, folder)


def _run(
    words: list[str], cwd: Path, env: dict[str, str], limit_s: float, before: Callable[[], None] | None
) -> tuple[int, str]:
    """Exit code and output; raises `TimeoutError` with the output so far, after killing it."""
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
        process.kill()  # its world ends with it
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


class WorldPool:
    """One folder in which one world at a time runs, and the worlds that were put aside; of `parts`, if given."""

    def __init__(self, folder: Path, parts: Parts | None = None) -> None:
        self.folder = folder
        self.parts = parts
        self.world = folder / "world"
        self._kept = folder / "kept"
        self._kept.mkdir()
        self._running: Rehearsal | None = None
        self._spotless = ""
        self.roster = folder / "roster.toml"
        # The roster's excuses end one day; these tests are not about that day.
        self.roster.write_text(re.sub(r"until = [0-9-]+", "until = 9999-12-31", ROSTER_FILE.read_text()))

    @property
    def settings(self) -> WorldSettings:
        return load_settings(self.world)

    @property
    def site(self) -> Path:
        return self.world / SITE_FILE

    def start(self, *faults: str) -> None:
        """Start the world that is laid out, or a new one of the night where there is none."""
        self.end()
        self._running = rehearsal_world.start(folder=self.world, pace=PACE, faults=faults, parts=self.parts)

    def end(self) -> None:
        if self._running:
            self._running.end()
        self._running, self._spotless = None, ""

    def keep(self, name: str) -> None:
        """Put the world aside as it is now; it must not run."""
        self.end()
        subprocess.run(["cp", "-a", str(self.world), str(self._kept / name)], check=True)

    def lay(self, name: str) -> None:
        """Put a world that was kept back to where it lives."""
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
        """A rehearsal in the world that is laid out: muster starts and ends it."""
        self.end()
        return muster("--world", str(self.world), *arguments, **options)

    def visit(self, *arguments: str, roster: Path | None = None, site: Path | None = None, **options: Any) -> Ran:
        """A run against the world that runs, by its site file, as against a real system."""
        assert self._running is not None
        where = ("--site", str(site or self.site), "--roster", str(roster or self.roster))
        return muster(*where, *arguments, **options)

    @contextmanager
    def live(self, name: str, *faults: str) -> Iterator[WorldPool]:
        """The world `name`, put back and running, for one test to spoil."""
        self.lay(name)
        self.start(*faults)
        try:
            yield self
        finally:
            self.end()

    def untouched(self, name: str) -> WorldPool:
        """The world `name`, running, shared by tests that leave it as they find it."""
        if self._spotless != name or self._running is None:
            self.lay(name)
            self.start()
            self._spotless = name
        return self

    @contextmanager
    def breaking(self, *rules: Mapping[str, object]) -> Iterator[None]:
        """Break chosen requests of both forges while the block runs (rules: forge_embedded.wire_faults)."""
        file = self.world / "forge-faults.json"
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(list(rules)))
        draft.replace(file)
        try:
            yield
        finally:
            file.unlink()
