"""AMD's GPUs as the kernel tells of them, read from a made-up tree of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest

from harness import amd, fitness_devices, nvml
from harness.absence import Absence
from harness.accelerators import Watch

GIB = 2**30
FILES = {
    "vendor": "0x1002",
    "device": "0x740f",
    "product_name": "AMD Instinct MI210",
    "unique_id": "a1b2c3d4e5f60718",
    "mem_info_vram_total": str(64 * GIB),
    "mem_info_vram_used": str(3 * GIB),
    "gpu_busy_percent": "42",
    "hwmon/hwmon7/power1_average": "187000000",
    "hwmon/hwmon7/temp1_input": "61000",
    "hwmon/hwmon7/freq1_input": "1700000000",
    "hwmon/hwmon7/freq2_input": "1600000000",
}


def card(root: Path, card: str = "card1", changes: Mapping[str, str | None] | None = None) -> Path:
    """The files of a card but for the changes; None leaves one out."""
    folder = root / "sys/class/drm" / card / "device"
    for file, text in {**FILES, **(changes or {})}.items():
        if text is not None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(f"{text}\n")
    return folder


def test_what_a_device_tells(tmp_path: Path) -> None:
    card(tmp_path)
    (probe,) = amd.probes(tmp_path)
    assert asdict(probe.device) == {
        "probe": "amdgpu",
        "name": "AMD Instinct MI210",
        "uuid_digest": sha256(b"a1b2c3d4e5f60718").hexdigest()[:16],
        "driver": "amdgpu of the kernel",
        "memory_bytes": 64 * GIB,
        "mig": None,
    }
    told = {name: value for name, value in asdict(probe.read()).items() if value is not None}
    assert told == {
        "memory_used_bytes": 3 * GIB,
        "utilisation": 0.42,
        "power_w": 187.0,
        "temperature_c": 61.0,
        "sm_clock_hz": 1.7e9,
        "memory_clock_hz": 1.6e9,
    }


def test_what_it_does_not_tell_is_absent(tmp_path: Path) -> None:
    without: dict[str, str | None] = dict.fromkeys(FILES)
    card(tmp_path, changes={**without, "vendor": "0x1002", "gpu_busy_percent": "N/A"})
    (probe,) = amd.probes(tmp_path)
    assert (probe.device.name, probe.device.uuid_digest) == ("AMD GPU unknown", "")
    assert all(value is None for value in asdict(probe.read()).values())


def test_newer_devices_tell_their_power_under_another_name(tmp_path: Path) -> None:
    names: dict[str, str | None] = {
        "hwmon/hwmon7/power1_average": None,
        "hwmon/hwmon7/power1_input": "90000000",
    }
    card(tmp_path, changes=names)
    assert amd.probes(tmp_path)[0].read().power_w == 90.0


def test_cards_of_others_and_their_plugs_are_no_amd_gpus(tmp_path: Path) -> None:
    card(tmp_path, "card0", {"vendor": "0x10de"})
    card(tmp_path, "card1-DP-1")
    assert amd.probes(tmp_path) == []


def test_a_watch_reads_it_like_any_other_until_it_is_lost(tmp_path: Path) -> None:
    folder = card(tmp_path)
    with Watch(amd.probes(tmp_path)[0], hz=1e-3) as watch:
        (folder / "vendor").unlink()
    found = watch.accelerator()
    assert found.before is not None
    assert (found.after, found.failure) == (None, "an AMD GPU that is gone")
    assert found.max_temperature_c == 61.0


@pytest.mark.parametrize("there", [True, False])
def test_the_doctor_says_that_no_cell_runs_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(nvml, "absence", lambda: Absence("no NVIDIA driver", "install it"))
    card(tmp_path, changes={"vendor": "0x1002" if there else "0x10de"})
    found = amd.probes(tmp_path)
    monkeypatch.setattr(amd, "probes", lambda: found)
    told = [check for check in fitness_devices.examine("gpu").wanted if check.name == "AMD GPU"]
    assert [(check.found, check.fit) for check in told] == (
        [("AMD Instinct MI210", None)] if there else []
    )


def test_devices_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        place = tmp_path / f"sys/class/drm/card{number}/device"
        place.mkdir(parents=True)
        (place / "vendor").write_text("0x1002\n")
        (place / "product_name").write_text(f"card {number}\n")
    assert [probe.device.name for probe in amd.probes(tmp_path)] == ["card 0", "card 2", "card 10"]
