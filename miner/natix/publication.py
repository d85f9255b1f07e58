"""The published model: a run or a folder comes in, a repository's files go out, and nothing else of this machine.

NATIX wants a model on the hub with a `model_card.json` that names the hotkey and the version (their docs/Mining.md).
"""

import json
import re
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.errors import DetectorError
from detectors.models.checkpoint import inspect, weight_files, weight_names
from detectors.models.documents import read_json, read_yaml, shown
from detectors.models.hf_config import (
    CONFIG_FILE,
    NOTICE_FILE,
    PROCESSOR_FILE,
    PROCESSORS_FILE,
    ModelConfig,
    ProcessorConfig,
)
from detectors.models.manifest import NAME as MANIFEST_FILE
from detectors.photos.view_head import HEAD_FILE, ViewHead
from miner.errors import ConfigurationError
from miner.settings.env_file import SECRET_WORDS

NATIX_CARD, README = "model_card.json", "README.md"
FIRST_VERSION = "1.0.0"
VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", re.ASCII)
# A training's folder (detectors/training/README.md).
RESULTS_FILE, RUN_CONFIG, RUN_MODEL, RUN_YOLO = "results.json", "config.yaml", "model", "model.pt"
PICKLED = "pytorch_model.bin"
MADE_BY = "<!-- made by roadwork-miner publish -->"  # a README.md without it is somebody's own
PARTS = {"val": "validation", "test": "test (kept back from everything)"}
# Folders of whoever made it, and of disks that were hung in.
PLACES = re.compile(rb"(?:/(?:home|root|Users|mnt|media|srv|scratch|Volumes)/|[A-Z]:\\+Users\\+)[^\x00-\x1f\"']{0,80}")
TOKENS = re.compile(  # of the hub, GitHub, GitLab, OpenAI and others, AWS, Slack; a private key
    rb"hf_[A-Za-z0-9]{30,}|github_pat_\w{4,}|gh[opsur]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}|(?<![A-Za-z0-9])sk-[\w-]{20,}"
    rb"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
DIGITS = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")  # as keys of Weights & Biases are written
STORED = re.compile(r"[^/]+/data/\d+")  # numbers of a network, in a file as torch saves it
PICKLE = re.compile(r"[^/]+/data\.pkl")  # and its objects
MAX_MEMBER_BYTES = 2**26  # of what else is in there
OF_THE_MACHINE = ("_name_or_path", "name_or_path", "_commit_hash")  # keys that transformers writes, and nobody needs


class NatixCard(BaseModel):
    """`model_card.json` as NATIX reads it; more keys are passed over."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_name: str
    description: str
    version: str = Field(pattern=f"^(?:{VERSION.pattern})$")
    submitted_by: str
    submission_time: int


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A model on this disk, as it would be published: the files that are the model, and what was measured of it."""

    folder: Path
    is_yolo: bool
    weights: Mapping[str, Path]  # by their names in the repository
    documents: Mapping[str, bytes]
    figures: Mapping[str, Mapping[str, Any]]  # by the part of the photos
    base: str = ""  # the repository that it learnt from
    head: str = ""  # the views of a picture that its head judges together, in words


def find_model(path: Path) -> OwnModel:
    """Return the model of a training run, of a Hugging Face folder, or of a YOLO's .pt file.

    Raises:
        ConfigurationError: it is none of these, or it may not be given away as it is.
    """
    try:
        found = _find(path)
        told = next(_private(found, path), None)
    except DetectorError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror or error}") from error
    if told is not None:
        name, private = told
        raise ConfigurationError(
            f"{path}: {name} holds {private}, which is nobody else's business: take it out, and publish again"
        )
    return found


def _find(path: Path) -> OwnModel:
    if path.is_file() and path.suffix == ".pt":
        return OwnModel(path.parent, True, {path.name: path}, {}, {})
    if not path.is_dir():
        raise ConfigurationError(f"{path}: a training's folder, a Hugging Face folder or a .pt file is needed")
    if (path / RUN_CONFIG).is_file() and not (path / CONFIG_FILE).is_file():
        return _find_in_run(path)
    if (path / MANIFEST_FILE).is_file():
        raise ConfigurationError(
            f"{path}: an exported folder, which NATIX can't read: publish the training's folder, or the weights that "
            "it was exported from"
        )
    if (path / CONFIG_FILE).is_file():
        return _hugging_face(path, {}, "")
    raise ConfigurationError(f"{path}: no {CONFIG_FILE} of a model, nor {RUN_CONFIG} of a training, is in there")


