"""Which second model the settings name, and whether it is not the first."""

import contextlib

from detectors.errors import DetectorConfigError, DetectorError
from detectors.models.config import find_config
from miner.inference.plans import measured_backend
from miner.settings.settings import AUTO, REMOTE, Settings
from miner.shadow.shadow import Job


def job_of(settings: Settings) -> Job | None:
    """Return the second model, run as the first one is, but on this machine; None when none is wanted."""
    if not settings.shadow_detector_config or not settings.shadow_sample:
        return None
    backend, precision = settings.image_detector_backend, settings.image_detector_precision
    measured = None
    with contextlib.suppress(DetectorError):  # loading will say it
        measured = measured_backend(settings, settings.shadow_detector_config)
    return Job(
        detector=settings.shadow_detector or settings.image_detector,
        config=settings.shadow_detector_config,
        models_dir=str(settings.models_dir),
        backend=measured or ("onnx" if backend in (AUTO, REMOTE) else backend),
        precision="fp32" if precision == AUTO else precision,
    )


def is_served(job: Job, settings: Settings) -> bool:
    """Return whether the second model is the first one."""
    try:
        places = find_config(job.config), find_config(settings.detector_config)
    except DetectorConfigError:
        return False
    return job.detector == settings.image_detector and places[0] == places[1]
