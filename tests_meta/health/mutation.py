"""Mutations: one way each in which a converged world stops being as it should, and what must name it.

A mutation is a function that breaks a world, yields, and restores it; the first sentence of its docstring says what is
broken. `mutation` registers it with what is expected of a health check and of an apply::

    @mutation(test("its default branch is main: ghost"), apply=1)
    def default_branch_is_another(world: World) -> Iterator[None]:
        \"\"\"The default branch of a mirror is not main.\"\"\"
        world.edit_repository("ghost", default_branch="other")
        yield
        world.edit_repository("ghost", default_branch="main")

A mutation that nothing names gives `survives`, the reason why that is right; then both runs must end as on a healthy
world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests_meta.health.world import World
from tests_meta.muster_runs import Ran

Break = Callable[[World], Iterator[None]]


class When(StrEnum):
    """When a world is broken: while its servers run, or while they are stopped (they start again before the run)."""

    LIVE = "live"
    OFFLINE = "offline"


class Witness(StrEnum):
    """What names a mutation in the record: a failed test, by its title, or a finding, by its id."""

    TEST = "test"
    FINDING = "finding"


@dataclass(frozen=True)
class NamedBy:
    """The test or the finding that names a mutation."""

    witness: Witness
    name: str

    def seen_in(self, ran: Ran) -> bool:
        if self.witness is Witness.TEST:
            return self.name in ran.failed
        return any(str(line["id"]) == self.name for line in ran.of("finding"))

    def __str__(self) -> str:
        return f"{self.witness} {self.name!r}"


def test(title: str) -> NamedBy:
    """A failed test, by its title in the record."""
    return NamedBy(Witness.TEST, title)


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where it is imported


def finding(name: str) -> NamedBy:
    """A finding, by its id."""
    return NamedBy(Witness.FINDING, name)


@dataclass(frozen=True)
class Mutation:
    """One defect of a world.

    `health` and `apply` are the exit codes of the two modes. `named_by` is what names it in a health check, with
    `also`, and `apply_named_by` in an apply, if that is another. In an apply that repairs the defect (exit 0), nothing
    has to name it. `restores`: the function leaves the world as it was; otherwise the world is copied anew.
    """

    name: str
    broken: str
    make: Break
    named_by: NamedBy | None
    health: int
    apply: int
    when: When
    survives: str
    restores: bool
    apply_named_by: NamedBy | None
    also: tuple[NamedBy, ...]

    def problems(self, ran: Ran, *, usual: frozenset[str], mode: str) -> list[str]:
        """What is wrong with a run in the broken world; `usual` are the findings of the same run when all is well."""
        wanted = self.health if mode == "health" else self.apply
        wrong = [] if ran.exit == wanted else [f"{mode}: expected exit {wanted}, saw {ran.exit}"]
        by = self.named_by if mode == "health" else self.apply_named_by or self.named_by
        news = {str(line["id"]) for line in ran.of("finding")} - usual
        if self.survives:
            seen = sorted(ran.failed | news)
            return wrong + ([f"{mode}: expected nothing, saw {', '.join(seen)}"] if seen else [])
        assert by is not None
        unseen = [str(one) for one in self.also if not one.seen_in(ran)] if mode == "health" else []
        wrong += [f"{mode}: expected {one} too" for one in unseen]
        repaired = mode == "apply" and wanted == 0 and self.apply_named_by is None
        if not repaired and (not by.seen_in(ran) or (by.witness is Witness.FINDING and by.name not in news)):
            seen = sorted(ran.failed | news)
            wrong.append(f"{mode}: expected {by}, saw {', '.join(seen) or 'nothing'}")
        return wrong


REGISTRY: dict[str, Mutation] = {}


def mutation(
    named_by: NamedBy | None = None,
    *,
    health: int = 1,
    apply: int = 1,
    when: When = When.LIVE,
    survives: str = "",
    restores: bool = True,
    apply_named_by: NamedBy | None = None,
    also: tuple[NamedBy, ...] = (),
) -> Callable[[Break], Break]:
    """Register a mutation under the function's name."""
    assert (named_by is None) == bool(survives), "a mutation is named by something, or survives for a reason"

    def register(make: Break) -> Break:
        name = make.__name__.replace("_", " ")
        assert name not in REGISTRY, name
        REGISTRY[name] = Mutation(
            name=name,
            broken=(make.__doc__ or "").strip(),
            make=make,
            named_by=named_by,
            health=0 if survives else health,
            apply=0 if survives else apply,
            when=when,
            survives=survives,
            restores=restores,
            apply_named_by=apply_named_by,
            also=also,
        )
        return make

    return register
