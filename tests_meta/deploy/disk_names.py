"""A host whose kernel calls the root device by another name than its configuration, as on most NixOS machines."""

from __future__ import annotations

from pathlib import Path

from fixtures.rehearsal.host.layout import ROOT_DEVICE
from fixtures.rehearsal.settings import WorldSettings

KERNELS_NAME = "/dev/vda2[/root]"


def mount_by_kernels_name(settings: WorldSettings, site: Path) -> None:
    """From now on findmnt prints the kernel's name, as does the site file; the flake keeps the label."""
    findmnt = settings.host_dir / "bin" / "findmnt"
    for file in (findmnt, site):
        text = file.read_text()
        assert ROOT_DEVICE in text
        new = text.replace(f"echo {ROOT_DEVICE}", f'echo "{KERNELS_NAME}"')
        file.write_text(new.replace(f'root_device = "{ROOT_DEVICE}"', f'root_device = "{KERNELS_NAME}"'))
