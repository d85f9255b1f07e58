"""The errors of detectors and models, from a picture's bytes to its probability.

DetectorError
├── DetectorConfigError   a YAML file or a name in it is wrong
│   └── NoConfig          there is no such YAML file
├── ModelError            a model can't be loaded, verified or exported
│   ├── NotPrepared       its folder is not there yet: `roadwork-miner models download` makes it
│   └── ModelFileError    what one of its files says is wrong; a DetectorConfigError too
├── ImageError            the bytes are not a picture that may be opened
├── InferenceError        the model answered with something that is not a probability
└── EngineError           the graph runs elsewhere, and no answer came from there
    ├── NoEndpoint        nothing there is fit to be asked
    └── OutOfTime         the request's deadline came first
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

MOST_WORDS = 300  # characters of a library's own message


class DetectorError(Exception):
    """The root of the tree."""


class DetectorConfigError(DetectorError):
    """A detector's YAML file is missing or wrong."""


class NoConfig(DetectorConfigError):
    """There is no YAML file of this name."""


class ModelError(DetectorError):
    """A model can't be loaded, verified or exported."""


class NotPrepared(ModelError):
    """The exported model is not on this disk yet."""


class ModelFileError(DetectorConfigError, ModelError):
    """A file that came with a model, such as its config.json, says what it may not: a configuration to be mended."""


class ImageError(DetectorError):
    """The bytes are not a picture that may be opened."""


class InferenceError(DetectorError):
    """The model answered with something that is not a probability."""


class EngineError(DetectorError):
    """The graph runs elsewhere, and no answer came from there: the engine's fault, not the picture's or ours."""


class NoEndpoint(EngineError):
    """No endpoint is fit to be asked."""


class OutOfTime(EngineError):
    """The request's deadline came before the engine's answer."""


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put what is meant, such as `teacher=a.yaml`, before the words of an error about it.

    Raises:
        DetectorConfigError: the configuration is wrong.
        ModelError: anything else is wrong with a model.
    """
    try:
        yield
    except DetectorConfigError as error:
        raise DetectorConfigError(f"{what}: {error}") from error
    except DetectorError as error:
        raise ModelError(f"{what}: {error}") from error


@contextmanager
def library_errors(doing: str, way_out: str) -> Iterator[None]:
    """Turn whatever a library raises into one line: what was done, its own words, and what can be done about it.

    Libraries of models share no class of errors. Ours pass, and so do a package that is missing and a disk's own
    errors, which others tell better.

    Raises:
        ModelError: the library raised something.
    """
    try:
        yield
    except (DetectorError, ModuleNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        log.debug("%s", doing, exc_info=error)
        raise ModelError(f"{doing}: {in_one_line(error)}; {way_out}") from error


def in_one_line(error: BaseException) -> str:
    """Return an error's own words on one line, its class first where the words alone say little, as a KeyError's do."""
    words = " ".join(str(error).split())
    if len(words) > MOST_WORDS:
        words = words[:MOST_WORDS].rsplit(" ", 1)[0] + " …"
    plain = isinstance(error, OSError | ValueError | RuntimeError) and " " in words
    return words if plain else f"{type(error).__name__}: {words}" if words else type(error).__name__
