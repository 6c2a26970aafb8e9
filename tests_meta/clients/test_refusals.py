"""Each cause of a refusal has its own words and its own step, in git's output, in HTTP, and before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.forge import ForgeReader, MissingScope
from fixtures.clients.forge_answers import Branch, BranchCommit
from fixtures.clients.forge_values import Repository
from fixtures.clients.git import Refs
from fixtures.clients.http import Http
from fixtures.clients.refusals import TABLE, RefusalCause, git_refusal, http_refusal
from fixtures.config.roster import Recipe
from fixtures.config.secret import Secret
from fixtures.errors import Conflict, Refused, Unreachable
from fixtures.journal.kinds import StepKind
from fixtures.mirrors.step import foresee_refusal, plan_step
from fixtures.run.ccci_rights import Act, demand_ccci_writable
from fixtures.survey import Survey
from tests_meta.clients.http_server import Answer, serving

C = RefusalCause
UNABLE = "fatal: unable to access 'https://forge/o/r.git/': The requested URL returned error: "
# What git prints, most of it recorded from pushes to Gitea.
PUSHES = {
    C.MOVED_ON: " ! [rejected] main -> main (stale info)",
    C.PULL_MIRROR: f"remote: mirror repository is read-only\n{UNABLE}403",
    C.ARCHIVED: "remote: This repo is archived. You can view files and clone it, but cannot push or open "
    f"issues/pull-requests.\n{UNABLE}403",
    C.PROTECTED: "remote: Gitea: Not allowed to push to protected branch main\n"
    " ! [remote rejected] main -> main (pre-receive hook declined)",
    C.HOOK: "remote: no commits on Fridays\n ! [remote rejected] main -> main (pre-receive hook declined)",
    C.TOO_LARGE: "error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413",
    C.QUOTA: "remote: Quota exceeded: quota\n ! [remote rejected] main -> main (pre-receive hook declined)",
    C.BAD_TOKEN: "fatal: Authentication failed for 'https://forge/o/r.git/'",
    C.NO_RIGHT: f"{UNABLE}403",
    C.MISSING: "fatal: repository 'https://forge/o/r.git/' not found",
    C.BUSY: f"{UNABLE}429",
}
ANSWERS = {
    C.BAD_TOKEN: (401, "invalid username, password or token"),
    C.MISSING_SCOPE: (403, "token does not have at least one of required scope(s), required=[write:issue]"),
    C.PASSWORD_CHANGE: (403, "You must change your password. Change it at: https://forge/user/change_password"),
    C.INACTIVE: (403, "This account is prohibited from signing in, please contact your site administrator."),
    C.ARCHIVED: (423, "o/r is archived"),
    C.NO_RIGHT: (403, "user should have a permission to write to the target branch"),
    C.TOO_LARGE: (413, "<html><title>413 Request Entity Too Large</title></html>"),
    C.QUOTA: (507, ""),
}


@pytest.mark.parametrize("cause", PUSHES)
def test_refused_push_names_its_cause_and_step(cause: RefusalCause) -> None:
    """git's output leads to the cause's own error type, words and step, also where several patterns match."""
    refusal = git_refusal(PUSHES[cause])
    assert refusal is TABLE[cause]
    assert refusal.kind is {C.MOVED_ON: Conflict, C.BUSY: Unreachable}.get(cause, Refused)


@pytest.mark.parametrize("cause", ANSWERS)
def test_refused_request_names_its_cause_and_step(cause: RefusalCause) -> None:
    """An answer's status and message lead to the cause's words and step, as `Refused`."""
    status, said = ANSWERS[cause]
    with serving() as server:
        token = Secret("token x", where="a test")
        http = Http("forge", server.url, timeout_s=5, headers={"Authorization": token})
        server.will(Answer(status, said.encode()))
        with pytest.raises(Refused) as caught:
            http.send("POST", "/", {}, answers=(201,))
        http.close()
    assert TABLE[cause].words in caught.value.message
    assert caught.value.do == TABLE[cause].do


def test_every_cause_has_its_own_words_and_step() -> None:
    """No two causes share words or a step, and each cause is reached by an example in this file."""
    assert set(TABLE) == set(RefusalCause) == {*PUSHES, *ANSWERS, C.SIGN_IN}
    assert len({row.words for row in TABLE.values()}) == len({row.do for row in TABLE.values()}) == len(TABLE)


def test_refusal_without_a_token_is_not_about_the_token() -> None:
    """401 to a request without credentials means that the thing is not public or does not exist."""
    for found in (http_refusal(401, "", signed_in=False), git_refusal(PUSHES[C.BAD_TOKEN], signed_in=False)):
        assert found is TABLE[C.SIGN_IN]


@pytest.mark.parametrize(
    "output", ["", "fatal: the remote end hung up unexpectedly", f"{UNABLE}500", f"{UNABLE}503"]
)
def test_push_that_ended_without_a_reason_is_no_refusal(output: str) -> None:
    """Nothing, a lost connection and a broken server say nothing of what was carried out."""
    assert git_refusal(output) is None


def test_missing_scope_of_whoami_differs_from_other_refusals() -> None:
    """Only a 403 about scopes raises `MissingScope`."""
    with serving() as server:
        http = Http("forge", server.url, timeout_s=5)
        for said, kind in (("required scope(s)", MissingScope), ("You must change your password", Refused)):
            server.will_say({"message": said}, 403)
            with pytest.raises(Refused) as caught:
                ForgeReader(http, bot="bot").whoami()
            assert type(caught.value) is kind
        http.close()


def survey(**fields: Any) -> Survey:
    mine, theirs = Refs("main", {"main": "a" * 40}), Refs("main", {"main": "b" * 40})
    repository = Repository("org/ghost", empty=False, default_branch="main", private=True, **fields)
    return Survey(
        taken=datetime.now(UTC),
        forge_version="1.25",
        account="bot",
        drone_account="bot",
        repositories={"ghost": repository},
        mirrors={"ghost": mine},
        upstreams={"ghost": theirs},
        open_pulls=(),
        ccci=None,
        host=None,
        builds=(),
    )


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, None),
        ({"mirror": True}, C.PULL_MIRROR),
        ({"archived": True}, C.ARCHIVED),
        ({"permissions": {"pull": True, "push": False}}, C.NO_RIGHT),
        ({"permissions": {"pull": True, "push": True}}, None),
    ],
)
def test_refusal_that_the_survey_shows_is_foreseen(fields: dict[str, Any], cause: RefusalCause | None) -> None:
    """A pull mirror, an archived repository and a missing right are known before a push; a level mirror needs none."""
    recipe, seen = Recipe(name="ghost", upstream="ghost"), survey(**fields)
    step = plan_step(recipe, seen)
    assert step.kind is StepKind.SYNC_MIRROR
    assert foresee_refusal(step, seen) is (TABLE[cause] if cause else None)
    level = survey(**fields)
    object.__setattr__(level, "upstreams", level.mirrors)
    assert foresee_refusal(plan_step(recipe, level), level) is None


@pytest.mark.parametrize(
    ("fields", "branch", "act", "cause"),
    [
        ({}, {}, Act.PUSH, None),
        ({}, {"user_can_push": False}, Act.PUSH, C.PROTECTED),
        ({}, {"user_can_push": False}, Act.MERGE, None),
        ({}, {"user_can_merge": False}, Act.MERGE, C.PROTECTED),
        ({"archived": True}, {}, Act.PUSH, C.ARCHIVED),
        ({"mirror": True}, {}, Act.MERGE, C.PULL_MIRROR),
    ],
)
def test_refusal_to_write_to_ccci_is_foreseen(
    fields: dict[str, Any], branch: dict[str, Any], act: Act, cause: RefusalCause | None
) -> None:
    """A protected branch, an archive and a pull mirror are known before a commit or a proposal."""
    shown = Branch(BranchCommit("a" * 40), protected=bool(branch), **branch)
    context: Any = SimpleNamespace(
        world=SimpleNamespace(ccci="org/ghost", forge=SimpleNamespace(branch=lambda *_: shown)),
        site=SimpleNamespace(
            ccci=SimpleNamespace(branch="main"), forge=SimpleNamespace(org="Org", bot="autonomic-bot")
        ),
    )
    surveys: Any = SimpleNamespace(now=survey(**fields))
    if cause is None:
        demand_ccci_writable(context, surveys, act)
        return
    with pytest.raises(Refused) as caught:
        demand_ccci_writable(context, surveys, act)
    assert TABLE[cause].words in caught.value.message
    assert str(act.value) in caught.value.message
    assert caught.value.do == TABLE[cause].do
