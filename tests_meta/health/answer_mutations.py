"""Mutations of an answer of another system: what a sloppy or hostile server, proxy or machine might send instead.

An answer is an HTTP response or a host command's result, as `Answer`. Each mutation is named, takes a seeded generator,
and returns the changed answer, or None where it does not apply.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

HUGE = 2**70
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
SECTION = re.compile(rb"(?m)^@section (\S+) (\S+) (\S*) \.$")


@dataclass(frozen=True)
class Answer:
    """A response, or with `host` a command's result: then `status` is its exit status and `body` its stdout."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    host: bool = False


Mutator = Callable[[Answer, Random], Answer | None]


@dataclass
class Registry:
    """The mutations by name; `broken` are those after which an answer cannot be right any more."""

    all: dict[str, Mutator] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def add(self, name: str, *, broken: bool = False) -> Callable[[Mutator], Mutator]:
        def note(mutator: Mutator) -> Mutator:
            self.all[name] = mutator
            if broken:
                self.broken.add(name)
            return mutator

        return note


MUTATIONS = Registry()


# -- whole answers --------------------------------------------------------------------------------------------------


@MUTATIONS.add("truncated", broken=True)
def _truncated(answer: Answer, random: Random) -> Answer | None:
    if len(answer.body) < 2:
        return None
    return replace(answer, body=answer.body[: random.randrange(1, len(answer.body))])


@MUTATIONS.add("HTML instead", broken=True)
def _html(answer: Answer, _: Random) -> Answer | None:
    return (
        None if answer.host else replace(answer, status=200, body=HTML, headers=(("content-type", "text/html"),))
    )


@MUTATIONS.add("empty body", broken=True)
def _empty_body(answer: Answer, _: Random) -> Answer | None:
    return replace(answer, body=b"") if answer.body else None


@MUTATIONS.add("null instead")
def _null(answer: Answer, _: Random) -> Answer | None:
    return None if answer.host else replace(answer, body=b"null")


@MUTATIONS.add("other kind of JSON", broken=True)
def _other_kind(answer: Answer, random: Random) -> Answer | None:
    found = _json(answer)
    if found is _NOT_JSON:
        return None
    return replace(
        answer, body=random.choice([b"7", b'"moved"', b"true", b"[[]]" if isinstance(found, dict) else b"{}"])
    )


@MUTATIONS.add("not found")
def _not_found(answer: Answer, _: Random) -> Answer | None:
    return None if answer.host else replace(answer, status=404, body=b'{"message": "not found"}')


@MUTATIONS.add("200 for 404")
def _found_after_all(answer: Answer, _: Random) -> Answer | None:
    return replace(answer, status=200) if answer.status == 404 and not answer.host else None


@MUTATIONS.add("status of another family", broken=True)
def _other_status(answer: Answer, random: Random) -> Answer | None:
    if answer.host:
        return replace(answer, status=random.choice([1, 2, 126, 127, 255]), body=b"")
    status = random.choice([204, 301, 400, 401, 402, 403, 409, 413, 418, 429, 451, 500, 502, 503, 507, 599])
    return replace(answer, status=status, headers=(*answer.headers, ("retry-after", "99999")))


@MUTATIONS.add("other encoding")
def _other_encoding(answer: Answer, random: Random) -> Answer | None:
    if answer.host or _json(answer) is _NOT_JSON:
        return None
    text = answer.body.decode()
    if random.random() < 0.5:
        return replace(answer, body=text.encode("utf-16"))
    return replace(answer, body=b"\xef\xbb\xbf" + answer.body)


@MUTATIONS.add("undecodable text")
def _undecodable(answer: Answer, random: Random) -> Answer | None:
    places = [match.end() for match in re.finditer(rb'": ?"[A-Za-z]', answer.body)]
    if answer.host or not places:
        return None
    at = random.choice(places)
    piece = random.choice([b"\xe9", b"\\ud83d", b"\\udce9", b"\\u0000", b"\\u202e", b"\x00"])
    return replace(answer, body=answer.body[:at] + piece + answer.body[at:])


@MUTATIONS.add("headers changed")
def _headers(answer: Answer, random: Random) -> Answer | None:
    if answer.host:
        return None
    kept = tuple(pair for pair in answer.headers if pair[0] not in ("x-total-count", "link", "date"))
    more = random.choice(
        [
            (("x-total-count", "-1"),),
            (("x-total-count", "9" * 30),),
            (("x-total-count", "0"),),
            (("x-total-count", "1000"),),
            (("link", '<http://elsewhere/?page=2>; rel="next"'),),
            (("link", ";;;"),),
            (("date", "yesterday"),),
            (("date", "Mon, 01 Jan 0001 00:00:00 GMT"),),
            (("content-type", "text/plain; charset=zlib"),),
        ]
    )
    return replace(answer, headers=(*kept, *more))


# -- fields of JSON -------------------------------------------------------------------------------------------------

_NOT_JSON = object()


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body) if not answer.host else _NOT_JSON
    except ValueError:
        return _NOT_JSON


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every object and list, as its container and its key."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(members):
        yield value, key
        yield from _places(one)


