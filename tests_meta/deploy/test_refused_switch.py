"""A switch that ends without activating anything is told from one that failed, and says what a person has to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.deploy.refused_switch import refusal
from fixtures.deploy.revert_timer import SwitchState, parse_switch_state

HOST: Any = SimpleNamespace(address="cc-ci", flake_uri="git+file:///root/cc-ci?submodules=1#cc-ci")


def shown(*, result: str, status: int, active: str = "failed", sub: str = "failed") -> SwitchState:
    lines = f"LoadState=loaded\nActiveState={active}\nSubState={sub}\nResult={result}\nExecMainStatus={status}\n"
    return parse_switch_state(lines)


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (shown(result="exit-code", status=1), True),
        (shown(result="exit-code", status=100), True),
        (shown(result="exit-code", status=2), False),
        (shown(result="exit-code", status=4), False),
        (shown(result="timeout", status=1), False),
        (shown(result="success", status=0, active="active", sub="exited"), False),
        (shown(result="success", status=0, active="active", sub="running"), False),
    ],
)
def test_only_exits_before_the_activation_are_a_refusal(state: SwitchState, refused: bool) -> None:
    """2 and 4 have activated the system, and a switch at its time limit has begun something."""
    assert state.refused is refused


def test_refusal_has_the_hosts_words_and_the_next_step() -> None:
    """Both a reboot and a lock are named, because exit 1 means either; exit 100 asks for the reboot alone."""
    words = "Pre-switch check 'switchInhibitors' failed Pre-switch checks failed"
    found = refusal(HOST, shown(result="exit-code", status=1), words, unit="muster-switch-1")
    assert words in found.message
    assert "not attempted" in found.message
    assert "nixos-rebuild boot --flake 'git+file:///root/cc-ci?submodules=1#cc-ci'" in found.do
    assert "lock" in found.do
    assert "journalctl -u muster-switch-1" in found.do
    reboot = refusal(HOST, shown(result="exit-code", status=100), "", unit="muster-switch-1")
    assert "lock" not in reboot.do
