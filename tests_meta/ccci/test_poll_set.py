"""The poll set, and the editor that appends to it: only its bytes change, and what it cannot read it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.ccci.nix_edit import find, sites, with_appended
from fixtures.ccci.poll_set import PollSet, Unsupported
from fixtures.errors import Drift
from tests_meta.shipped.nix_modules import FORMS, HEAD, TAIL, VARIABLE, module

EXISTING = ("recipe-maintainers/cc-ci", "recipe-maintainers/n8n", "recipe-maintainers/uptime-kuma")
NEW = ("recipe-maintainers/ghost", "recipe-maintainers/mumble")
WANTED = PollSet(EXISTING + NEW)

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True)
repositories = st.builds("{}/{}".format, st.sampled_from(["recipe-maintainers", "org", "a.b_c"]), names)
poll_sets = st.lists(repositories, unique=True, max_size=6).map(tuple)


# --- the value ----------------------------------------------------------------------------------------------


def test_parse() -> None:
    """A poll set is read from one comma-separated value, in its order; an empty value has no entries."""
    assert PollSet.parse("org/cc-ci,org/ghost").entries == ("org/cc-ci", "org/ghost")
    assert PollSet.parse("").entries == ()
    assert len(PollSet.parse("org/cc-ci,org/ghost")) == 2
    assert "org/ghost" in PollSet.parse("org/cc-ci,org/ghost")


@given(poll_sets)
def test_parse_and_back(entries: tuple[str, ...]) -> None:
    """What is written is read back."""
    assert PollSet.parse(PollSet(entries).csv) == PollSet(entries)


def test_what_is_wrong_shows() -> None:
    """Doubled entries and entries that are not owner/repo are kept and named, not repaired."""
    read = PollSet.parse("org/a,org/b,org/A,,org/b, org/c,ghost,org/x/y,org/..")
    assert read.duplicates == ("org/A", "org/b")
    assert read.malformed == ("", " org/c", "ghost", "org/x/y", "org/..")
    assert PollSet.parse("org/a,org/b").duplicates == ()


def test_difference() -> None:
    """Missing and extra entries come in the order of the set that has them."""
    live, wanted = PollSet.parse("org/a,org/x,org/b"), PollSet.parse("org/c,org/b,org/a,org/d")
    assert live.missing(wanted) == ("org/c", "org/d")
    assert live.extra(wanted) == ("org/x",)


# --- the forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form(form: str, newline: str) -> None:
    """Every form is found, in its place, and appended to in append order."""
    source = module(form, EXISTING, newline=newline)
    found = find(source, VARIABLE)
    assert found.entries == EXISTING
    assert b"recipe-maintainers/cc-ci" in source[slice(*found.span)]
    assert source[: found.span[0]].count(b"\n") + 1 >= found.line > HEAD.count("\n")
    changed = with_appended(source, VARIABLE, WANTED)
    assert find(changed, VARIABLE).entries == EXISTING + NEW


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), poll_sets, poll_sets, st.sampled_from(["\n", "\r\n"]))
def test_only_the_value_changes(form: str, before: tuple[str, ...], new: tuple[str, ...], newline: str) -> None:
    """Appending changes no byte outside of the value and keeps what was there; a second time changes nothing."""
    source = module(form, before, newline=newline)
    start, end = find(source, VARIABLE).span
    changed = with_appended(source, VARIABLE, PollSet(new))
    assert changed[:start] == source[:start]
    assert changed[len(changed) - (len(source) - end) :] == source[end:]
    assert find(changed, VARIABLE).entries == before + PollSet(before).missing(PollSet(new))
    assert with_appended(changed, VARIABLE, PollSet(new)) == changed


@given(st.sampled_from(sorted(FORMS)), poll_sets)
def test_nothing_missing(form: str, entries: tuple[str, ...]) -> None:
    """When nothing is missing the source comes back as it was."""
    source = module(form, entries)
    assert with_appended(source, VARIABLE, PollSet(entries[::-1])) is source


def test_one_line_diff() -> None:
    """One string grows at its end, on its line."""
    source = module("string of a list", EXISTING)
    changed = with_appended(source, VARIABLE, WANTED)
    pairs = zip(source.splitlines(), changed.splitlines(), strict=True)
    different = [(old, new) for old, new in pairs if old != new]
    assert len(different) == 1
    old, new = different[0]
    assert new == old.replace(b'kuma" "B=2"', b'kuma,recipe-maintainers/ghost,recipe-maintainers/mumble" "B=2"')


def test_list_on_lines_keeps_its_comments() -> None:
    """New elements get lines of their own, after the last one and the comment that belongs to it."""
    changed = with_appended(module("joined list on lines", EXISTING), VARIABLE, WANTED).decode()
    assert (
        '    "recipe-maintainers/uptime-kuma" # last\n    "recipe-maintainers/ghost"\n'
        '    "recipe-maintainers/mumble"\n    # end\n  ]);'
    ) in changed


@pytest.mark.parametrize("empty", ["[]", "[ ]", "[\n  ]", "[\n    # none yet\n  ]", "[ /* none */ ]"])
def test_empty_list(empty: str) -> None:
    """An empty list gets its first elements, also beside a comment."""
    source = f"{{ POLL_REPOS = {empty}; }}".encode()
    changed = with_appended(source, VARIABLE, PollSet(("org/a", "org/b")))
    assert find(changed, VARIABLE).entries == ("org/a", "org/b")


def test_order_of_the_person_stays() -> None:
    """Entries that stand in another order, or are not wanted, stay where they are."""
    source = b'{ POLL_REPOS = "org/b,org/hand-made,org/a"; }'
    changed = with_appended(source, VARIABLE, PollSet(("org/a", "org/b", "org/c")))
    assert changed == b'{ POLL_REPOS = "org/b,org/hand-made,org/a,org/c"; }'


def test_offsets_are_bytes() -> None:
    """Letters that are more than one byte long, before and after the value, move nothing."""
    source = '/* é */ { u = "ß€𝄞"; POLL_REPOS = "org/a"; o = "ß"; } # ä'
    changed = with_appended(source.encode(), VARIABLE, PollSet(("org/b",))).decode()
    assert changed == source.replace("org/a", "org/a,org/b")


def test_the_rehearsals_own_module() -> None:
    """The bridge.nix of the rehearsal has eleven entries on one line, cc-ci first."""
    path = (
        Path(__file__).parents[2]
        / "fixtures"
        / "rehearsal"
        / "initial_state"
        / "ccci"
        / "nix"
        / "modules"
        / "bridge.nix"
    )
    found = find(path.read_bytes(), VARIABLE)
    assert len(found.entries) == 11
    assert found.entries[0] == "recipe-maintainers/cc-ci"
    assert found.form == "a string NAME=value"


# --- entries with ${…} --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ('"${org}/cc-ci,${org}/n8n"', '"${org}/cc-ci,${org}/n8n,o/new"'),
        ('lib.concatStringsSep "," [ "${org}/cc-ci" "${org}/n8n" ]', None),
        ('"${org}/cc-ci,o/n8n"', '"${org}/cc-ci,o/n8n,o/new"'),
    ],
)
def test_names_are_filled_in(value: str, changed: str | None) -> None:
    """A name that a let around it gives one plain string is filled in; the survivors' source text stays."""
    source = f'let org = "o"; in {{ POLL_REPOS = {value}; }}'.encode()
    assert find(source, VARIABLE).entries == ("o/cc-ci", "o/n8n")
    edited = with_appended(source, VARIABLE, PollSet(("o/cc-ci", "o/n8n", "o/new"))).decode()
    expected = changed or value.replace(" ]", ' "o/new" ]')
    assert edited == f'let org = "o"; in {{ POLL_REPOS = {expected}; }}'