def _find_in_run(run: Path) -> OwnModel:
    if not (run / RESULTS_FILE).is_file():
        raise ConfigurationError(f"{run}: this training has not ended; roadwork-miner train --resume {run} goes on")
    figures = read_json(run / RESULTS_FILE).get("figures")
    figures = figures if isinstance(figures, dict) else {}
    figures = {part: row for part, row in figures.items() if isinstance(row, dict)}
    if (run / RUN_YOLO).is_file():
        return OwnModel(run, True, {RUN_YOLO: run / RUN_YOLO}, {}, figures)
    base = str(read_yaml(run / RUN_CONFIG).get("model", ""))
    is_repository = re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not base.startswith(".")
    return _hugging_face(run / RUN_MODEL, figures, base if is_repository else "")


def _hugging_face(folder: Path, figures: Mapping[str, Mapping[str, Any]], base: str) -> OwnModel:
    names = weight_names(folder)
    if not names and (folder / PICKLED).is_file():
        raise ConfigurationError(
            f"{folder}: {PICKLED} is a pickle, which runs whatever its maker put into it, so it is not opened here; "
            "where you trust it, transformers makes a model.safetensors of it: AutoModelForImageClassification"
            ".from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)"
        )
    weight_files(folder)
    inspect(folder)
    ModelConfig.read(folder)
    ProcessorConfig.read(folder)
    documents = {
        name: json.dumps(_without_origin(read_json(folder / name)), indent=2).encode() + b"\n"
        for name in (CONFIG_FILE, PROCESSOR_FILE, PROCESSORS_FILE)
        if (folder / name).is_file()  # timm has its preprocessing in config.json
    }
    head = ViewHead.read(folder)
    if head is not None:
        documents[HEAD_FILE] = (folder / HEAD_FILE).read_bytes()
    if (folder / NOTICE_FILE).is_file():  # the licence of weights that it began with asks for it
        documents[NOTICE_FILE] = (folder / NOTICE_FILE).read_bytes()
    words = "" if head is None else str(head.views)
    return OwnModel(folder, False, {name: folder / name for name in names}, documents, figures, base, words)


