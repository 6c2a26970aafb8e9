"""The poll set and its editor: an edit changes only the value's bytes, and unsupported forms are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.ccci.nix_edit import append_entries, find_assignment, find_candidates
from fixtures.ccci.poll_set import PollSet, Unsupported
from fixtures.errors import Drift
from tests_meta.ccci.nix_modules import FORMS, HEAD, TAIL, VARIABLE, module

EXISTING = ("recipe-maintainers/cc-ci", "recipe-maintainers/n8n", "recipe-maintainers/uptime-kuma")
NEW = ("recipe-maintainers/ghost", "recipe-maintainers/mumble")
WANTED = PollSet(EXISTING + NEW)

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True)
repositories = st.builds("{}/{}".format, st.sampled_from(["recipe-maintainers", "org", "a.b_c"]), names)
poll_sets = st.lists(repositories, unique=True, max_size=6).map(tuple)


# --- PollSet ----------------------------------------------------------------------------------------------


def test_poll_set_is_parsed_from_csv() -> None:
    """A poll set is read from one comma-separated value, in its order; an empty value has no entries."""
    assert PollSet.parse("org/cc-ci,org/ghost").entries == ("org/cc-ci", "org/ghost")
    assert PollSet.parse("").entries == ()
    assert len(PollSet.parse("org/cc-ci,org/ghost")) == 2
    assert "org/ghost" in PollSet.parse("org/cc-ci,org/ghost")


@given(poll_sets)
def test_parsing_the_csv_of_a_poll_set_returns_it(entries: tuple[str, ...]) -> None:
    """Parsing the CSV of a poll set gives the same poll set."""
    assert PollSet.parse(PollSet(entries).csv) == PollSet(entries)


def test_duplicate_and_malformed_entries_are_reported() -> None:
    """Duplicate and malformed entries are kept and listed, not repaired."""
    read = PollSet.parse("org/a,org/b,org/A,,org/b, org/c,ghost,org/x/y,org/..")
    assert read.duplicates == ("org/A", "org/b")
    assert read.malformed == ("", " org/c", "ghost", "org/x/y", "org/..")
    assert PollSet.parse("org/a,org/b").duplicates == ()


def test_missing_and_extra_entries() -> None:
    """Missing and extra entries are in the order of the set that has them."""
    live, wanted = PollSet.parse("org/a,org/x,org/b"), PollSet.parse("org/c,org/b,org/a,org/d")
    assert live.missing(wanted) == ("org/c", "org/d")
    assert live.extra(wanted) == ("org/x",)


# --- supported forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_and_appended_to(form: str, newline: str) -> None:
    """Every supported form is found with its position, and new entries are appended in order."""
    source = module(form, EXISTING, newline=newline)
    found = find_assignment(source, VARIABLE)
    assert found.entries == EXISTING
    assert b"recipe-maintainers/cc-ci" in source[slice(*found.span)]
    assert source[: found.span[0]].count(b"\n") + 1 >= found.line > HEAD.count("\n")
    changed = append_entries(source, VARIABLE, WANTED)
    assert find_assignment(changed, VARIABLE).entries == EXISTING + NEW


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), poll_sets, poll_sets, st.sampled_from(["\n", "\r\n"]))
def test_append_changes_only_the_value(
    form: str, before: tuple[str, ...], new: tuple[str, ...], newline: str
) -> None:
    """Appending keeps the present entries and every byte outside of the value; a second append changes nothing."""
    source = module(form, before, newline=newline)
    start, end = find_assignment(source, VARIABLE).span
    changed = append_entries(source, VARIABLE, PollSet(new))
    assert changed[:start] == source[:start]
    assert changed[len(changed) - (len(source) - end) :] == source[end:]
    assert find_assignment(changed, VARIABLE).entries == before + PollSet(before).missing(PollSet(new))
    assert append_entries(changed, VARIABLE, PollSet(new)) == changed


@given(st.sampled_from(sorted(FORMS)), poll_sets)
def test_append_without_missing_entries_returns_the_source(form: str, entries: tuple[str, ...]) -> None:
    """The source is returned unchanged if no entry is missing."""
    source = module(form, entries)
    assert append_entries(source, VARIABLE, PollSet(entries[::-1])) is source


def test_append_to_a_string_is_a_one_line_diff() -> None:
    """Entries are appended at the end of a string, on its line."""
    source = module("string of a list", EXISTING)
    changed = append_entries(source, VARIABLE, WANTED)
    pairs = zip(source.splitlines(), changed.splitlines(), strict=True)
    different = [(old, new) for old, new in pairs if old != new]
    assert len(different) == 1
    old, new = different[0]
    assert new == old.replace(b'kuma" "B=2"', b'kuma,recipe-maintainers/ghost,recipe-maintainers/mumble" "B=2"')


def test_append_to_a_multi_line_list_keeps_comments() -> None:
    """New elements get their own lines, after the last element and the comment on its line."""
    changed = append_entries(module("joined list on lines", EXISTING), VARIABLE, WANTED).decode()
    assert (
        '    "recipe-maintainers/uptime-kuma" # last\n    "recipe-maintainers/ghost"\n'
        '    "recipe-maintainers/mumble"\n    # end\n  ]);'
    ) in changed


@pytest.mark.parametrize("empty", ["[]", "[ ]", "[\n  ]", "[\n    # none yet\n  ]", "[ /* none */ ]"])
def test_append_to_an_empty_list(empty: str) -> None:
    """An empty list gets its first elements, also next to a comment."""
    source = f"{{ POLL_REPOS = {empty}; }}".encode()
    changed = append_entries(source, VARIABLE, PollSet(("org/a", "org/b")))
    assert find_assignment(changed, VARIABLE).entries == ("org/a", "org/b")


def test_append_keeps_the_present_order() -> None:
    """Present entries keep their order, also those that are not wanted."""
    source = b'{ POLL_REPOS = "org/b,org/hand-made,org/a"; }'
    changed = append_entries(source, VARIABLE, PollSet(("org/a", "org/b", "org/c")))
    assert changed == b'{ POLL_REPOS = "org/b,org/hand-made,org/a,org/c"; }'


def test_multi_byte_characters_do_not_shift_the_edit() -> None:
    """Multi-byte characters before and after the value do not move the position of the edit."""
    source = '/* é */ { u = "ß€𝄞"; POLL_REPOS = "org/a"; o = "ß"; } # ä'
    changed = append_entries(source.encode(), VARIABLE, PollSet(("org/b",))).decode()
    assert changed == source.replace("org/a", "org/a,org/b")


def test_bridge_nix_of_the_rehearsal() -> None:
    """The rehearsal's bridge.nix has eleven entries on one line, cc-ci first."""
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
    found = find_assignment(path.read_bytes(), VARIABLE)
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
def test_let_bound_names_are_interpolated(value: str, changed: str | None) -> None:
    """A name bound to a plain string by an enclosing let is interpolated, and kept as ${…} in the source."""
    source = f'let org = "o"; in {{ POLL_REPOS = {value}; }}'.encode()
    assert find_assignment(source, VARIABLE).entries == ("o/cc-ci", "o/n8n")
    edited = append_entries(source, VARIABLE, PollSet(("o/cc-ci", "o/n8n", "o/new"))).decode()
    expected = changed or value.replace(" ]", ' "o/new" ]')
    assert edited == f'let org = "o"; in {{ POLL_REPOS = {expected}; }}'


