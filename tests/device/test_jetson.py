"""What a Jetson's files say, on recorded and on broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device.jetson import JETPACKS, jetson, linux_release, modules, power_mode
from tests.device.recorded import (
    AGX_ORIN_RELEASE,
    NVPMODEL_25W_VERBOSE,
    NVPMODEL_CONF,
    NVPMODEL_THOR,
    NVPMODEL_XAVIER,
    ORIN_NANO_COMPATIBLE,
    ORIN_NANO_MODEL,
    ORIN_NANO_RELEASE,
    ORIN_NANO_SUPER_RELEASE,
    THOR_COMPATIBLE,
    THOR_RELEASE,
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "release", "jetpack"),
    [
        (ORIN_NANO_RELEASE, "35.3.1", "5.1.1"),  # the report itself says Jetpack 5.1.1
        (ORIN_NANO_SUPER_RELEASE, "36.4.3", "6.2"),
        (THOR_RELEASE, "38.2.0", "7.0"),
        (AGX_ORIN_RELEASE, "39.2.0", "7.2"),
        ("# R36 (release), REVISION: 5, GCID: 1\n", "36.5.0", "6.2.2"),
        ("", "", None),
        ("# R36 (rel", "", None),
        ("R36.4.3", "", None),
    ],
)
def test_release(text: str, release: str, jetpack: str | None) -> None:
    assert linux_release(text) == release
    assert JETPACKS.get(release) == jetpack


@pytest.mark.parametrize(
    ("compatible", "expected"),
    [
        (ORIN_NANO_COMPATIBLE, ("p3767-0003", "p3767-0005")),  # not the carrier board p3768-0000
        (THOR_COMPATIBLE, ("p3834-0008",)),
        ("nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234", ("p3767-0005",)),
        ("nvidia,tegra234", ()),
        ("", ()),
        ("\0\0", ()),
    ],
)
def test_modules(compatible: str, expected: tuple[str, ...]) -> None:
    assert modules(compatible) == expected


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (NVPMODEL_THOR, "120W"),
        (NVPMODEL_XAVIER, "MAXN"),
        (NVPMODEL_25W_VERBOSE, "25W"),
        ("NVPM ERROR: Error opening /sys/kernel/nvpmodel_emc_cap/emc_iso_cap: 13\n", ""),
        ("NV Power Mode: \n", ""),
        ("", ""),
    ],
)
def test_power_mode(text: str, mode: str) -> None:
    assert power_mode(text) == mode


def test_a_whole_board(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "etc/nv_tegra_release": ORIN_NANO_SUPER_RELEASE,
            "proc/device-tree/model": ORIN_NANO_MODEL,
            "proc/device-tree/compatible": ORIN_NANO_COMPATIBLE,
            "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
        },
    )
    board = jetson(root, NVPMODEL_25W_VERBOSE)
    assert board is not None
    assert board.model == "NVIDIA Orin Nano Developer Kit"
    assert (board.linux, board.jetpack, board.power_mode) == ("36.4.3", "6.2", "25W")
    assert board.gpu_clock_limit_hz == 918e6


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0002", "MAXN_SUPER"), ("pmode:0000", "15W"), ("pmode:0007", ""), ("", "")]
)
def test_without_nvpmodel_the_saved_mode_is_read(tmp_path: Path, status: str, mode: str) -> None:
    files = {"etc/nv_tegra_release": ORIN_NANO_SUPER_RELEASE, "etc/nvpmodel.conf": NVPMODEL_CONF}
    root = write(tmp_path, files | {"var/lib/nvpmodel/status": status})
    board = jetson(root)
    assert board is not None
    assert board.power_mode == mode


def test_what_is_not_there_stays_unknown(tmp_path: Path) -> None:
    root = write(tmp_path, {"etc/nv_tegra_release": "# R99 (release), REVISION: 1.0\n"})
    write(root, {"sys/class/devfreq/17000000.gpu/max_freq": "<error>"})
    board = jetson(root, "garbage")
    assert board is not None
    assert (board.model, board.modules, board.linux, board.jetpack) == ("", (), "99.1.0", "")
    assert (board.power_mode, board.gpu_clock_limit_hz) == ("", None)


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None
    write(tmp_path, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712"})
    assert jetson(tmp_path) is None
