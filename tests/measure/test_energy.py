"""Joules that a machine counts, from counters made up under a temporary folder."""

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hagane import folder
from hagane.folder import Clock
from hagane.measure import energy, machine
from hagane.measure.energy import Counter, Part, find_counter, package_counter
from hagane.train.stage import _joules_before

MOST = 262_143_328_850  # of a usual package, microjoules


def package(powercap: Path, number: str, name: str, microjoules: int) -> Path:
    made = powercap / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", MOST)):
        (made / file).write_text(f"{value}\n")
    return made / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    first, second = package(tmp_path, "0", "package-0", 5_000_000), package(tmp_path, "1", "package-1", 1_000_000)
    others = [package(tmp_path, "0:0", "dram", 0), package(tmp_path, "2", "psys", 0)]
    counter, source = package_counter(tmp_path)
    assert source == "counter of package-0, package-1 (RAPL)"
    assert counter.joules() == 0
    for path, value in ((first, 6_500_000), (second, 1_250_000), *((other, 9_000_000) for other in others)):
        path.write_text(str(value))
    assert counter.joules() == pytest.approx(1.75)


def test_a_counter_that_starts_again_from_zero_goes_on(tmp_path):
    path = package(tmp_path, "0", "package-0", MOST - 2_000_000)
    counter, _ = package_counter(tmp_path)
    for value in (MOST - 500_000, 1_000_000, 4_000_000):
        path.write_text(str(value))
        last = counter.joules()
    assert last == pytest.approx(6.0)


def test_a_counter_that_breaks_says_nothing_from_then_on(tmp_path):
    path = package(tmp_path, "0", "package-0", 0)
    counter, _ = package_counter(tmp_path)
    path.unlink()
    assert counter.joules() is None
    path.write_text("7")
    assert counter.joules() is None


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    assert package_counter(tmp_path / "none") == (None, f"no counter of energy was found in {tmp_path / 'none'}")
    path = package(tmp_path, "0", "package-0", 0)
    read = Path.read_text

    def for_root_alone(self, *arguments, **named):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", for_root_alone)  # the tests may be root's
    assert package_counter(tmp_path) == (None, f"the counter of energy may not be read: no permission for {path}")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    watts, source = machine.power("cpu", find_counter("cpu")[1])
    assert watts > 15 and source.endswith(f"W per core; the counter of energy may not be read: no permission for {path}")


class Nvml:
    """NVML's library with one GPU that has used `millijoules`."""

    def __init__(self, status: int = 0) -> None:
        self.millijoules, self.status = 1_000, status
        self.asked: list[object] = []

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle) -> int:  # noqa: N802
        self.asked.append(index.value)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle) -> int:  # noqa: N802
        self.asked.append(uuid)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, total) -> int:  # noqa: N802
        total._obj.value = self.millijoules
        return self.status


def test_the_gpu_that_this_process_sees_is_counted(monkeypatch):
    library = Nvml()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    counter, source = find_counter("cuda")
    library.millijoules += 2_500
    assert (counter.joules(), source, library.asked) == (2.5, "counter of the GPU (NVML)", [3])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f3c")
    assert find_counter("cuda")[0] is not None and library.asked[-1] == b"GPU-8f3c"
    library.status = 3
    assert find_counter("cuda") == (None, "the GPU has no counter of energy: NVML answers 3")


def test_a_run_counts_over_its_attempts_and_a_stage_from_its_first(tmp_path, monkeypatch):
    used = [0.0]
    monkeypatch.setattr(folder, "find_counter", lambda device: (Counter([Part(lambda: used[0])], "counter"), "counter"))
    path = tmp_path / "clock.json"

    def attempt(joules: float, then) -> Clock:
        clock = Clock(path, 0.0)
        clock.start()
        used[0] += joules
        then(clock)
        clock.stop()
        return clock

    attempt(10.0, lambda clock: _joules_before(SimpleNamespace(clock=clock), tmp_path))
    used[0] += 100.0  # between attempts
    second = attempt(5.0, lambda clock: None)
    assert second.joules() == second.spent_joules() == 15.0
    assert _joules_before(SimpleNamespace(clock=second), tmp_path) == 10.0
    third = attempt(1.0, lambda clock: clock.restart())
    assert (third.joules(), third.spent_joules()) == (16.0, 1.0)
    monkeypatch.setattr(folder, "find_counter", lambda device: (None, "none"))
    assert attempt(1.0, lambda clock: None).joules() is None
    assert json.loads(path.read_text())["joules"] is None


def test_clocks_of_earlier_versions_count_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "find_counter", lambda device: (Counter([Part(lambda: 0.0)], "counter"), "counter"))
    (tmp_path / "clock.json").write_text('{"seconds": 3.0, "origin": 0.0, "attempts": 1}')
    clock = Clock(tmp_path / "clock.json", 0.0)
    clock.start()
    clock.stop()
    assert clock.joules() is None and clock.spent_joules() is None