def test_fragment_that_ends_at_a_name_is_no_line_end() -> None:
    """In a text, ${org} right behind the equals sign is part of the value, not its end."""
    source = b"let org = \"o\"; in { s = ''\n  POLL_REPOS=${org}/a,${org}/b\n  X=1\n''; }"
    assert find(source, VARIABLE).entries == ("o/a", "o/b")
    changed = with_appended(source, VARIABLE, PollSet(("o/a", "o/b", "o/c")))
    assert b"POLL_REPOS=${org}/a,${org}/b,o/c\n  X=1" in changed


@pytest.mark.parametrize(
    "module_text",
    [
        'org: { POLL_REPOS = "${org}/a"; }',
        '{ org, ... }: { POLL_REPOS = "${org}/a"; }',
        '{ org ? "o", ... }: { POLL_REPOS = "${org}/a"; }',
        'let org = "o"; in org: { POLL_REPOS = "${org}/a"; }',
        'let org = "o"; in let org = "p"; in { POLL_REPOS = "${org}/a"; }',
        'let org = "o" + "p"; in { POLL_REPOS = "${org}/a"; }',
        'let inherit (x) org; in { POLL_REPOS = "${org}/a"; }',
        '{ org = "o"; POLL_REPOS = "${org}/a"; }',
        '{ a = let org = "o"; in 1; POLL_REPOS = "${org}/a"; }',
        'let o.org = "o"; in { POLL_REPOS = "${o.org}/a"; }',
        '{ POLL_REPOS = "${builtins.concatStringsSep "," ["a" "b"]}/a"; }',
    ],
)
def test_names_that_only_nix_can_tell(module_text: str) -> None:
    """A name that is not surely that string is refused, unless its evaluated value is given and agrees."""
    source = module_text.encode()
    with pytest.raises(Unsupported, match=r"POLL_REPOS on line 1 has '\$\{.*', which only Nix can evaluate"):
        find(source, VARIABLE)
    assert find(source, VARIABLE, evaluated=("x/a",)).entries == ("x/a",)
    changed = with_appended(source, VARIABLE, PollSet(("x/a", "x/b")), evaluated=("x/a",))
    assert b'/a,x/b"' in changed


