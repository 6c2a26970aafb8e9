"""A pytest plugin: this machine has no nix. The host keeps its own."""

from __future__ import annotations

from fixtures.ccci import nix_eval

nix_eval.PROGRAM = "nix-instantiate-is-not-here"