def _without_origin(values: Any) -> Any:
    if isinstance(values, list):
        return [_without_origin(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {key: _without_origin(value) for key, value in values.items() if key not in OF_THE_MACHINE}


def _private(model: OwnModel, path: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that would give away a folder of this machine, a token or a key, with what it is."""
    places = {Path.home(), path.absolute(), path.absolute().parent}
    own = re.compile(b"|".join(re.escape(str(one).encode()) for one in places if len(one.parts) > 2) or b"(?!)")
    documents = (
        (name, text, text.decode("utf-8", "replace") if name == NOTICE_FILE else json.loads(text))
        for name, text in model.documents.items()
    )
    for name, raw, notes in chain(documents, _texts_of_weights(model.weights)):
        strings = list(_strings(notes))
        # JSON may write any character as its number: the notes are looked at as they are read.
        read = "\n".join(text for _, text in strings).encode("utf-8", "surrogatepass")
        whole = raw + b"\n" + read
        found = own.search(whole) or PLACES.search(whole)
        if found is not None:
            yield name, f"a path of this machine ({found[0].decode(errors='replace')})"
        elif TOKENS.search(whole) is not None:
            yield name, "a token"
        elif DIGITS.search(read) is not None:
            yield name, "40 digits, as a key has them"
        elif secret := next((key for key, text in strings if text and _is_secret(key)), None):
            yield name, f"{shown(secret)}, which is named as a secret is"


def _strings(values: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in JSON with the keys that lead to it; the keys, too, led to by none."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, dict):
        for name, value in values.items():
            yield "", name
            yield from _strings(value, f"{key}.{name}" if key else name)
    elif isinstance(values, list):
        for value in values:
            yield from _strings(value, key)


def _is_secret(key: str) -> bool:
    plain = re.sub(r"[^A-Z]", "", key.upper()).replace("TOKENIZ", "")  # such as tokenizer_class
    return any(word.replace("_", "") in plain for word in SECRET_WORDS)


def _texts_of_weights(weights: Mapping[str, Path]) -> Iterator[tuple[str, bytes, object]]:
    """Yield what stands in weights besides the numbers, and its notes where it is JSON.

    That is a header, an index, or a pickle's objects with all that lies beside them.
    """
    for name, path in weights.items():
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                header = file.read(int.from_bytes(file.read(8), "little"))
            yield name, header, json.loads(header).get("__metadata__")
        elif path.suffix == ".json":
            yield name, path.read_bytes(), read_json(path).get("metadata")
        else:
            for text in _texts_of_archive(path):
                yield name, text, None


def _texts_of_archive(path: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(PICKLE.fullmatch(one.filename) is not None for one in members) != 1:
                raise ConfigurationError(f"{path}: not a file as torch saves them: one data.pkl is needed in it")
            yield archive.comment + "\n".join(one.filename for one in members).encode()
            for one in members:
                if STORED.fullmatch(one.filename):
                    continue
                if one.file_size > MAX_MEMBER_BYTES:
                    raise ConfigurationError(
                        f"{path}: {shown(one.filename)} in it has more than {MAX_MEMBER_BYTES} bytes"
                    )
                yield archive.read(one)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ConfigurationError(f"{path}: not a file as torch saves them") from error


def natix_card(name: str, description: str, version: str, hotkey: str, now: float | None = None) -> NatixCard:
    """Return the card; `now` in seconds since 1970, None: the clock's."""
    at = int(time.time() if now is None else now)
    return NatixCard(model_name=name, description=description, version=version, submitted_by=hotkey, submission_time=at)


def read_card(text: bytes) -> NatixCard:
    """Read a published card.

    Raises:
        ValueError: it is none; the message says why in one line.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    try:
        return NatixCard.model_validate(values)
    except ValidationError as error:
        faults = [f"{fault['loc'][0] if fault['loc'] else ''}: {fault['msg'].lower()}" for fault in error.errors()]
        raise ValueError("; ".join(faults)) from error


def next_version(last: str | None, given: str | None) -> str:
    """Return the version to publish: the one that is given, else the patch after the last.

    Raises:
        ConfigurationError: the given one is none, or not above the last.
    """
    if given is None:
        if last is None:
            return FIRST_VERSION
        *front, patch = _numbers(last)
        following = ".".join(map(str, (*front, patch + 1)))
        if not VERSION.fullmatch(following):
            raise ConfigurationError(f"--version: is needed after {last}, which is published: numbers end at 999999999")
        return following
    if not VERSION.fullmatch(given):
        raise ConfigurationError(f"--version={given}: X.Y.Z with three numbers is allowed")
    if last is not None and _numbers(given) <= _numbers(last):
        raise ConfigurationError(f"--version={given}: above {last}, which is published, is allowed")
    return given


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def readme(model: OwnModel, card: NatixCard, license_: str | None) -> str:
    """Return the model card for people: front matter as the hub reads it, and what was measured."""
    front: dict[str, object] = {} if license_ is None else {"license": license_}
    front |= {
        "library_name": "ultralytics" if model.is_yolo else "transformers",
        "pipeline_tag": "image-classification",
    }
    front |= {"base_model": model.base} if model.base else {}
    front |= {"tags": ["roadwork", "streetvision", "natix", "bittensor"], "metrics": ["accuracy"]}
    rows = [_row(PARTS.get(part, part), row) for part, row in model.figures.items()]
    if rows:
        figures = "\n".join([
            "| part | photos | accuracy (95 %) | MCC | AUC | Brier | expected reward (95 %) |",
            "| --- | --- | --- | --- | --- | --- | --- |", *rows, "",
            "Measured on photos kept back, on the exported network. The expected reward is what validators of "
            "StreetVision pay a miner that is right this often: the mean of "
            "`(0.5 · MCC of the last 100 + 0.5 · accuracy of the last 10) ** 3`.",
        ])  # fmt: skip
    else:
        figures = "Nothing was measured here."
    pickle = (
        "\n`.pt` is a pickle: loading it runs what is in it, so take it from whom you trust alone.\n"
        if model.is_yolo
        else ""
    )
    views = (
        f"\nIts head judges several views of each picture together: {model.head}. `{HEAD_FILE}` holds it, and "
        "roadwork-miner serves it (`hf_repo`). transformers shows the same layer the whole picture alone, and answers "
        "otherwise: the figures are not for that.\n"
        if model.head
        else ""
    )
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---
{MADE_BY}

# {card.model_name}

{card.description}
{pickle}{views}
Version {card.version}, submitted by `{card.submitted_by}`.

## Figures

{figures}

## Limits

It knows what its photos show. Photos of other countries, seasons, cameras and kinds of roadwork were not measured.
"""


def _row(part: str, row: Mapping[str, Any]) -> str:
    cells = [_cell(row.get(name)) for name in ("photos", "accuracy", "mcc", "auc", "brier", "reward")]
    return f"| {part} | {' | '.join(cells)} |"


def _cell(value: object) -> str:
    match value:
        case {"value": float(middle), "low": float(low), "high": float(high)}:
            return f"{middle:.3f} ({low:.3f} to {high:.3f})"
        case int():
            return str(value)
        case float():
            return f"{value:.3f}"
    return "–"