def test_text_and_evaluation_must_agree() -> None:
    """Where the text says one thing and Nix another, something else sets the value: Drift."""
    source = b'{ POLL_REPOS = "org/a,org/b"; }'
    assert find(source, VARIABLE, evaluated=("org/a", "org/b")).entries == ("org/a", "org/b")
    for other in [("org/a",), ("org/b", "org/a"), ("org/a", "org/b", "org/c")]:
        with pytest.raises(Drift, match="line 1 reads as 'org/a,org/b', but Nix evaluates it to"):
            find(source, VARIABLE, evaluated=other)


# --- refusals -----------------------------------------------------------------------------------------------

REFUSED = [
    ('{ POLL_REPOS = "a/b" + ",c/d"; }', "line 1 is put together from parts"),
    ('{ POLL_REPOS = [ "a/b" ] ++ more; }', "line 1 is put together from parts"),
    ('{ POLL_REPOS = lib.concatStringsSep "," ([ "a/b" ] ++ more); }', "line 1 is a function's result"),
    ('{ POLL_REPOS = lib.concatStringsSep "," repos; }', "line 1 is a function's result"),
    ('{ POLL_REPOS = lib.concatStringsSep " " [ "a/b" ]; }', "line 1 is a function's result"),
    ('{ POLL_REPOS = with lib; concatStringsSep "," [ "a/b" ]; }', "line 1 is a with"),
    ("{\n  POLL_REPOS = pollRepos;\n}", "line 2 is a variable"),
    ("{ POLL_REPOS = cfg.pollRepos; }", "line 1 is a variable"),
    ('{ POLL_REPOS = if x then "a/b" else "c/d"; }', "line 1 is an if"),
    ('{ POLL_REPOS = lib.mkIf x "a/b"; }', "line 1 is a function's result"),
    ("{ POLL_REPOS = ''a/b''; }", "line 1 is a text in ''…''"),
    ("{ POLL_REPOS = 3; }", "line 1 is an expression of the kind integer_expression"),
    ('{ POLL_REPOS.x = "a/b"; }', "line 1 is a set of attributes"),
    ('{ ${"POLL_REPOS"} = "a/b"; }', "line 1 is set through a computed attribute name"),
    ("{ inherit POLL_REPOS; }", "line 1 is inherited"),
    ("{ inherit (cfg) POLL_REPOS; }", "line 1 is inherited"),
    ('{ POLL_REPOS ? "a/b" }: { }', "line 1 is an argument of a function"),
    ('{ e = "A=1 POLL_REPOS=a/b"; }', "line 1 is set in the middle of a line, or with more behind it"),
    ('{ e = "POLL_REPOS=a/b B=2"; }', "line 1 is set in the middle of a line, or with more behind it"),
    ("{ s = ''\n  A=1 POLL_REPOS=a/b run\n''; }", "line 2 is set in the middle of a line"),
    ("{ s = ''\n\n  POLL_REPOS=a/b,\\\n  c/d\n''; }", "line 3 has '\\\\\\\\' in its value"),
    ("{ s = ''\n  POLL_REPOS=$POLL_REPOS,a/b\n''; }", "line 2 has '\\$' in its value"),
    ("{ s = ''\n  POLL_REPOS+=,a/b\n''; }", "line 2 is set in the middle of a line"),
    ("{ s = ''\n  docker run -e POLL_REPOS=a/b x\n''; }", "line 2 is set in the middle of a line"),
    ('{ e = "A=1\\nPOLL_REPOS=a/b"; }', "line 1 is set in the middle of a line"),
    ('{ POLL_REPOS = "a/b\\n"; }', "line 1 has an escape in its value"),
    ('{ POLL_REPOS = "a/\\${b}"; }', "line 1 has an escape in its value"),
    ("{ s = ''\n  POLL_REPOS=a/''${b}\n''; }", "line 2 has an escape in its value"),
    ('{ POLL_REPOS = "a/b;c/d"; }', "line 1 has ';' in its value"),
    ('{ POLL_REPOS = "a/bé"; }', "line 1 has '.*' in its value"),
    ("{ POLL_REPOS = [ ghost ]; }", "has a variable as an element of its list on line 1"),
    ('{ POLL_REPOS = [ (f "a/b") ]; }', "has a function's result as an element of its list on line 1"),
    ('{ POLL_REPOS = [\n"a/b,c/d" ]; }', "a comma in an element on line 2"),
    ('{ POLL_REPOS = [ "a/\\"b" ]; }', "an escape in an element on line 1"),
    ('{ e = [ "POLL_REPOS=${repos}" ]; }', "line 1 is a variable in \\$\\{…\\}"),
    ('{ a.POLL_REPOS = "a/b";\n  b.POLL_REPOS = "a/b"; }', "set in 2 places, on lines 1, 2; expected is one"),
    ('if x then { POLL_REPOS = "a/b"; } else { POLL_REPOS = "a/b"; }', "set in 2 places, on lines 1, 1"),
    ('{ POLL_REPOS = "a/b"; s = \'\'\n  POLL_REPOS=a/b\n\'\'; }', "set in 2 places, on lines 1, 2"),
    ('{ POLL_REPOS = "a/b"; ${"POLL_REPOS"} = "c/d"; }', "set in 2 places"),
    ('{ POLL_REPOS = "a/b"; POLL_REPOS = "c/d"; }', "set in 2 places"),
    ('let POLL_REPOS = "a/b"; in { e = "POLL_REPOS=${POLL_REPOS}"; }', "set in 2 places"),
    ("{ }", "set nowhere in this file"),
    ("", "set nowhere in this file"),
    ('{ OTHER_POLL_REPOS = "a/b"; POLL_REPOS_2 = "c/d"; }', "set nowhere in this file"),
    ('{ e = "echo $POLL_REPOS,org/b"; }', "set nowhere in this file"),
    ('# POLL_REPOS = "a/b"\n{ s = \'\'\n  # POLL_REPOS=a/b\n\'\'; }', "set nowhere in this file"),
    ('{\n  a = 1;\n  POLL_REPOS = "a/b"\n}', "line [34] does not parse"),
    ('{ POLL_REPOS = ; }', "line 1 does not parse"),
    ('\ufeff{ POLL_REPOS = "a/b"; }', "byte-order mark"),
    ('{ POLL_REPOS = "a/b" |> f; }', "line 1 does not parse"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text[:50] for text, _ in REFUSED])
