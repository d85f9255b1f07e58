"""What can go wrong between a picture and its probability.

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
