"""What the host's commands print is checked as it is read: an answer of another form is unknown, never a value."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from fixtures.clients import nixos
from fixtures.clients.decoding import Malformed
from fixtures.clients.git import parse_advertisement
from fixtures.clients.probe_script import Section, parse
from fixtures.errors import Unreachable
from fixtures.survey import clock_skew_s, read_poll_commit, read_results

SHA = "a" * 40


def section(text: str, status: int = 0, error: str = "") -> Section:
    return Section(text, status, error, text.encode())


def test_time_and_commits_of_the_poll_file_are_read_or_refused() -> None:
    """A file in no commit is known to be in none; a failed or garbled git is `Malformed`, not "in none"."""
    assert read_poll_commit(section(f"1780359180\n{SHA}\n{'b' * 40}\n")) == (
        datetime.fromtimestamp(1780359180, UTC),
        frozenset({SHA, "b" * 40}),
    )
    assert read_poll_commit(section("")) == (None, frozenset())
    for odd in (
        section("", 128, "fatal: bad object"),
        section(f"{SHA}\n1780359180\n"),
        section("1780359180\n"),
        section(f"{'9' * 5000}\n{SHA}\n"),
        section(f"-5\n{SHA}\n"),
        section(f"1780359180\n{SHA}\nWelcome!\n"),
    ):
        with pytest.raises(Malformed, match="poll file"):
            read_poll_commit(odd)


def test_digests_of_results_are_read_by_build() -> None:
    """Only whole lines of sha256sum about a build's results count; a host without the folder has none."""
    lines = [
        f"{'a' * 64}  71/results.json",
        f"{'b' * 64}  0/results.json",
        f"{'c' * 64}  7/../8/results.json",
        f"{'d' * 63}  9/results.json",
        f"\\{'e' * 64}  10/results.json",
        "Welcome to nixos",
    ]
    assert read_results(section("\n".join(lines))) == {71: "a" * 64}
    assert read_results(section("", 1, "cd: /var/lib/cc-ci-runs: No such file or directory")) == {}


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "nan", "inf", "Welcome to nixos"])
def test_clock_that_cannot_be_read_is_no_skew_of_zero(text: str) -> None:
    """The host's clock is a number of seconds, or `Malformed`; a date without nanoseconds is read too."""
    sent = datetime.now(UTC) - timedelta(seconds=1)
    assert abs(clock_skew_s(f"{sent.timestamp() - 60:.0f}.%N\n", sent) + 60) < 2
    with pytest.raises(Malformed, match="clock"):
        clock_skew_s(text, sent)


def test_checkouts_head_is_a_commit_id() -> None:
    """Anything but a commit id is `Malformed`: a head that seems to differ would be a reason to deploy."""
    names = ("head", "branch", "status", "submodules", "remote")
    sections = {f"checkout-{name}": section("") for name in names} | {"checkout-head": section(f"{SHA}\n")}
    assert nixos.parse_checkout(sections).head == SHA
    for odd in (f"{SHA}\n\x00", f"{SHA} (grafted)", "main", "", "-" + SHA):
        with pytest.raises(Malformed, match="head"):
            nixos.parse_checkout(sections | {"checkout-head": section(odd)})


def test_pull_request_with_a_strange_number_is_left_out() -> None:
    """Digits of other scripts and endless numbers are no numbers of pull requests."""

    def packet(line: str) -> bytes:
        return b"%04x%b" % (len(line.encode()) + 4, line.encode())

    lines = [f"{SHA} refs/pull/{number}/head\n" for number in ("7", "²", "9" * 5000, "x")]
    data = packet("# service=git-upload-pack\n") + b"0000" + b"".join(map(packet, lines)) + b"0000"
    assert parse_advertisement(data, where="x").pulls == {7: SHA}


def test_garbled_frame_of_a_section_is_a_cut_answer() -> None:
    """Bytes that are not ASCII in the encoded part of a section make it unreadable, and nothing else."""
    coded = base64.b64encode(b"text 0").decode()
    whole = f"@section a {coded}  .\n"
    assert parse(whole, {"a": "x"}, where="host")["a"].text == "text"
    for odd in (f"@section a \ufffd{coded}  .\n", "@section a !!!  .\n", f"@section a {coded[:-3]}  .\n"):
        with pytest.raises(Unreachable, match="cut before a"):
            parse(odd, {"a": "x"}, where="host")


@pytest.mark.parametrize(
    "odd", ["Welcome to nixos\n", "backup.service\n", "[{}]\n", "\x00\n", "x loaded failed failed\n"]
)
def test_line_that_names_no_unit_is_malformed(odd: str) -> None:
    """A line of systemctl in another form is no failed unit, and no foreign run's timer either."""
    listed = (
        "\u25cf backup.service loaded failed failed Copy snapshots\ndev-x\\x2dy.device loaded active plugged\n"
    )
    assert nixos.unit_names(section(listed)) == {"backup.service", "dev-x\\x2dy.device"}
    with pytest.raises(Malformed, match="systemctl list-units"):
        nixos.unit_names(section(listed + odd))
    with pytest.raises(Malformed, match="systemctl list-units"):
        nixos.parse_unit_states(section(listed + odd))


def test_checkout_whose_status_cannot_be_read_is_not_clean() -> None:
    """A failed git status is a problem of the checkout, not an empty list of edits."""
    sections = {
        "checkout-head": section(f"{SHA}\n"),
        "checkout-branch": section("main\n"),
        "checkout-status": section(""),
        "checkout-submodules": section(""),
        "checkout-remote": section("http://forge/o/cc-ci.git\n"),
    }
    assert nixos.parse_checkout(sections).problem == ""
    unread = nixos.parse_checkout(sections | {"checkout-status": section("", 128, "fatal: index file corrupt")})
    assert unread.problem == "its status cannot be read (fatal: index file corrupt)"


def test_empty_identity_is_unread() -> None:
    """A machine that prints nothing for a part of its identity could not be read; it is not another machine."""
    sections = {name: section("x\n") for name in ("machine-id", "hostname", "root-device")}
    assert nixos.parse_identity(sections).hostname == "x"
    with pytest.raises(Unreachable, match="its hostname could not be read"):
        nixos.parse_identity(sections | {"hostname": section("\n")})


def test_system_that_is_no_store_path_is_unread() -> None:
    """What stands for the running system must be a path of the Nix store."""
    path = f"/nix/store/{'0' * 32}-nixos"
    sections = {
        "running": section(f"{path}\n"),
        "profile": section(f"system-42-link\n{path}\n"),
        "generations": section(""),
    }
    assert nixos.parse_system(sections).running == path
    for odd in ("null\n", "/nix/sto\n", f"Welcome!\n{path} now\n"):
        with pytest.raises(Unreachable, match="current-system"):
            nixos.parse_system(sections | {"running": section(odd)})
