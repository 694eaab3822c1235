"""What machines printed, as found in public reports; each with its source."""

from __future__ import annotations

#: https://github.com/rbonghi/jetson_stats/issues/400
ORIN_NANO_RELEASE = (
    "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, EABI: aarch64, "
    "DATE: Sun Mar 19 15:19:21 UTC 2023\n"
)
ORIN_NANO_MODEL = "NVIDIA Orin Nano Developer Kit\0"
#: The same; the report shows the entries without the NUL between them.
ORIN_NANO_COMPATIBLE = "\0".join(
    (
        "nvidia,p3768-0000+p3767-0003",
        "nvidia,p3768-0000+p3767-0005",
        "nvidia,p3767-0003",
        "nvidia,p3767-0005",
        "nvidia,tegra234",
        "nvidia,tegra23x",
    )
)
#: https://github.com/rbonghi/jetson_stats/issues/711
THOR_RELEASE = (
    "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, "
    "DATE: Fri Aug 22 00:55:42 UTC 2025\n"
)
THOR_MODEL = "NVIDIA Jetson AGX Thor Developer Kit\0"
THOR_COMPATIBLE = "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0"
#: https://github.com/rbonghi/jetson_stats/issues/864
AGX_ORIN_RELEASE = (
    "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun  1 09:28:48 PM UTC 2026\n"
)
#: A preflight report of an Orin Nano Super, 2026-06-21, on GitHub ("Jetson Preflight Report").
ORIN_NANO_SUPER_RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
    "# KERNEL_VARIANT: oot\n"
    "TARGET_USERSPACE_LIB_DIR=nvidia\n"
    "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
NVPMODEL_25W_VERBOSE = (
    "NVPM VERB: Config file: /etc/nvpmodel.conf\n"
    "NVPM VERB: parsing done for /etc/nvpmodel.conf\n"
    "NVPM VERB: Current mode: NV Power Mode: 25W\n"
    "1\n"
    "NVPM VERB: PARAM CPU_ONLINE: ARG CORE_0: PATH /sys/devices/system/cpu/cpu0/online: REAL_VAL: 1 CONF_VAL: 1\n"
)
#: README of an AGX Thor deployment on GitHub, and the tests of bench2field, whose capture is this.
NVPMODEL_THOR = "NV Power Mode: 120W\n1\n"
#: A note on the clocks of AGX Xavier on GitHub ("GPU max performance setup").
NVPMODEL_XAVIER = "NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n"
#: nvpmodel_p3767_0003_super.conf of NVIDIA, the mode lines:
#: https://github.com/LineageOS/android_device_nvidia_concord/tree/lineage-23.0/nvpmodel
NVPMODEL_CONF = (
    "# < POWER_MODEL ID=id_num NAME=mode_name >\n"
    "< PARAM TYPE=CLOCK NAME=GPU >\n"
    "MAX_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq\n\n"
    "< POWER_MODEL ID=0 NAME=15W >\nGPU MAX_FREQ 612000000\nEMC MAX_FREQ 2133000000\n\n"
    "< POWER_MODEL ID=1 NAME=25W >\nGPU MAX_FREQ 918000000\nEMC MAX_FREQ 3199000000\n\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\nGPU MAX_FREQ -1\nEMC MAX_FREQ -1\n\n"
    "< PM_CONFIG DEFAULT=1 >\n"
)

#: tegrastats of Orin Nano (JetPack 6, idle, 01-04-2025) and Orin NX (JetPack 6.2, idle, 07-16-2026): logs on GitHub.
TEGRASTATS_ORIN_NANO = (
    "01-04-2025 16:02:59 RAM 1273/7620MB (lfb 1x4MB) SWAP 286/3810MB (cached 1MB) "
    "CPU [0%@1036,0%@1036,1%@1036,0%@1036,0%@729,0%@729] GR3D_FREQ 0% cpu@45.875C soc2@45.843C soc0@44.843C "
    "gpu@45.437C tj@46.312C soc1@46.312C VDD_IN 4968mW/4968mW VDD_CPU_GPU_CV 436mW/436mW VDD_SOC 1708mW/1708mW"
)
#: Orin NX under load, 10-04-2026, with the clock of its one cluster in brackets.
TEGRASTATS_ORIN_NX = (
    "10-04-2026 10:02:18 RAM 5997/15656MB (lfb 50x1MB) CPU [0%@1984] EMC_FREQ 2%@3199 GR3D_FREQ 27%@[1172] "
    "gpu@59.625C cpu@62.593C tj@62.593C"
)
#: AGX Orin with Jetson Linux 39 (2026-08-26): no rail is the whole module.
TEGRASTATS_AGX_ORIN = (
    "RAM 5530/62841MB (lfb 13106x4MB) SWAP 16/31420MB (cached 8MB) CPU [3%@729,off,12%@1190,0%@729] "
    "EMC_FREQ 7%@2133 GR3D_FREQ 18%@[612,611] NVENC off NVDEC off VIC_FREQ 0%@115 cpu@42.312C soc2@40.5C tj@43C "
    "VDD_GPU_SOC 3123mW/3000mW VDD_CPU_CV 1456mW/1300mW VIN_SYS_5V0 2876mW/2800mW VDDQ_VDD2_1V8AO 343mW/340mW"
)
#: Thor with JetPack 7 (08-07-2026): no GR3D_FREQ.
TEGRASTATS_THOR = (
    "08-07-2026 17:50:34 RAM 42435/125772MB (lfb 5x4MB) CPU [7%@972] cpu@52.906C tj@56.906C gpu@56.5C "
    "VDD_GPU 36196mW/36393mW VIN 68862mW/56658mW"
)

#: `nvidia-smi --query-gpu=...`, put together from public reports: L4, 0MiB / 23034MiB and 72 W with driver 580.65.06;
#: GB10, whose driver gives no memory ("NVIDIA GB10, 12.1, [N/A], 580.159.03").
SMI_L4 = "NVIDIA L4, 8.9, 23034, 580.65.06, 72.00, 2040\n"
SMI_GB10 = "NVIDIA GB10, 12.1, [N/A], 580.159.03, [N/A], 3003\n"
#: The GPU of a Jetson with JetPack 6, "Orin (nvgpu)" with nothing else to tell.
SMI_ORIN = "Orin (nvgpu), [N/A], [N/A], 540.4.0, [N/A], [N/A]\n"
SMI_NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