def test_interpolation_after_the_equals_sign_belongs_to_the_value() -> None:
    """In an indented string, ${org} directly after the equals sign is part of the value."""
    source = b"let org = \"o\"; in { s = ''\n  POLL_REPOS=${org}/a,${org}/b\n  X=1\n''; }"
    assert find_assignment(source, VARIABLE).entries == ("o/a", "o/b")
    changed = append_entries(source, VARIABLE, PollSet(("o/a", "o/b", "o/c")))
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
def test_ambiguous_name_needs_its_evaluated_value(module_text: str) -> None:
    """An entry with an ambiguous name is rejected unless its evaluated value is given and agrees."""
    source = module_text.encode()
    with pytest.raises(Unsupported, match=r"POLL_REPOS on line 1 has '\$\{.*', which only Nix can evaluate"):
        find_assignment(source, VARIABLE)
    assert find_assignment(source, VARIABLE, evaluated=("x/a",)).entries == ("x/a",)
    changed = append_entries(source, VARIABLE, PollSet(("x/a", "x/b")), evaluated=("x/a",))
    assert b'/a,x/b"' in changed


def test_text_and_evaluated_value_must_agree() -> None:
    """A difference between the text and Nix's value raises Drift, because something else sets the value."""
    source = b'{ POLL_REPOS = "org/a,org/b"; }'
    assert find_assignment(source, VARIABLE, evaluated=("org/a", "org/b")).entries == ("org/a", "org/b")
    for other in [("org/a",), ("org/b", "org/a"), ("org/a", "org/b", "org/c")]:
        with pytest.raises(Drift, match="line 1 reads as 'org/a,org/b', but Nix evaluates it to"):
            find_assignment(source, VARIABLE, evaluated=other)


# --- rejected forms -----------------------------------------------------------------------------------------------

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
    ('{ e = "A=1 POLL_REPOS=a/b"; }', "line 1 is set within a line that has other text"),
    ('{ e = "POLL_REPOS=a/b B=2"; }', "line 1 is set within a line that has other text"),
    ("{ s = ''\n  A=1 POLL_REPOS=a/b run\n''; }", "line 2 is set within a line"),
    ("{ s = ''\n\n  POLL_REPOS=a/b,\\\n  c/d\n''; }", "line 3 has '\\\\\\\\' in its value"),
    ("{ s = ''\n  POLL_REPOS=$POLL_REPOS,a/b\n''; }", "line 2 has '\\$' in its value"),
    ("{ s = ''\n  POLL_REPOS+=,a/b\n''; }", "line 2 is set within a line"),
    ("{ s = ''\n  docker run -e POLL_REPOS=a/b x\n''; }", "line 2 is set within a line"),
    ('{ e = "A=1\\nPOLL_REPOS=a/b"; }', "line 1 is set within a line"),
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
    ('{ a.POLL_REPOS = "a/b";\n  b.POLL_REPOS = "a/b"; }', "set in 2 places, on lines 1, 2; expected one"),
    ('if x then { POLL_REPOS = "a/b"; } else { POLL_REPOS = "a/b"; }', "set in 2 places, on lines 1, 1"),
    ('{ POLL_REPOS = "a/b"; s = \'\'\n  POLL_REPOS=a/b\n\'\'; }', "set in 2 places, on lines 1, 2"),
    ('{ POLL_REPOS = "a/b"; ${"POLL_REPOS"} = "c/d"; }', "set in 2 places"),
    ('{ POLL_REPOS = "a/b"; POLL_REPOS = "c/d"; }', "set in 2 places"),
    ('let POLL_REPOS = "a/b"; in { e = "POLL_REPOS=${POLL_REPOS}"; }', "set in 2 places"),
    ("{ }", "not set in this file"),
    ("", "not set in this file"),
    ('{ OTHER_POLL_REPOS = "a/b"; POLL_REPOS_2 = "c/d"; }', "not set in this file"),
    ('{ e = "echo $POLL_REPOS,org/b"; }', "not set in this file"),
    ('# POLL_REPOS = "a/b"\n{ s = \'\'\n  # POLL_REPOS=a/b\n\'\'; }', "not set in this file"),
    ('{\n  a = 1;\n  POLL_REPOS = "a/b"\n}', "line [34] does not parse"),
    ('{ POLL_REPOS = ; }', "line 1 does not parse"),
    ('\ufeff{ POLL_REPOS = "a/b"; }', "byte-order mark"),
    ('{ POLL_REPOS = "a/b" |> f; }', "line 1 does not parse"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text[:50] for text, _ in REFUSED])
