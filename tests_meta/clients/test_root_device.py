"""Names of the root device: the host compares the devices that two names stand for, not the names.

The script runs here with a findmnt of its own; devices are files below a prefix, and block devices where those can be
made.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fixtures.clients import nixos
from fixtures.clients.nixos import Identity
from fixtures.errors import WrongHost

REBUILD = Path(nixos.__file__).parents[1] / "shipped" / "rebuild" / "cc-ci-rebuild.sh"
FINDMNT = """#!/bin/sh
case "$*" in
  *SOURCE*) echo '{source}' ;;
  *MAJ:MIN*) echo ' {number}' ;;
  *FSTYPE*) echo {kind} ;;
esac
"""
LSBLK = '#!/bin/sh\nfor last; do :; done\ncat "$last.uuid"\n'


class Machine:
    """A root folder with device files and links, and commands that say what is mounted on /."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.bin.mkdir()
        self.add("vda2", "disk/by-label/nixos", "disk/by-uuid/1f2e", "disk/by-partlabel/root", "mapper/root")
        self.add("vdb1", "disk/by-label/other")

    def add(self, device: str, *links: str) -> Path:
        place = self.root / "dev" / device
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        for name in links:
            link = self.root / "dev" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place)
        return place

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def ask(self, source: str, name: str, *, number: str = "0:33", kind: str = "ext4") -> str:
        """The output of the command for a root that findmnt calls `source`, in a shell that stops at failures."""
        self.command("findmnt", FINDMNT.format(source=source, number=number, kind=kind))
        done = subprocess.run(
            ["/bin/sh", "-euc", nixos.root_device_command(str(self.root), name)],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SAME = [
    ("/dev/vda2", "/dev/vda2"),
    ("/dev/vda2", "/dev/disk/by-label/nixos"),
    ("/dev/disk/by-label/nixos", "/dev/vda2"),
    ("/dev/vda2[/root]", "/dev/disk/by-label/nixos"),
    ("/dev/vda2[/root]", "/dev/vda2[/@]"),
    ("/dev/mapper/root", "/dev/disk/by-uuid/1f2e"),
    ("/dev/mapper/root[/nix]", "UUID=1f2e"),
    ("/dev/vda2", "LABEL=nixos"),
    ("/dev/vda2", "PARTLABEL=root"),
    ("/dev/sdz9", "/dev/sdz9"),
    ("zroot/root", "zroot/root"),
    ("none", "none"),
    ("overlay", "overlay"),
]


@pytest.mark.parametrize(("source", "name"), SAME)
def test_names_of_one_device_are_equal(machine: Machine, source: str, name: str) -> None:
    """Every name of the root device is accepted; a name that stands for no device is compared as text."""
    assert machine.ask(source, name) == name


OTHER = [
    ("/dev/vda2", "/dev/disk/by-label/other",
     "/dev/vda2 ({root}/dev/vda2; /dev/disk/by-label/other is {root}/dev/vdb1)"),
    ("/dev/vda2[/root]", "LABEL=none", "/dev/vda2[/root] ({root}/dev/vda2; LABEL=none is no device there)"),
    ("/dev/sdz9", "/dev/disk/by-label/nixos",
     "/dev/sdz9 (no device there; /dev/disk/by-label/nixos is {root}/dev/vda2)"),
    ("zroot/root", "zroot/other", "zroot/root (no device there; zroot/other is no device there)"),
    ("tmpfs", "/dev/vda2", "tmpfs (no device there; /dev/vda2 is {root}/dev/vda2)"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name", "said"), OTHER)
def test_names_of_two_devices_are_told_with_what_they_stand_for(
    machine: Machine, source: str, name: str, said: str
) -> None:
    """Another device is answered by the kernel's name of the root, and by what each of the two names stands for."""
    assert machine.ask(source, name) == said.format(root=machine.root)


def make_block_device(place: Path, minor: int) -> None:
    try:
        os.mknod(place, 0o060600, os.makedev(254, minor))
    except PermissionError:
        pytest.skip("making a device node is not allowed here")


def test_block_devices_are_compared_by_number(machine: Machine) -> None:
    """Two nodes of one block device are one device, also /dev/root, which only has a number; another number is not."""
    dev = machine.root / "dev"
    for name, minor in (("dm-0", 17), ("crypt", 17), ("dm-1", 18)):
        make_block_device(dev / name, minor)
    assert machine.ask("/dev/dm-0", "/dev/crypt") == "/dev/crypt"
    assert machine.ask("/dev/root", "/dev/crypt", number="254:17") == "/dev/crypt"
    assert machine.ask("/dev/dm-1", "/dev/crypt") == (
        "/dev/dm-1 (block device 254:18; /dev/crypt is block device 254:17)"
    )


def test_any_device_of_a_btrfs_is_its_root(machine: Machine) -> None:
    """A btrfs on two devices has one UUID, by which a label may name the other device; that holds for btrfs alone."""
    first, second = machine.add("sda1"), machine.add("sdb1", "disk/by-label/pool")
    machine.command("lsblk", LSBLK)
    for place in (first, second):
        Path(f"{place}.uuid").write_text("1f2e\n")
    name = "/dev/disk/by-label/pool"
    assert machine.ask("/dev/sda1[/root]", name, kind="btrfs").startswith("/dev/sda1[/root] (")
    for place, minor in ((first, 17), (second, 18)):
        place.unlink()
        make_block_device(place, minor)
    link = machine.root / name.lstrip("/")
    Path(f"{link}.uuid").write_text("1f2e\n")
    assert machine.ask("/dev/sda1[/root]", name, kind="btrfs") == name
    assert machine.ask("/dev/sda1", name, kind="ext4").startswith("/dev/sda1 (block device 254:17; ")


def test_wrong_root_device_names_both(machine: Machine) -> None:
    """The refusal of another machine has the site's name for the device, the kernel's, and what both stand for."""
    wanted = Identity("a" * 32, "nixos", "/dev/disk/by-label/other")
    seen = Identity("a" * 32, "nixos", machine.ask("/dev/vda2", wanted.root_device))
    with pytest.raises(
        WrongHost, match=r"expected root device /dev/disk/by-label/other, saw /dev/vda2 \(.*vdb1\)"
    ):
        nixos.require_identity(seen, wanted)


def test_rebuild_service_compares_devices_in_the_same_way() -> None:
    """The script that the host runs by itself holds the same functions as the scripts that muster sends."""
    assert nixos.ROOT_DEVICE_HELPER in REBUILD.read_text()
