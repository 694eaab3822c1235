"""Which known device a machine is, and where it deviates, on machines made of recorded files and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device import host
from edgekit.device.nvidia_smi import listed_gpus
from edgekit.device.probe import ProbedDevice, probe
from tests.device.recorded import (
    NVPMODEL_CONF,
    ORIN_NANO_COMPATIBLE,
    ORIN_NANO_MODEL,
    ORIN_NANO_SUPER_RELEASE,
    SMI_GB10,
    SMI_L4,
    SMI_NO_DRIVER,
    SMI_ORIN,
    THOR_COMPATIBLE,
    THOR_MODEL,
    THOR_RELEASE,
)

#: MemTotal of 7620 MiB, as the tegrastats line of that board has it.
MEMINFO = "MemTotal:        {} kB\nMemAvailable:    {} kB\n"


class Machine:
    """A root directory and the outputs of commands."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.outputs: dict[str, str] = {}
        monkeypatch.setattr(host, "output", lambda command: self.outputs.get(command[0]))

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    def only(self) -> ProbedDevice:
        (device,) = probe(self.root)
        return device


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.write({"proc/meminfo": MEMINFO.format(7620 * 1024, 6000 * 1024)})
    return made


@pytest.fixture
def orin_nano(machine: Machine) -> Machine:
    machine.write(
        {
            "etc/nv_tegra_release": ORIN_NANO_SUPER_RELEASE,
            "proc/device-tree/model": ORIN_NANO_MODEL,
            "proc/device-tree/compatible": ORIN_NANO_COMPATIBLE,
            "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        }
    )
    machine.outputs = {"nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n", "nvidia-smi": SMI_ORIN}
    return machine


def test_a_jetson_in_its_largest_mode(orin_nano: Machine) -> None:
    device = orin_nano.only()
    assert (device.kind, device.name) == ("jetson", "NVIDIA Orin Nano Developer Kit")
    assert device.profile is not None
    assert device.profile.name == "jetson-orin-nano-8gb"
    assert device.mode is not None
    assert device.mode.name == "MAXN_SUPER"
    assert device.deviations == ()
    assert device.facts["JetPack"] == "6.2"
    assert device.facts["memory"] == "7.4 GiB, 5.9 GiB available"


def test_a_lower_power_mode_is_told_with_what_it_costs(orin_nano: Machine) -> None:
    orin_nano.outputs["nvpmodel"] = "NV Power Mode: 15W\n0\n"
    orin_nano.write({"sys/class/devfreq/17000000.gpu/max_freq": "612000000\n"})
    device = orin_nano.only()
    assert device.mode is not None
    assert device.mode.watts == 15
    assert device.deviations == (
        "power mode 15W limits the GPU to 612 MHz of 1,020 MHz",
        "power mode 15W limits the memory to 68.3 GB/s of 102.4 GB/s",
    )


def test_fewer_sms_and_a_clock_below_the_mode(orin_nano: Machine) -> None:
    orin_nano.outputs["nvpmodel"] = "NV Power Mode: 7W\n3\n"
    orin_nano.write({"sys/class/devfreq/17000000.gpu/max_freq": "306000000\n"})
    deviations = orin_nano.only().deviations
    assert "power mode 7W powers 4 of 8 SMs" in deviations
    assert "the GPU is limited to 306 MHz; power mode 7W allows 408 MHz" in deviations


def test_a_mode_of_ones_own(orin_nano: Machine) -> None:
    orin_nano.outputs["nvpmodel"] = "NV Power Mode: RIMROCK_TOKENS\n3\n"
    device = orin_nano.only()
    assert device.mode is None
    assert "RIMROCK_TOKENS is not one that the profile knows" in device.deviations[0]
    assert "MAXN_SUPER" in device.deviations[0]


def test_nvpmodel_that_refuses_leaves_the_saved_mode_or_says_so(orin_nano: Machine) -> None:
    del orin_nano.outputs["nvpmodel"]
    assert "run it as root" in orin_nano.only().facts["power mode"]
    assert orin_nano.only().deviations == ()
    orin_nano.write({"etc/nvpmodel.conf": NVPMODEL_CONF, "var/lib/nvpmodel/status": "pmode:0000"})
    assert orin_nano.only().facts["power mode"] == "15W"


def test_a_module_with_other_memory(orin_nano: Machine) -> None:
    """The first AGX Orin developer kits: 16 SMs as the 64GB module, 32 GB of memory."""
    orin_nano.write(
        {
            "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,p3701-0000\0nvidia,tegra234",
            "proc/meminfo": MEMINFO.format(30697 * 1024, 20000 * 1024),
        }
    )
    orin_nano.outputs["nvpmodel"] = "NV Power Mode: MAXN\n0\n"
    device = orin_nano.only()
    assert device.profile is not None
    assert device.profile.name == "jetson-agx-orin-64gb"
    assert "memory is 30.0 GiB, the profile has 64.0 GiB" in device.deviations


def test_a_jetpack_that_the_profile_does_not_know(orin_nano: Machine) -> None:
    orin_nano.write({"etc/nv_tegra_release": "# R35 (release), REVISION: 3.1, GCID: 32827747\n"})
    (deviation,) = orin_nano.only().deviations
    assert "JetPack 5.1.1" in deviation
    assert "JetPack 7.2" in deviation


def test_thor_goes_by_its_module_even_where_its_driver_answers(machine: Machine) -> None:
    machine.write(
        {
            "etc/nv_tegra_release": THOR_RELEASE,
            "proc/device-tree/model": THOR_MODEL,
            "proc/device-tree/compatible": THOR_COMPATIBLE,
            "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
            "proc/meminfo": MEMINFO.format(125772 * 1024, 120000 * 1024),
        }
    )
    machine.outputs = {"nvpmodel": "NV Power Mode: 120W\n1\n", "nvidia-smi": "NVIDIA Thor, 11.0, [N/A], 580.00, , \n"}
    device = machine.only()
    assert device.profile is not None
    assert device.profile.name == "jetson-thor-t5000"
    assert device.facts["GPU clock limit"] == "1,575 MHz"
    assert device.deviations == ()


def test_an_unknown_jetson(machine: Machine) -> None:
    machine.write(
        {
            "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1\n",
            "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210",
        }
    )
    device = machine.only()
    assert device.profile is None
    assert device.facts["module"] == "p3448-0000"
    assert device.facts["JetPack"] == "unknown for this Jetson Linux"


def test_a_card(machine: Machine) -> None:
    machine.outputs = {"nvidia-smi": SMI_L4}
    device = machine.only()
    assert device.profile is not None
    assert device.profile.name == "l4"
    assert device.deviations == ()
    assert device.facts["memory"] == "22.5 GiB"
    assert device.facts["driver"] == "580.65.06"


def test_two_cards_and_a_lower_limit(machine: Machine) -> None:
    machine.outputs = {
        "nvidia-smi": SMI_L4.replace("72.00", "40.00") + "NVIDIA T4, 7.5, 15360, 580.65.06, 70.00, 1590\n"
    }
    first, second = probe(machine.root)
    assert first.deviations == ("the power limit is 40 W of 72 W",)
    assert (second.name, second.profile, second.deviations) == ("NVIDIA T4", None, ())


def test_a_card_whose_driver_disagrees_with_its_profile(machine: Machine) -> None:
    machine.outputs = {"nvidia-smi": "NVIDIA L4, 9.0, 12000, 580.65.06, 72.00, 2040\n"}
    deviations = machine.only().deviations
    assert "memory is 11.7 GiB, the profile has 24.0 GiB" in deviations
    assert "the driver gives compute capability 90, the profile 89" in deviations


def test_a_chip_that_shares_the_machines_memory(machine: Machine) -> None:
    machine.write({"proc/meminfo": MEMINFO.format(127601388, 27365908)})
    machine.outputs = {"nvidia-smi": SMI_GB10}
    device = machine.only()
    assert device.profile is not None
    assert device.profile.name == "dgx-spark"
    assert device.facts["memory"] == "121.7 GiB"
    assert device.facts["power limit"] == "not told"
    assert device.deviations == ()


@pytest.mark.parametrize("printed", [None, "", SMI_NO_DRIVER, "No devices were found\n", ",,,,,\n", "a,b\n"])
def test_no_card_is_a_cpu(machine: Machine, printed: str | None) -> None:
    machine.outputs = {} if printed is None else {"nvidia-smi": printed}
    device = machine.only()
    assert (device.kind, device.profile, device.deviations) == ("cpu", None, ())
    assert set(device.facts) == {"architecture", "usable cores", "memory"}


def test_lines_of_nvidia_smi() -> None:
    (gpu,) = listed_gpus("NVIDIA A10, [N/A], [Not Supported], 470.1, nan, -5\n")
    assert (gpu.name, gpu.driver) == ("NVIDIA A10", "470.1")
    assert (gpu.compute_capability, gpu.memory_bytes, gpu.power_limit_w, gpu.clock_limit_hz) == ("", None, None, None)
    (gpu,) = listed_gpus(SMI_L4)
    assert (gpu.compute_capability, gpu.memory_bytes, gpu.clock_limit_hz) == ("89", 23034 * 2**20, 2.04e9)