def test_unsupported_form_is_rejected_with_its_line(text: str, says: str) -> None:
    """An unsupported or ambiguous assignment is rejected; the message has the line and the form."""
    with pytest.raises(Unsupported, match=says) as caught:
        append_entries(text.encode(), VARIABLE, WANTED)
    assert caught.value.do
    with pytest.raises(Unsupported, match=says):
        find_assignment(text.encode(), VARIABLE)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a/b,c/d,a/b", "line 1 has duplicate entries: 'a/b'"),
        ("a/b,A/b", "line 1 has duplicate entries: 'A/b'"),
        ("a/b,", "line 1 has entries that are not owner/repo: ''"),
        (",a/b", "line 1 has entries that are not owner/repo: ''"),
        ("a/b,,c/d", "line 1 has entries that are not owner/repo: ''"),
        ("a/b, c/d", "line 1 has entries that are not owner/repo: ' c/d'"),
        ("ghost", "line 1 has entries that are not owner/repo: 'ghost'"),
    ],
)
def test_append_to_an_invalid_poll_set_is_rejected(value: str, says: str) -> None:
    """A poll set with invalid entries is read as it is, and appending to it is rejected."""
    source = f'{{ POLL_REPOS = "{value}"; }}'.encode()
    assert find_assignment(source, VARIABLE).entries == tuple(value.split(","))
    with pytest.raises(Drift, match=says):
        append_entries(source, VARIABLE, WANTED)


def test_entries_that_differ_only_in_case_are_duplicates() -> None:
    """The forge ignores case, so appending org/ghost next to org/Ghost is rejected."""
    with pytest.raises(Drift, match="duplicate entries: 'org/ghost'"):
        append_entries(b'{ POLL_REPOS = "org/Ghost"; }', VARIABLE, PollSet(("org/ghost",)))


@pytest.mark.parametrize("entry", ["", "ghost", 'a/b"', "a/${b}", "a/b,c/d", "a/b c", "a/b\n"])
def test_only_valid_entries_are_appended(entry: str) -> None:
    """An entry that is not owner/repo is never written."""
    with pytest.raises(ValueError, match="not a poll set to enroll"):
        append_entries(b'{ POLL_REPOS = "a/b"; }', VARIABLE, PollSet((entry,)))


def test_deeply_nested_source_is_read() -> None:
    """A deeply nested source is read without an error."""
    source = b"{ a = " + b"(" * 5000 + b"1" + b")" * 5000 + b'; POLL_REPOS = "a/b"; }'
    assert find_assignment(source, VARIABLE).entries == ("a/b",)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_rejected(source: bytes) -> None:
    """Arbitrary bytes are read or rejected; no other exception is raised."""
    try:
        find_candidates(source, VARIABLE)
        find_assignment(source + b' POLL_REPOS = "a/b";', VARIABLE)
    except Drift:
        pass


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_damaged_module_is_read_or_rejected(form: str, data: st.DataObject) -> None:
    """A module with a piece cut out is read or rejected; if read, an edit changes only the value."""
    whole = module(form, EXISTING)
    start = data.draw(st.integers(len(HEAD.encode()) - 40, len(whole) - len(TAIL)))
    source = whole[:start] + whole[start + data.draw(st.integers(1, 30)) :]
    try:
        begin, end = find_assignment(source, VARIABLE).span
        changed = append_entries(source, VARIABLE, WANTED)
    except Drift:
        return
    assert changed[:begin] == source[:begin]
    assert changed.endswith(source[end:])
