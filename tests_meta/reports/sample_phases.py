"""The seven phases of a made-up night and what they leave in the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fixtures.journal.finding_kinds import FindingKind
from tests_meta.reports.sample_night import DRONE, FORGE, MISSING, NEW, OLD, ORG, PROVEN, Night, sha


def preflight(night: Night, *, abra: bool = True) -> None:
    def body() -> None:
        night.clock.passes(3.1)
        night.assertion(
            0,
            "host_is_the_one",
            "The host that answers is the one the site names",
            expected="machine-id 3f1c…, hostname nixos, root /dev/disk/by-label/nixos",
            seen="machine-id 3f1c…, hostname nixos, root /dev/disk/by-label/nixos",
            check="ssh root@ci.example.org cat /etc/machine-id",
        )
        night.assertion(
            0,
            "checkout_is_clean",
            "The checkout on the host is clean",
            expected="no local change",
            seen="no local change",
        )
        for recipe in MISSING if abra else ():
            night.clock.passes(4.4)
            night.assertion(
                0,
                "recipe_resolves",
                f"{recipe} resolves with abra recipe fetch on the host",
                recipe=recipe,
                what=f"abra knows the recipe {recipe}",
                expected="exit 0",
                seen="exit 0",
                check=f"ssh root@ci.example.org abra recipe fetch {recipe}",
            )

    night.phase(0, body)


def mirrors(night: Night, *, acts: bool = True, failing: Mapping[str, str] | None = None) -> None:
    failing = failing or {}

    def body() -> None:
        for recipe in MISSING if acts else ():
            target, head = f"{ORG}/{recipe}", sha(f"main {recipe}")
            night.change(
                "create-mirror",
                target,
                before=None,
                after={"private": True, "default_branch": "main"},
                by_hand=f"curl -X DELETE {FORGE}/api/v1/repos/{target}",
                took_s=0.9,
                evidence={"answer": "201 Created", "id": 412},
            )
            night.change(
                "sync-main",
                target,
                before=None,
                after=head,
                by_hand=f"git push --force-with-lease=main:{head} {FORGE}/{target}.git :main",
                took_s=2.2,
                evidence={"upstream": head},
            )
        night.wait("the forge to count the new mirrors' branches", 1.4, 20)
        for recipe in night.recipes:
            bad = failing.get(recipe)
            head = sha(f"main {recipe}")
            night.assertion(
                1,
                "mirror_is_upstream",
                f"{recipe} is mirrored: it answers, is not empty, its main is upstream's main",
                recipe=recipe,
                outcome="failed" if bad else "passed",
                what=f"the mirror {ORG}/{recipe} is upstream's {recipe}",
                expected=f"main at {head}",
                seen=bad or f"main at {head}",
                check=f"git ls-remote {FORGE}/{ORG}/{recipe}.git refs/heads/main",
                where=f"{FORGE}/{ORG}/{recipe}",
                message=f"expected main at {head}, saw {bad}" if bad else "",
            )

    night.phase(1, body)


def suite(night: Night, *, acts: bool = True) -> None:
    def body() -> None:
        if acts:
            night.change(
                "propose-suite",
                f"{ORG}/cc-ci#31",
                before=None,
                after={"branch": "muster/suite-hedgedoc", "head": sha("suite"), "pull request": 31},
                by_hand="close pull request 31 and delete the branch muster/suite-hedgedoc",
                took_s=3.3,
                evidence={"url": f"{FORGE}/{ORG}/cc-ci/pulls/31"},
            )
            night.change(
                "comment",
                f"{ORG}/cc-ci#31",
                before=None,
                after="!testme",
                by_hand="delete comment 13899",
                took_s=0.3,
                evidence={"id": 13899},
            )
            night.wait("a build for hedgedoc", 21.0, 120)
            night.wait("build 113's verdict", 163.0, 3600, last_seen="success")
            night.change(
                "merge-suite",
                f"{ORG}/cc-ci#31",
                before=sha("cc-ci before"),
                after=sha("cc-ci"),
                by_hand=f"git revert {sha('cc-ci')}",
                took_s=1.2,
            )
        for recipe in night.recipes:
            night.assertion(
                2,
                "suite_exists",
                f"{recipe} is covered by tests/{recipe}/",
                recipe=recipe,
                what=f"tests/{recipe}/ holds recipe_meta.py, a functional test and PARITY.md",
                expected="all three",
                seen="all three",
                check=f"git -C cc-ci ls-tree main tests/{recipe}/",
            )

    night.phase(2, body)


def enrollment(night: Night, *, acts: bool = True) -> None:
    before = [f"{ORG}/cc-ci", *(f"{ORG}/{name}" for name in OLD)]
    after = [*before, *(f"{ORG}/{name}" for name in NEW)]

    def body() -> None:
        if acts:
            night.change(
                "enroll",
                "nix/modules/bridge.nix",
                before=before,
                after=after,
                by_hand=f"git revert {sha('enroll')}",
                took_s=2.0,
                evidence={"commit": sha("enroll"), "parent": sha("cc-ci")},
            )
            night.journal.write("diff", target="nix/modules/bridge.nix", text=enrollment_diff(before, after))
        for recipe in night.recipes:
            night.assertion(
                3,
                "enrolled_in_git",
                f"{recipe} is in POLL_REPOS on main",
                recipe=recipe,
                what=f"{ORG}/{recipe} is in POLL_REPOS",
                expected="once",
                seen="once",
                check="git -C cc-ci show main:nix/modules/bridge.nix | grep POLL_REPOS",
            )

    night.phase(3, body)


def enrollment_diff(before: Sequence[str], after: Sequence[str]) -> str:
    return (
        "--- a/nix/modules/bridge.nix\n+++ b/nix/modules/bridge.nix\n@@ -40,7 +40,7 @@\n"
        '       environment = [\n         "POLL_INTERVAL=30"\n'
        f'-        "POLL_REPOS={",".join(before)}"\n+        "POLL_REPOS={",".join(after)}"\n'
        '         "GITEA_URL=https://forge.example.org"\n       ];\n'
    )


def deploy(night: Night, *, acts: bool = True, regression: bool = False) -> None:
    def body() -> None:
        if acts:
            night.wait("nix build of the host's system", 74.0, 1800)
            night.change(
                "arm-revert",
                "muster-revert.timer",
                before=None,
                after={"fires": "00:31:12Z", "generation": 57},
                by_hand="systemctl stop muster-revert.timer",
                took_s=1.0,
            )
            night.change(
                "switch",
                "generation 58",
                before={"number": 57, "path": f"/nix/store/{sha('57')[:32]}-nixos-system-nixos-24.11"},
                after={"number": 58, "path": f"/nix/store/{sha('58')[:32]}-nixos-system-nixos-24.11"},
                by_hand="nix-env -p /nix/var/nix/profiles/system --switch-generation 57 && "
                "/nix/var/nix/profiles/system/bin/switch-to-configuration switch",
                took_s=46.0,
            )
            night.wait(
                "a new bridge task that has done its first poll",
                38.0,
                300,
                result="timed-out" if regression else "reached",
                last_seen="task 2y4c… Rejected: no suitable node"
                if regression
                else "first poll done, 41 comments already seen",
            )
            generation = {
                "number": 57 if regression else 58,
                "path": f"/nix/store/{sha('57' if regression else '58')[:32]}-nixos-system-nixos-24.11",
            }
            night.journal.write(
                "generations",
                before={"number": 57, "path": f"/nix/store/{sha('57')[:32]}-nixos-system-nixos-24.11"},
                after=generation,
            )
        night.assertion(
            4,
            "host_is_reachable",
            "The host answers after the switch",
            expected="yes",
            seen="yes",
            check="ssh root@ci.example.org true",
        )
        night.assertion(
            4,
            "bridge_runs",
            "A new task of ccci-bridge_app runs with the wanted poll set",
            outcome="failed" if regression else "passed",
            what="the bridge's task is running and was started after the switch",
            expected="one task, running, started after 00:18:40Z",
            seen="no running task; the last one was rejected: no suitable node"
            if regression
            else "task 2y4c… running since 00:19:27Z",
            check="ssh root@ci.example.org docker service ps ccci-bridge_app",
            message="the bridge ran before the switch and does not run now" if regression else "",
            where="host ci.example.org",
        )
        for recipe in night.recipes:
            night.assertion(
                4,
                "polled",
                f"{recipe} is in the running bridge's poll set",
                recipe=recipe,
                outcome="skipped" if regression else "passed",
                what=f"{ORG}/{recipe} is in the task's environment",
                expected="once",
                seen="once" if not regression else "",
                message="waits for test_bridge_runs" if regression else "",
                check="ssh root@ci.example.org docker service inspect ccci-bridge_app",
            )

    night.phase(4, body)


def triggers(night: Night, *, skipped: str = "") -> None:
    def body() -> None:
        for recipe, green in PROVEN.items():
            if recipe == "hedgedoc":
                continue
            if not skipped:
                number = {"ghost": 1, "immich": 2, "mumble": 1}[recipe]
                target = f"{ORG}/{recipe}#{number}"
                if recipe == "mumble":
                    night.change(
                        "scratch-pull",
                        target,
                        before=None,
                        after={"branch": "muster/scratch"},
                        took_s=1.0,
                        by_hand="close pull request 1 and delete the branch muster/scratch",
                    )
                night.change(
                    "comment",
                    target,
                    before=None,
                    after="!testme",
                    by_hand=f"delete the comment on {target}",
                    took_s=0.4,
                )
                night.wait(f"a build for {recipe}", 16.0, 120)
                night.wait(
                    f"the verdict on {recipe}",
                    122.0 if not green else 96.0,
                    3600,
                    last_seen="success" if green else "failure",
                )
                build = {"ghost": 120, "immich": 121, "mumble": 123}[recipe]
                night.journal.write(
                    "verdict",
                    recipe=recipe,
                    triggerable=True,
                    reported=True,
                    green=green,
                    verdict_at=night.clock.utc(),
                    build=build,
                    build_url=f"{DRONE}/{ORG}/cc-ci/{build}",
                    comment_url=f"{FORGE}/{ORG}/{recipe}/pulls/{number}#issuecomment-13902",
                    head=sha(f"head {recipe}"),
                    suite_commit=sha("cc-ci"),
                    known_red=recipe == "ghost",
                    tests=[
                        {"name": "install", "status": "pass"},
                        {"name": "restore", "status": "pass" if green else "fail"},
                    ],
                    why="" if green else "restore: the ci_marker table is missing",
                )
            night.assertion(
                5,
                "triggerable",
                f"{recipe} answers !testme with a build that reports back",
                recipe=recipe,
                outcome="skipped" if skipped else "passed",
                expected="a custom build created after the comment, and its status",
                seen="" if skipped else "build and status, 16 s after the comment",
                message=skipped,
                check=f"curl {FORGE}/api/v1/repos/{ORG}/{recipe}/commits/main/status",
            )
        if not skipped:
            for change in [one for one in night.journal.changes() if one.kind in ("comment", "scratch-pull")]:
                night.journal.write(
                    "undo",
                    change=change.id,
                    result="undone",
                    why="a scratch object is always taken away again",
                )

    night.phase(5, body)


def resume(night: Night) -> None:
    def body() -> None:
        for recipe, item in (
            ("ghost", "backup pull requests #1 and #2"),
            ("discourse", "re-pin to bitnamilegacy"),
        ):
            night.assertion(
                6,
                "released",
                f"{recipe}: {item} is released",
                recipe=recipe,
                expected="everything it waited for holds",
                seen="mirrored, covered, polled",
                check="grep -n -A6 DEFERRED cc-ci/machine-docs/DEFERRED.md",
            )

    night.phase(6, body)


def leftovers(night: Night) -> None:
    night.finding(
        "bluesky-pds-1",
        FindingKind.LEFT_FOR_A_PERSON,
        "info",
        "`bluesky-pds` #1 is a leftover smoke test.",
        where=f"{FORGE}/{ORG}/bluesky-pds/pulls/1",
        do="A person closes it; muster does not touch it.",
        recipe="bluesky-pds",
    )
    night.finding(
        "no-self-service",
        FindingKind.HOST_CHECKOUT,
        "info",
        "The host has no self-service rebuild path: `/root/cc-ci` is synced by an operator.",
        do="Give the host a pull of its own.",
    )