def test_refused(text: str, says: str) -> None:
    """What is not surely the one value is refused, with its line and what was seen."""
    with pytest.raises(Unsupported, match=says) as caught:
        with_appended(text.encode(), VARIABLE, WANTED)
    assert caught.value.do
    with pytest.raises(Unsupported, match=says):
        find(text.encode(), VARIABLE)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a/b,c/d,a/b", "line 1 has entries twice: 'a/b'"),
        ("a/b,A/b", "line 1 has entries twice: 'A/b'"),
        ("a/b,", "line 1 has entries that are not owner/repo: ''"),
        (",a/b", "line 1 has entries that are not owner/repo: ''"),
        ("a/b,,c/d", "line 1 has entries that are not owner/repo: ''"),
        ("a/b, c/d", "line 1 has entries that are not owner/repo: ' c/d'"),
        ("ghost", "line 1 has entries that are not owner/repo: 'ghost'"),
    ],
)
def test_a_value_that_is_already_wrong(value: str, says: str) -> None:
    """A poll set that is already wrong is read as it is, and appending to it is refused."""
    source = f'{{ POLL_REPOS = "{value}"; }}'.encode()
    assert find(source, VARIABLE).entries == tuple(value.split(","))
    with pytest.raises(Drift, match=says):
        with_appended(source, VARIABLE, WANTED)


