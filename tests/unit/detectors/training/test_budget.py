"""What a training takes of the machine."""

from dataclasses import replace

import pytest

from detectors.training.budget import (
    GB,
    Machine,
    MachineReading,
    advice,
    fewer,
    first_micro_batch,
    is_out_of_memory,
    loader_workers,
)


@pytest.mark.parametrize(
    ("available", "full", "size"),
    [(5, False, 4), (8, False, 8), (15, False, 8), (16, False, 16), (64, False, 16), (5, True, 2), (20, True, 8)],
)
def test_the_first_micro_batch_follows_from_the_memory_that_is_available(
    available: float, full: bool, size: int
) -> None:
    assert first_micro_batch(available * GB, 32, full=full) == size
    assert first_micro_batch(available * GB, 3, full=full) == min(3, size)


@pytest.mark.parametrize(
    ("growth", "available", "size"),
    [
        pytest.param(0, 0.5, 8, id="it takes no more than it has"),
        pytest.param(2, 8, 8, id="it fits"),
        pytest.param(2, 3, 4, id="it would touch the reserve"),
        pytest.param(2, 0.7, 2, id="a quarter fits"),
        pytest.param(2, 0.1, 1, id="hardly one does"),
    ],
)
def test_as_many_photos_as_fit_into_what_is_available(growth: float, available: float, size: int) -> None:
    assert fewer(8, growth * GB, MachineReading(resident=GB, available=available * GB, memory=16 * GB)) == size


@pytest.mark.parametrize(
    ("cores", "load", "step", "workers"), [(4, 1, 1, 2), (64, 1, 1, 2), (2, 1, 1, 1), (1, 1, 1, 0), (4, 0.05, 1, 0)]
)
def test_photos_are_loaded_by_processes_only_where_that_pays(
    cores: int, load: float, step: float, workers: int
) -> None:
    assert loader_workers(cores, load, step) == workers


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("alloc_cpu.cpp:127: DefaultCPUAllocator: can't allocate memory: …"), True),
        (RuntimeError("could not create a primitive"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_a_failed_allocation_is_known_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_advice_names_what_is_short_and_nothing_else() -> None:
    calm = MachineReading(resident=2 * GB, available=8 * GB, memory=16 * GB)
    assert advice(calm, calm, seconds=5, waiting=0.1) == []
    starved = MachineReading(resident=15 * GB, available=1 * GB, memory=16 * GB, swapped_out=GB, throttled=2)
    words = " ".join(advice(calm, starved, seconds=5, waiting=0.4))
    for sign in ("swapping", "94% of the memory", "40% of the time", "CPU quota"):
        assert sign in words


@pytest.mark.parametrize(
    ("idle", "throttled", "says"),
    [(5.0, 0.0, "workers"), (0.5, 0.0, "smaller photos"), (5.0, 2.0, "smaller photos")],
)
def test_more_loader_processes_are_advised_where_cores_are_idle_alone(idle: float, throttled: float, says: str) -> None:
    before = MachineReading(resident=2 * GB, available=8 * GB, memory=16 * GB)
    now = replace(before, idle=idle, throttled=throttled)
    words = advice(before, now, seconds=5, waiting=0.4)[0]
    assert says in words
    assert ("workers" in words) == (says == "workers")


def test_a_machine_says_what_it_has() -> None:
    machine = Machine(4, 3.5, 16 * GB, 12 * GB, "AMD EPYC", frozenset({"avx2", "avx512_bf16", "fpu"}))
    for part in ("AMD EPYC (avx2, avx512_bf16)", "4 cores", "3.5", "12.0 of 16.0 GB"):
        assert part in str(machine)
    assert machine.has_bf16
