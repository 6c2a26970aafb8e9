"""The import graph of the project's own modules: ``python -m tests_meta.import_graph`` prints its figures.

Every import counts, also one inside a function or under ``TYPE_CHECKING``: whoever reads a module has to know both.
A package's ``__init__`` is a module like any other; importing a module does not count as importing its package.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PACKAGES = ("phases", "fixtures", "reports")
# Programs and data that run elsewhere: on the host, in a build, as a recipe's suite.
FOREIGN = ("fixtures/shipped/payload/", "fixtures/rehearsal/initial_state/ccci/")
# Rooms that everything else is built on: an arrow from one of them to any other room points back.
BASE_ROOMS = ("fixtures.config", "fixtures.clients", "fixtures.journal")
BELOW = (*BASE_ROOMS, "fixtures.errors")


@dataclass(frozen=True)
class Graph:
    """The modules, and for each the modules that it imports."""

    imports: Mapping[str, frozenset[str]]

    @property
    def arrows(self) -> list[tuple[str, str]]:
        return sorted((module, target) for module, targets in self.imports.items() for target in targets)

    @cached_property
    def components(self) -> list[tuple[str, ...]]:
        """Strongly connected components in topological order, imported ones first (Tarjan 1972)."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[tuple[str, ...]] = []

        def visit(module: str) -> None:
            index[module] = low[module] = len(index)
            stack.append(module)
            for target in sorted(self.imports[module]):
                if target not in index:
                    visit(target)
                    low[module] = min(low[module], low[target])
                elif target in stack:
                    low[module] = min(low[module], index[target])
            if low[module] == index[module]:
                component = stack[stack.index(module) :]
                del stack[stack.index(module) :]
                found.append(tuple(sorted(component)))

        for module in sorted(self.imports):
            if module not in index:
                visit(module)
        return found

    @property
    def circles(self) -> list[tuple[str, ...]]:
        """Modules that import each other, directly or through others; a module that imports itself is one too."""
        return [one for one in self.components if len(one) > 1 or one[0] in self.imports[one[0]]]

    @cached_property
    def floors(self) -> dict[str, int]:
        """The floor of each module: 1 where it imports none of ours, else one above the highest that it imports."""
        floors: dict[str, int] = {}
        for component in self.components:
            below = [floors[t] for m in component for t in self.imports[m] if t not in component]
            floors.update(dict.fromkeys(component, 1 + max(below, default=0)))
        return floors

    def room_arrows(self) -> dict[tuple[str, str], int]:
        """How many imports lead from one room to another."""
        counts: dict[tuple[str, str], int] = {}
        for module, target in self.arrows:
            pair = (room_of(module), room_of(target))
            if pair[0] != pair[1]:
                counts[pair] = counts.get(pair, 0) + 1
        return counts

    def arrows_back(self) -> list[tuple[str, str]]:
        """Imports by which a base room depends on a room above it."""
        return [
            (module, target)
            for module, target in self.arrows
            if room_of(module) in BASE_ROOMS and room_of(target) not in BELOW
        ]


def room_of(module: str) -> str:
    """``fixtures.deploy.undo`` belongs to ``fixtures.deploy``, ``reports.page`` to ``reports``."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "fixtures" else parts[0]


def read(project: Path = PROJECT, packages: Iterable[str] = PACKAGES) -> Graph:
    """The graph of the packages' modules."""
    files = {_name(path, project): path for package in packages for path in _files(project, package)}
    return Graph({name: frozenset(_imports(name, path, files)) for name, path in files.items()})


def _files(project: Path, package: str) -> Iterator[Path]:
    for path in sorted((project / package).rglob("*.py")):
        if not path.relative_to(project).as_posix().startswith(FOREIGN):
            yield path


def _name(path: Path, project: Path) -> str:
    parts = path.relative_to(project).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # A name that is no module is defined in the module that it is imported from.
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
    return {name for name in found if name in known}


def describe(graph: Graph) -> str:
    """The figures as a person reads them."""
    back, rooms = graph.arrows_back(), graph.room_arrows()
    mutual = sorted({tuple(sorted(pair)) for pair in rooms if (pair[1], pair[0]) in rooms})
    highest = max(graph.floors.values(), default=0)
    lines = [
        f"modules        {len(graph.imports)}",
        f"arrows         {len(graph.arrows)}",
        f"floors         {highest}",
        f"circles        {len(graph.circles)}",
        *(f"  {len(one)} modules: {', '.join(one)}" for one in graph.circles),
        f"arrows back    {len(back)}",
        *(f"  {module} -> {target}" for module, target in back),
        f"rooms that import each other   {len(mutual)}",
        *(f"  {one} -> {two} {rooms[one, two]}, back {rooms[two, one]}" for one, two in mutual),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe(read()))
    sys.exit(0)
