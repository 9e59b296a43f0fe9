"""What the kernel's driver amdgpu tells of AMD's GPUs, as probes like those of NVIDIA's.

Source: "GPU Power/Thermal Controls and Monitoring" in the kernel's documentation of the driver. No
cell runs on such a device, and no figure here was ever seen on one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from harness.accelerators import Probe
from harness.environment import digest
from harness.schema import Device, DeviceReading

VENDOR = "0x1002"


def probes(root: Path = Path("/")) -> list[Probe]:
    """One for each of them, in the kernel's order; `root` is where the folder `sys` is."""
    # Outputs of a card, such as card0-DP-1, are no cards.
    cards = {
        int(number): folder
        for folder in (root / "sys/class/drm").glob("card[0-9]*/device")
        if (number := folder.parent.name.removeprefix("card")).isdigit()
    }
    return [
        Probe(device(folder), partial(reading, folder))
        for _, folder in sorted(cards.items())
        if _text(folder / "vendor") == VENDOR
    ]


def device(folder: Path) -> Device:
    """What stays the same of one."""
    number = _text(folder / "device") or "unknown"
    identifier = _text(folder / "unique_id")
    return Device(
        probe="amdgpu",
        name=_text(folder / "product_name") or f"AMD GPU {number}",
        # The identifier itself would tell this machine from all others.
        uuid_digest=digest(identifier) if identifier else "",
        driver=_text(folder / "driver/module/version") or "amdgpu of the kernel",
        memory_bytes=_number(folder / "mem_info_vram_total"),
        mig=None,
    )


def reading(folder: Path) -> DeviceReading:
    """The device at this moment; the driver tells of no process. Raises OSError when it is lost."""
    if not (folder / "vendor").is_file():
        raise OSError("an AMD GPU that is gone")
    sensors = next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder)
    busy = _number(folder / "gpu_busy_percent")
    power = _number(sensors / "power1_average")
    if power is None:  # as newer devices call it
        power = _number(sensors / "power1_input")
    return DeviceReading(
        memory_used_bytes=_number(folder / "mem_info_vram_used"),
        utilisation=None if busy is None else busy / 100,
        power_w=_scaled(power, 1e-6),
        temperature_c=_scaled(_number(sensors / "temp1_input"), 1e-3),
        sm_clock_hz=_scaled(_number(sensors / "freq1_input"), 1.0),
        memory_clock_hz=_scaled(_number(sensors / "freq2_input"), 1.0),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit
