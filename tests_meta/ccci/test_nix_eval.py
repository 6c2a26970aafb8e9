"""The poll set editor and muster's evaluation of a Nix file, compared with what nix-instantiate gives."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.ccci import nix_eval
from fixtures.ccci.nix_edit import append_entries, find_assignment
from fixtures.ccci.nix_eval import evaluate
from fixtures.ccci.poll_set import PollSet
from fixtures.errors import Drift
from tests_meta.ccci.nix_modules import FORMS, NIX, VARIABLE, WITHOUT_NIX, entries_of, judge, module
from tests_meta.ccci.test_poll_set import EXISTING, NEW, WANTED, poll_sets

needs_nix = pytest.mark.skipif(NIX is None, reason=WITHOUT_NIX)
BRIDGE = (
    Path(nix_eval.__file__).parents[1] / "rehearsal" / "initial_state" / "ccci" / "nix" / "modules" / "bridge.nix"
)


# --- the editor ---------------------------------------------------------------------------------------------


@needs_nix
def test_editor_agrees_with_nix_for_every_form(tmp_path: Path) -> None:
    """For every form Nix gives the entries that the editor reads, and after an edit the appended ones too."""
    sources = [module(form, EXISTING) for form in FORMS]
    changed = [append_entries(source, VARIABLE, WANTED) for source in sources]
    values = [entries_of(value) for value in judge(tmp_path, *sources, *changed)]
    assert dict(zip(FORMS, values[: len(FORMS)], strict=True)) == dict.fromkeys(FORMS, EXISTING)
    assert dict(zip(FORMS, values[len(FORMS) :], strict=True)) == dict.fromkeys(FORMS, EXISTING + NEW)


@needs_nix
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FORMS)), poll_sets, poll_sets, st.sampled_from(["\n", "\r\n"]))
def test_nix_reads_any_edit_as_intended(
    form: str, before: tuple[str, ...], new: tuple[str, ...], newline: str
) -> None:
    """After any edit Nix evaluates the file to the previous entries followed by the missing ones."""
    source = module(form, before, newline=newline)
    changed = append_entries(source, VARIABLE, PollSet(new))
    with tempfile.TemporaryDirectory() as folder:
        values = judge(Path(folder), source, changed)
    assert entries_of(values[0]) == before
    assert entries_of(values[1]) == before + PollSet(before).missing(PollSet(new))


@needs_nix
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.integers(0, 400), st.integers(1, 12))
def test_editor_agrees_with_nix_on_damaged_modules(form: str, start: int, length: int) -> None:
    """If Nix still evaluates a damaged module, the editor reads the same value or rejects it."""
    whole = module(form, EXISTING)
    source = whole[: 300 + start] + whole[300 + start + length :]
    try:
        entries = find_assignment(source, VARIABLE).entries
    except Drift:
        return
    by_nix = evaluate(source, VARIABLE)
    if by_nix.entries is not None:
        assert by_nix.entries == entries


# --- the evaluation -----------------------------------------------------------------------------------------


@needs_nix
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_evaluated(form: str) -> None:
    """Evaluating the module alone gives the value of every form, with and without entries."""
    assert evaluate(module(form, EXISTING), VARIABLE).entries == EXISTING
    assert evaluate(module(form, ()), VARIABLE).entries == ()


@needs_nix
def test_bridge_nix_of_the_rehearsal() -> None:
    """The rehearsal's bridge.nix, whose value passes through toJSON and writeText, is evaluated as a whole module."""
    source = BRIDGE.read_bytes()
    found = evaluate(source, VARIABLE)
    assert found.entries == find_assignment(source, VARIABLE).entries
    assert found.how == "the module"


EVALUATED = {
    "plus": '{ POLL_REPOS = "o/a" + ",o/b"; }',
    "plus plus": '{ lib, ... }: { POLL_REPOS = lib.concatStringsSep "," ([ "o/a" ] ++ [ "o/b" ]); }',
    "variable": 'let r = [ "o/a" "o/b" ]; in { lib, ... }: { e = "POLL_REPOS=${lib.concatStringsSep "," r}"; }',
    "map": '{ lib, ... }: with lib; { POLL_REPOS = concatMapStringsSep "," (r: "o/${r}") [ "a" "b" ]; }',
    "if": '{ config, ... }: { POLL_REPOS = if true then "o/a,o/b" else "o/c"; }',
    "mkIf": '{ lib, config, ... }: lib.mkIf config.services.bridge.enable { POLL_REPOS = "o/a,o/b"; }',
    "mkMerge": '{ lib, ... }: lib.mkMerge [ { a = 1; } { POLL_REPOS = "o/a,o/b"; } ]',
    "indented": "{ POLL_REPOS = ''o/a,o/b''; }",
    "one string": '{ Environment = "A=1 POLL_REPOS=o/a,o/b C=3"; }',
    "computed name": '{ ${"POLL_REPOS"} = "o/a,o/b"; }',
    "inherited": 'let POLL_REPOS = "o/a,o/b"; in { inherit POLL_REPOS; }',
    "pkgs": '{ pkgs, ... }: { s = pkgs.writeText "stack.yml" \'\'\n  e:\n    - POLL_REPOS=o/a,o/b\n\'\'; }',
    "generate": '{ pkgs, ... }: { s = (pkgs.formats.yaml { }).generate "s" { e.POLL_REPOS = "o/a,o/b"; }; }',
    "script": '{ pkgs, ... }: { s = "${pkgs.docker}/bin/docker service update --env-add POLL_REPOS=o/a,o/b x"; }',
    "config": '{ config, ... }: { t = config.sops.secrets.x.path; POLL_REPOS = "o/a,o/b"; }',
    "own argument": '{ inputs, ... }: { t = inputs.self.rev; POLL_REPOS = "o/a,o/b"; }',
    "set pattern": 'args@{ lib, ... }: { t = args.config.networking.hostName; POLL_REPOS = "o/a,o/b"; }',
    "curried": '{ self }: { lib, ... }: { POLL_REPOS = lib.mkForce "o/a,o/b"; }',
    "options": '{ lib, ... }: with lib; { options.x = mkOption { type = types.str; }; POLL_REPOS = "o/a,o/b"; }',
    "imports": '{ imports = [ ./no-such-file.nix ]; POLL_REPOS = "o/a,o/b"; }',
    "recursive": 'rec { list = "o/a"; POLL_REPOS = "${list},o/b"; }',
    "json": '{ s = builtins.toJSON { e = [ "POLL_REPOS=o/a,o/b" ]; }; }',
    "json in json": '{ s = builtins.toJSON { e = builtins.toJSON { POLL_REPOS = "o/a,o/b"; }; }; }',
}  # fmt: skip


