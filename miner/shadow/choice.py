"""Which second model the settings name, and where what it finds is counted."""

from miner.metrics import Metrics
from miner.scheduler import Scheduler
from miner.settings import AUTO, REMOTE, Settings
from miner.shadow.shadow import Job, Shadow


def make_shadow(settings: Settings, scheduler: Scheduler, metrics: Metrics) -> Shadow | None:
    """Return a shadow that gives way to this queue; None when none is wanted."""
    if not settings.shadow_detector_config or not settings.shadow_sample:
        return None

    def scored(probability: float, seconds: float) -> None:
        metrics.shadow_predictions.observe(probability)
        metrics.shadow_seconds.observe(seconds)

    shadow = Shadow(
        job_of(settings), settings.shadow_sample, lambda: bool(scheduler.waiting + scheduler.running), scored
    )
    scheduler.admitted = shadow.hold
    tally = shadow.tally
    metrics.shadow_up.set_function(lambda: shadow.name is not None)
    metrics.shadow_compared.set_function(lambda: tally.same, "same")
    metrics.shadow_compared.set_function(lambda: tally.different, "different")
    metrics.shadow_compared.set_function(lambda: tally.failed, "failed")
    return shadow


def job_of(settings: Settings) -> Job:
    """Return the second model, run as the first one is, but on this machine."""
    backend, precision = settings.image_detector_backend, settings.image_detector_precision
    return Job(
        detector=settings.shadow_detector or settings.image_detector,
        config=settings.shadow_detector_config,
        models_dir=str(settings.models_dir),
        backend="onnx" if backend in (AUTO, REMOTE) else backend,
        precision="fp32" if precision == AUTO else precision,
    )
