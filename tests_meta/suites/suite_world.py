"""A small world for proposals of suites: forge, CI server and bridge, without a host.

The app of an invented recipe is a page with the recipe's name, so that a build runs a suite of three lines against it;
hedgedoc has its own stand-in. Each test uses its own recipe, so that tests do not share proposals.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures.clients.forge_values import PullRequest
from fixtures.config.roster import Recipe, Roster
from fixtures.config.run_options import Mode
from fixtures.config.site import load_site
from fixtures.rehearsal.site_file import SITE_FILE, write_site
from fixtures.run.run import Run
from tests_meta.in_process_run import close_run, open_run
from tests_meta.rehearsal.ci_world import ORG, World, running
from tests_meta.rehearsal.test_bridge import bridge

PAYLOAD = Path(__file__).parents[2] / "fixtures" / "shipped" / "payload"
BRANCH = "muster/suite-"
GOOD = """import urllib.request


def test_front_page_answers(live_app):
    with urllib.request.urlopen(f"https://{live_app}/") as answer:
        assert answer.status == 200
"""
RED = GOOD.replace("== 200", "== 418")


def suite(recipe: str, test: str = GOOD, **more: str) -> dict[str, str]:
    """A small suite like the template; `more` adds or replaces files, with ``__`` for a slash."""
    files = {
        "recipe_meta.py": 'HEALTH_PATH = "/"\nHEALTH_OK = (200,)\n',
        "PARITY.md": f"# Parity: {recipe}\n",
        "functional/test_front_page.py": test,
    }
    return files | {name.replace("__", "/").replace("_py", ".py"): text for name, text in more.items()}


@dataclass
class SuiteWorld:
    """The running world; runs in it are opened one after the other, each with its own journal."""

    world: World
    folder: Path
    runs: list[Run] = field(default_factory=list)

    def run(
        self,
        suites: Mapping[str, Mapping[str, str]] | Path,
        *,
        proof: str = "cc-ci-pull-request",
        mode: Mode = Mode.APPLY,
        recipes: Sequence[str] = (),
    ) -> Run:
        """A run with these shipped suites, before its phase 2."""
        folder = self.folder / f"run-{len(self.runs)}"
        folder.mkdir()
        payload = suites if isinstance(suites, Path) else _written(folder / "payload", suites)
        names = recipes or [path.name for path in sorted(payload.iterdir()) if path.is_dir()]
        site_file = self.world.settings.root / SITE_FILE
        kept = site_file.read_text()
        site_file.write_text(kept.replace("cc-ci-pull-request", proof))
        site = load_site(site_file)
        site_file.write_text(kept)
        roster = Roster(recipes=tuple(Recipe(name=n, upstream=n) for n in names))
        made = open_run(site, roster, folder, mode=mode, payload=payload)
        self.runs.append(made)
        return made

    def pulls(self, run: Run, recipe: str) -> list[PullRequest]:
        """Every proposal of a suite for `recipe`, oldest first; found by title, because merged ones have no branch."""
        pulls = run.context.world.forge.pulls(run.context.world.ccci, state="all")
        ours = (pull for pull in pulls if pull.title == f"tests: a suite for {recipe}")
        return sorted(ours, key=lambda pull: pull.number)

    def files(self, run: Run, recipe: str, ref: str = "main") -> set[str]:
        """The files in tests/<recipe>/ of cc-ci."""
        below = f"tests/{recipe}/"
        tree = run.context.world.forge.tree(run.context.world.ccci, ref)
        return {e.path.removeprefix(below) for e in tree if e.kind == "blob" and e.path.startswith(below)}

    def has_branch(self, run: Run, recipe: str) -> bool:
        return run.context.world.forge.head(run.context.world.ccci, BRANCH + recipe) is not None

    def commit(self, files: Mapping[str, str], **where: str) -> None:
        """Commit new files to cc-ci as another person, on the branch that `where` names."""
        rows = [
            {"path": path, "operation": "create", "content": base64.b64encode(text.encode()).decode()}
            for path, text in files.items()
        ]
        body: dict[str, Any] = {"message": "By hand", "files": rows, **where}
        answer = self.world.forge("POST", f"/repos/{ORG}/cc-ci/contents", user="alice", json=body)
        assert answer.status_code == 201, answer.text

    def close(self) -> None:
        for run in self.runs:
            close_run(run)


def _written(folder: Path, suites: Mapping[str, Mapping[str, str]]) -> Path:
    for recipe, files in suites.items():
        for path, text in files.items():
            (folder / recipe / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / recipe / path).write_text(text)
    return folder


def kinds(run: Run) -> list[str]:
    """The kinds of a run's changes, in order."""
    return [change.kind for change in run.record.journal.changes()]


@contextmanager
def suite_world(folder: Path, recipes: Sequence[str], **settings: Any) -> Iterator[SuiteWorld]:
    """Forge, CI server and a bridge that polls cc-ci and all `recipes`; each mirror has an open #1."""
    with running(folder / "world", {name: {} for name in recipes}, **settings) as world:
        root = world.settings.root
        (world.settings.host_dir / "etc").mkdir(parents=True)
        (world.settings.host_dir / "etc" / "machine-id").write_text("0" * 32 + "\n")
        write_site(world.settings)
        (root / "secrets" / "id_ed25519").touch(mode=0o600)
        polled = ",".join(f"{ORG}/{name}" for name in ("cc-ci", *recipes))
        with bridge(world, folder, POLL_REPOS=polled):
            made = SuiteWorld(world, folder)
            try:
                yield made
            finally:
                made.close()
