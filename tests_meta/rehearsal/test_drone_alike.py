"""The embedded Drone and a real one, asked the same: statuses, content types and the fields of every answer.

Runs where ``MUSTER_GITEA_BIN`` and ``MUSTER_DRONE_BIN`` name both binaries. The embedded one is held to the same
answers on every push by ``test_drone_contract.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.config.run_options import Parts
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.parts import choose
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.muster_runs import PACE

GITEA, DRONE = os.environ.get("MUSTER_GITEA_BIN", ""), os.environ.get("MUSTER_DRONE_BIN", "")
pytestmark = pytest.mark.skipif(
    not (GITEA and DRONE), reason="a real Drone is only tried where MUSTER_DRONE_BIN names one"
)
RECIPES = ("hedgedoc", "ghost")
ANSWER_LIMIT_S = 90.0
NOT_DONE = ("pending", "running")
# Not asked: the list of repositories (a real Drone has all that it synced), and pages outside of the API.
READS = {
    "builds": "/builds?per_page=100",
    "past the end": "/builds?page=90",
    "too many a page": "/builds?per_page=200",
    "a negative page": "/builds?page=-2&per_page=3",
    "a build": "/builds/112",
    "the old server's": "/builds/153",
    "no build": "/builds/999",
    "no number": "/builds/abc",
    "log": "/builds/{made}/logs/1/1",
    "log of nothing": "/builds/{made}/logs/1/9",
    "repository": "",
}
WRITES = {
    "no such commit": "/builds?branch=main&commit=" + "0" * 40,
    "no such branch": "/builds?branch=nope",
}


class Asker:
    """One Drone, and who asks it."""

    def __init__(self, settings: WorldSettings) -> None:
        self.repo = f"/api/repos/{settings.org}/cc-ci"
        self.other = f"/api/repos/{settings.org}/none"
        self.token = settings.drone_token
        self._client = httpx.Client(base_url=settings.ci_url, timeout=ANSWER_LIMIT_S, trust_env=False)

    def ask(self, method: str, path: str, header: str | None = None) -> httpx.Response:
        authorization = f"Bearer {self.token}" if header is None else header
        headers = {"Authorization": authorization} if authorization else {}
        return self._client.request(method, path, headers=headers)

    def everything(self) -> dict[str, httpx.Response]:
        """All answers that are compared, by what they are to; one build is made and awaited on the way."""
        custom = f"{self.repo}/builds?branch=main&RECIPE=hedgedoc&REF=0000&EMPTY=&D=1&D=2"
        found = {"create": self.ask("POST", custom)}
        number = found["create"].json()["number"]
        self.await_end(number)
        found |= {name: self.ask("GET", self.repo + path.format(made=number)) for name, path in READS.items()}
        found["the build"] = self.ask("GET", f"{self.repo}/builds/{number}")
        found["cancel of what is done"] = self.ask("DELETE", f"{self.repo}/builds/{number}")
        found |= {name: self.ask("POST", self.repo + path.format(made=number)) for name, path in WRITES.items()}
        for header in ("", "Bearer nonsense", f"token {self.token}", f"bearer {self.token}", self.token):
            words = header.replace(self.token, "T")
            found[f"who am I as {words!r}"] = self.ask("GET", "/api/user", header)
            found[f"builds as {words!r}"] = self.ask("GET", f"{self.repo}/builds", header)
        for who, bearer in (("a guest", ""), ("the bot", None)):
            found[f"no repository, to {who}"] = self.ask("GET", self.other, bearer)
            found[f"no repository's build, to {who}"] = self.ask("POST", f"{self.other}/builds", bearer)
        found["a guest's build"] = self.ask("POST", f"{self.repo}/builds?branch=main", "")
        found["version"] = self.ask("GET", "/version", "")
        return found

    def await_end(self, number: int) -> None:
        """Poll as a client has to: Drone's stream of events is for browsers."""
        for _ in range(1000):
            if self.ask("GET", f"{self.repo}/builds/{number}").json()["status"] not in NOT_DONE:
                return
        raise AssertionError(f"build {number} did not end")


def answers(folder: Path, parts: Parts | None) -> dict[str, httpx.Response]:
    running = rehearsal_world.start(folder=folder, pace=PACE, parts=parts, recipes=RECIPES)
    try:
        return Asker(running.settings).everything()
    finally:
        running.end()


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Mapping[str, httpx.Response], Mapping[str, httpx.Response]]:
    """The embedded one's answers and the real one's."""
    folder = tmp_path_factory.mktemp("alike")
    real = choose(["forge=gitea", "ci=drone"], gitea=GITEA, drone=DRONE)
    return answers(folder / "embedded", None), answers(folder / "real", real)


def shape(value: Any, place: str = "") -> dict[str, set[str]]:
    """Which fields there are, at any depth, and of which types; the rows of a list together."""
    found: dict[str, set[str]] = {}
    if isinstance(value, dict):
        inner = [(f"{place}.{key}", one) for key, one in value.items()]
    elif isinstance(value, list):
        inner = [(f"{place}[]", one) for one in value]
    else:
        return {place: {type(value).__name__}}
    for where, one in inner:
        for path, kinds in shape(one, where).items():
            found.setdefault(path, set()).update(kinds)
    return found


def test_every_answer_has_the_same_status_type_and_fields(
    both: tuple[Mapping[str, httpx.Response], Mapping[str, httpx.Response]],
) -> None:
    """What a client reads of a real Drone it reads of the embedded one."""
    embedded, real = both
    assert list(embedded) == list(real)
    for name, theirs in real.items():
        mine = embedded[name]
        assert mine.status_code == theirs.status_code, name
        assert mine.headers["Content-Type"] == theirs.headers["Content-Type"], name
        assert shape(mine.json()) == shape(theirs.json()), name


def test_refusals_have_the_same_words(
    both: tuple[Mapping[str, httpx.Response], Mapping[str, httpx.Response]],
) -> None:
    """Every refusal says the same, and there are some of each status."""
    embedded, real = both
    refused = {name: answer for name, answer in real.items() if answer.status_code >= 400}
    assert {answer.status_code for answer in refused.values()} == {400, 401, 404}
    assert {name: embedded[name].json() for name in refused} == {n: a.json() for n, a in refused.items()}


def test_a_build_means_the_same(
    both: tuple[Mapping[str, httpx.Response], Mapping[str, httpx.Response]],
) -> None:
    """Status, event, parameters and steps of the same request are the same on both."""
    embedded, real = both
    said = ("status", "event", "params", "message", "action", "ref", "source", "target", "sender")
    for name in ("create", "the build"):
        mine, theirs = embedded[name].json(), real[name].json()
        assert {key: mine.get(key) for key in said} == {key: theirs.get(key) for key in said}, name
    steps = [
        [
            (step["name"], step["status"], step["exit_code"])
            for stage in one.json()["stages"]
            for step in stage["steps"]
        ]
        for one in (embedded["the build"], real["the build"])
    ]
    assert steps[0] == steps[1] != []