@needs_nix
@pytest.mark.parametrize("name", EVALUATED)
def test_module_is_evaluated(name: str) -> None:
    """Forms that the editor rejects, and values that pass through nixpkgs functions, are evaluated."""
    found = evaluate(EVALUATED[name].encode(), VARIABLE)
    assert (found.entries, found.how, found.why) == (("o/a", "o/b"), "the module", "")


# The stand-in for config.port is not a number, and there is no file beside the module.
ONLY_THE_EXPRESSION = {
    "file beside it": '{ a = builtins.readFile ../bridge.py; POLL_REPOS = "o/a,o/b"; }',
    "let and rec": 'let o = "o"; in { a = o + 1; b = rec { c = o; POLL_REPOS = "${c}/a,o/b"; }; }',
    "with": '{ lib, ... }: with lib; { a = nope + 1; POLL_REPOS = concatStringsSep "," [ "o/a" "o/b" ]; }',
    "function": '{ config, ... }: { a = config.port + 1; b = r: [ "POLL_REPOS=o/a,o/b" ]; }',
    "in a binding": 'let o = "o"; e = "POLL_REPOS=${o}/a,o/b"; in { a = o + 1; inherit e; }',
}  # fmt: skip


@needs_nix
@pytest.mark.parametrize("name", ONLY_THE_EXPRESSION)
def test_expression_is_evaluated_in_its_scope(name: str) -> None:
    """If the module cannot be evaluated alone, the expression is evaluated with its enclosing lets and withs."""
    found = evaluate(ONLY_THE_EXPRESSION[name].encode(), VARIABLE)
    assert (found.entries, found.how) == (("o/a", "o/b"), "the expression")


NO_VALUE = {
    "undefined variable": ('{ POLL_REPOS = "${nowhere}/a"; }', "undefined variable 'nowhere'"),
    "doubled attribute": ('{ a = { POLL_REPOS = "o/a"; a = 1; a = 2; }; }', "already defined"),
    "missing file": ('{ POLL_REPOS = import ./repos.nix; }', "repos.nix"),
    "other values": ('{ a.POLL_REPOS = "o/a"; b.POLL_REPOS = "o/b"; }', "2 different values"),
    "overridden": ('{ a.POLL_REPOS = "o/a"; b = { ${"POLL" + "_REPOS"} = "o/b"; }; }', "2 different values"),
    "unclear": ('{ POLL_REPOS = "$OTHER,o/a"; }', "something other than names and commas"),
    "none": ("{ a = 1; }", "no value"),
    "not nix": ("{ POLL_REPOS = ", "does not parse"),
    "byte-order mark": ('\ufeff{ POLL_REPOS = "o/a"; }', "byte-order mark"),
    "fetched": ('{ POLL_REPOS = builtins.fetchurl "http://127.0.0.1:9/x"; }', "restricted mode"),
    "outside": ('{ POLL_REPOS = builtins.readFile /etc/hostname; }', "restricted mode"),
    "environment": ('{ POLL_REPOS = "o/${builtins.getEnv "HOME"}a" + toString nowhere; }', "nowhere"),
}  # fmt: skip


@needs_nix
@pytest.mark.parametrize("name", NO_VALUE)
def test_module_without_one_clear_value(name: str) -> None:
    """Without one clear value the result has only the reason; no outside file is read and nothing is fetched."""
    text, why = NO_VALUE[name]
    found = evaluate(text.encode(), VARIABLE)
    assert found.entries is None
    assert why in found.why
    assert found.unclear == (name in ("other values", "overridden", "unclear"))
    assert "muster-nix-" not in found.why


@needs_nix
def test_evaluation_stops_at_its_time_limit() -> None:
    """An evaluation is stopped at its time limit."""
    source = b'let f = n: if n == 0 then f 1000000000 else f (n - 1); in { POLL_REPOS = "${toString (f 9)}"; }'
    found = evaluate(source, VARIABLE, limit_s=0.5)
    assert found.entries is None
    assert "did not end within 0.5 s" in found.why or "stack" in found.why or "without an error" in found.why


@needs_nix
def test_evaluation_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation writes only into a temporary folder, which is removed afterwards."""
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "work")
    before = sorted(os.listdir("/nix")) if Path("/nix").exists() else None
    assert evaluate(module("attribute", EXISTING), VARIABLE).entries == EXISTING
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["home", "tmp", "work"]
    assert (sorted(os.listdir("/nix")) if Path("/nix").exists() else None) == before


def test_evaluation_without_nix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without nix-instantiate the result has no value, and NOT_INSTALLED as the reason."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = evaluate(module("attribute", EXISTING), VARIABLE)
    assert (found.entries, found.why) == (None, nix_eval.NOT_INSTALLED)