def test_a_capital_does_not_make_another_repository() -> None:
    """The forge takes org/Ghost and org/ghost for one: enrolling the second beside the first is refused."""
    with pytest.raises(Drift, match="twice: 'org/ghost'"):
        with_appended(b'{ POLL_REPOS = "org/Ghost"; }', VARIABLE, PollSet(("org/ghost",)))


@pytest.mark.parametrize("entry", ["", "ghost", 'a/b"', "a/${b}", "a/b,c/d", "a/b c", "a/b\n"])
def test_what_may_be_written(entry: str) -> None:
    """Only owner/repo is ever written into a file."""
    with pytest.raises(ValueError, match="not a poll set to enroll"):
        with_appended(b'{ POLL_REPOS = "a/b"; }', VARIABLE, PollSet((entry,)))


def test_deep_source() -> None:
    """A source that is nested very deeply is read, not crashed on."""
    source = b"{ a = " + b"(" * 5000 + b"1" + b")" * 5000 + b'; POLL_REPOS = "a/b"; }'
    assert find(source, VARIABLE).entries == ("a/b",)


@given(st.binary(max_size=200))
def test_any_bytes(source: bytes) -> None:
    """Any bytes at all are read or refused, never anything else."""
    try:
        sites(source, VARIABLE)
        find(source + b' POLL_REPOS = "a/b";', VARIABLE)
    except Drift:
        pass


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_damaged_modules(form: str, data: st.DataObject) -> None:
    """A module of which a piece was cut out is read or refused; if read, an edit changes only its value."""
    whole = module(form, EXISTING)
    start = data.draw(st.integers(len(HEAD.encode()) - 40, len(whole) - len(TAIL)))
    source = whole[:start] + whole[start + data.draw(st.integers(1, 30)) :]
    try:
        begin, end = find(source, VARIABLE).span
        changed = with_appended(source, VARIABLE, WANTED)
    except Drift:
        return
    assert changed[:begin] == source[:begin]
    assert changed.endswith(source[end:])