def _at_a_field(change: Callable[[Any, Any, Random], bool]) -> Mutator:
    """A mutation of one random member of the answer's JSON; `change` returns whether it applied."""

    def mutate(answer: Answer, random: Random) -> Answer | None:
        found = _json(answer)
        places = [] if found is _NOT_JSON else list(_places(found))
        random.shuffle(places)
        for container, key in places[:40]:
            if change(container, key, random):
                return replace(answer, body=json.dumps(found).encode())
        return None

    return mutate


def _set(container: Any, key: Any, value: Any) -> bool:
    if container[key] == value and type(container[key]) is type(value):
        return False
    container[key] = value
    return True


def _remove(container: Any, key: Any, _: Random) -> bool:
    del container[key]
    return True


def _other_type(container: Any, key: Any, random: Random) -> bool:
    return _set(container, key, random.choice([7, "text", True, [], {}, [None], {"login": None}, 1.5]))


def _empty(container: Any, key: Any, _: Random) -> bool:
    kinds = {str: "", int: 0, list: [], dict: {}}
    return type(container[key]) in kinds and _set(container, key, kinds[type(container[key])])


def _huge(container: Any, key: Any, random: Random) -> bool:
    if isinstance(container[key], str):
        return _set(container, key, random.choice(["x" * 100_000, "../" * 50, "a\n" * 50, "-" + container[key]]))
    return type(container[key]) is int and _set(container, key, HUGE)


def _negative(container: Any, key: Any, _: Random) -> bool:
    return type(container[key]) is int and _set(container, key, -abs(container[key]) - 1)


def _duplicated(container: Any, key: Any, _: Random) -> bool:
    if not isinstance(container, list):
        return False
    container.append(container[key])
    return True


def _reordered(container: Any, key: Any, _: Random) -> bool:
    if not isinstance(container, list) or len(container) < 2 or container[0] == container[-1]:
        return False
    container.reverse()
    return True


for _name, _change in {
    "field removed": _remove,
    "field null": lambda container, key, _: _set(container, key, None),
    "field of another type": _other_type,
    "field empty": _empty,
    "field huge": _huge,
    "field negative": _negative,
    "item duplicated": _duplicated,
    "list reordered": _reordered,
}.items():
    MUTATIONS.add(_name)(_at_a_field(_change))


# -- a list of refs, and what a host's commands print ---------------------------------------------------------------


@MUTATIONS.add("refs garbled", broken=True)
def _refs_garbled(answer: Answer, random: Random) -> Answer | None:
    if answer.host or b"# service=git-upload-pack" not in answer.body:
        return None
    at = random.randrange(40, len(answer.body) - 4)
    return replace(
        answer, body=answer.body[:at] + random.choice([b"\xff", b"0000", b"zz", b"\x00\x00"]) + answer.body[at:]
    )


def _in_a_section(change: Callable[[bytes, int, Random], tuple[bytes, int, bytes] | None]) -> Mutator:
    """A mutation of the output of one of a host script's commands: `change` gets and returns its text and status."""

    def mutate(answer: Answer, random: Random) -> Answer | None:
        sections = list(SECTION.finditer(answer.body)) if answer.host else []
        if not sections:
            return None
        chosen = random.choice(sections)
        data, _, status = base64.b64decode(chosen[2]).rpartition(b" ")
        changed = change(data, int(status), random)
        if changed is None:
            return None
        text, now, error = changed
        coded = base64.b64encode(text + b" %d" % now)
        line = b"@section %b %b %b ." % (chosen[1], coded, base64.b64encode(error))
        return replace(answer, body=answer.body[: chosen.start()] + line + answer.body[chosen.end() :])

    return mutate


def _garbled_section(answer: Answer, random: Random) -> Answer | None:
    """The frame itself, not what is in it."""
    places = [match.start(2) for match in SECTION.finditer(answer.body)] if answer.host else []
    if not places:
        return None
    at = random.choice(places)
    return replace(
        answer, body=answer.body[:at] + random.choice([b"\xff\xff", b"!", b"AAAA "]) + answer.body[at:]
    )


MUTATIONS.add("section's frame garbled", broken=True)(_garbled_section)
MUTATIONS.add("command failed")(
    _in_a_section(lambda text, status, random: (b"", random.choice([1, 2, 127]), b"it broke"))
)
MUTATIONS.add("output empty")(_in_a_section(lambda text, status, random: (b"", status, b"") if text else None))
MUTATIONS.add("output cut")(
    _in_a_section(
        lambda text, status, random: (text[: random.randrange(len(text))], status, b"") if text else None
    )
)
MUTATIONS.add("output of bytes")(
    _in_a_section(
        lambda text, status, random: (text + random.choice([b"\xff\xfe", b"\x00", b"\x1b[2J", b"\xe9\n"]), 0, b"")
    )
)
MUTATIONS.add("output of another kind")(
    _in_a_section(
        lambda text, status, random: (
            random.choice([b"null\n", b"[{}]\n", b"-1\n", b"%d\n" % HUGE, b"Welcome!\n" + text, b"{}", b"[]"]),
            0,
            b"",
        )
    )
)
MUTATIONS.add("output reversed")(
    _in_a_section(lambda text, status, random: (b"\n".join(reversed(text.splitlines())), status, b""))
)
