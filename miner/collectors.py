"""Metrics that are kept elsewhere, and read when they are scraped."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detectors.machine import Memory, Throttling

PREFIX = "roadwork_miner_"


class KeptCount(Collector):
    """A counter that is kept elsewhere, read at the scrape; with a label, one for each of its values."""

    def __init__(self, name: str, text: str, label: str = "", values: tuple[str, ...] = ("",)) -> None:
        self._name = name
        self._text = text
        self._labels = (label,) if label else ()
        self._reads: dict[str, Callable[[], float]] = dict.fromkeys(values, lambda: 0.0)

    def set_function(self, read: Callable[[], float], value: str = "") -> None:
        """Read it there from now on."""
        self._reads[value] = read

    def collect(self) -> Iterator[Metric]:
        """Yield its values."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for value, read in self._reads.items():
            family.add_metric((value,) if self._labels else (), read())
        yield family


class Facts(Collector):
    """Ones whose labels say what is the case, read at the scrape: what was the case before is then gone."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._reads: list[Callable[[], tuple[str, ...]]] = []

    def add(self, read: Callable[[], tuple[str, ...]]) -> None:
        """Have one more, whose labels are read there."""
        self._reads.append(read)

    def collect(self) -> Iterator[Metric]:
        """Yield all of them."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for read in self._reads:
            family.add_metric(read(), 1)
        yield family


class MachineCollector(Collector):
    """What the kernel counts, read at the scrape."""

    def __init__(self, memory: Callable[[], Memory], throttling: Callable[[], Throttling]) -> None:
        self._memory = memory
        self._throttling = throttling

    def collect(self) -> Iterator[Metric]:
        """Yield memory and throttling."""
        memory, throttling = self._memory(), self._throttling()
        family = GaugeMetricFamily(
            PREFIX + "memory_bytes", "Memory of this process, its cgroup and the machine.", labels=("kind",)
        )
        for kind in Memory.__slots__:
            family.add_metric((kind,), getattr(memory, kind))
        yield family
        for name, text, value in (
            ("cpu_periods", "Scheduler periods under the cgroup's CPU quota.", throttling.periods),
            ("cpu_throttled_periods", "Periods that ran into the quota.", throttling.throttled),
            ("cpu_throttled_seconds", "Time the cgroup's tasks were held back.", throttling.seconds),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value=value)
