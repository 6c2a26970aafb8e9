"""Answers of the forge that contradict each other are settled by a second source; the rest is unknown, never gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.forge import Renamed
from fixtures.clients.forge_values import PullRequest
from fixtures.clients.git import Refs
from fixtures.clients.second_source import settle_open_pulls, settle_repository
from fixtures.errors import Refused, Unreachable

REFS = Refs("main", {"main": "a" * 40})


def pull(repository: str, number: int) -> PullRequest:
    return PullRequest(repository, number, "title", "open", "alice")


def repository(full_name: str, open_pulls: int | None) -> Any:
    return SimpleNamespace(full_name=full_name, open_pulls=open_pulls)


class Forge:
    """A forge that lists `pulls` per repository and answers for `found`; it counts what it is asked."""

    def __init__(self, pulls: dict[str, list[PullRequest]] | None = None, found: Any = None) -> None:
        self._pulls, self._found = pulls or {}, found
        self.asked: list[str] = []

    def pulls(self, full_name: str) -> list[PullRequest]:
        self.asked.append(full_name)
        return self._pulls[full_name]

    def repository(self, _full_name: str) -> Any:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def settle(forge: Forge, found: list[PullRequest], *repositories: Any) -> list[str]:
    known = {one.full_name.split("/")[1]: one for one in repositories}
    return [one.name for one in settle_open_pulls(forge, found, known)]  # type: ignore[arg-type]


def test_search_that_agrees_with_the_counts_is_not_asked_again() -> None:
    """Names are compared without case; a repository without a count is not doubted."""
    forge = Forge()
    found = [pull("Org/Ghost", 1), pull("org/n8n", 7)]
    repositories = repository("org/ghost", 1), repository("org/n8n", None), repository("org/immich", 0)
    assert settle(forge, found, *repositories) == ["Org/Ghost#1", "org/n8n#7"]
    assert forge.asked == []


def test_empty_search_is_replaced_by_the_repositories_own_lists() -> None:
    """While the index is rebuilt, the search finds nothing; each repository that counts open ones is asked itself."""
    forge = Forge({"org/ghost": [pull("org/ghost", 1), pull("org/ghost", 2)], "org/n8n": [pull("org/n8n", 7)]})
    repositories = repository("org/ghost", 2), repository("org/n8n", 1), repository("org/immich", 0)
    assert settle(forge, [], *repositories) == ["org/ghost#1", "org/ghost#2", "org/n8n#7"]
    assert forge.asked == ["org/ghost", "org/n8n"]


def test_closed_pull_request_that_the_search_still_finds_is_dropped() -> None:
    """The repository's own list decides in both directions."""
    forge = Forge({"org/ghost": []})
    assert settle(forge, [pull("org/ghost", 1), pull("org/n8n", 7)], repository("org/ghost", 0)) == ["org/n8n#7"]


@pytest.mark.parametrize(("listed", "refs"), [(True, REFS), (False, None)])
def test_repository_is_there_or_gone_if_both_sources_say_so(listed: bool, refs: Refs | None) -> None:
    """After the second look the API and git agree."""
    found = repository("org/ghost", 0) if listed else None
    forge: Any = Forge(found=found)
    assert settle_repository(forge, "org/ghost", lambda: refs) == ((found, refs) if listed else None)


@pytest.mark.parametrize(("found", "refs"), [(None, REFS), (repository("org/ghost", 0), None)])
def test_repository_that_only_one_source_has_is_unknown(found: Any, refs: Refs | None) -> None:
    """A contradiction that stays is no answer."""
    forge: Any = Forge(found=found)
    with pytest.raises(Unreachable, match="contradicts itself about org/ghost"):
        settle_repository(forge, "org/ghost", lambda: refs)


@pytest.mark.parametrize("reason", [Renamed("moved", new_name="org/other"), Refused("403")])
def test_rename_and_refusal_are_reasons_of_their_own(reason: Exception) -> None:
    """A redirect or a 403 says why a mirror does not answer; it is not gone."""
    forge: Any = Forge(found=reason)
    with pytest.raises(type(reason)):
        settle_repository(forge, "org/ghost", lambda: None)
