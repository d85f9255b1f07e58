"""`roadwork-miner publish`: a trained model on the hub, as NATIX asks for it."""

import json
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.files import write_safely
from miner.chain.identities import own_wallet
from miner.cli.common import LOCAL_ENV_FILE, EnvFile, Json, Key, Service, Set, file_of, load_settings
from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from miner.natix.publication import NatixCard

    Files = dict[str, Path | bytes]
    FilesOf = Callable[[str], tuple[NatixCard, Files]]

PAGE = "https://huggingface.co/"


def publish(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FOLDER", help="Folder of a training or of a model; YOLO: a .pt, too.")
    ],
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Repository on the hub; made if it is not there.")],
    env_file: EnvFile = None,
    service: Service = None,
    key: Key = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: that of the repository.")] = None,
    description: Annotated[str, typer.Option(help="What it is, in one line.")] = "Says how probable roadwork is on a "
    "street photo.",
    version: Annotated[
        str | None, typer.Option(metavar="X.Y.Z", help="Default: the patch after the last published one.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="As the hub names it, such as mit; default: none.")
    ] = None,
    set_env: Annotated[bool, typer.Option("--set-env", help="Write MODEL_URL into the settings file.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the repository's files to --out; send none.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for --dry-run; default: ./NAME of the repository.")] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Publish a trained model on Hugging Face with the card that NATIX asks for, and name its MODEL_URL.

    The model's files go up with model_card.json (signed with nothing, but naming the hotkey) and a README.md with the
    figures of the training; nothing else of the folder does. HF_TOKEN has to be a token that may write.
    """
    from miner.natix.publication import FIRST_VERSION, NATIX_CARD, README, find_model, natix_card, next_version, readme
    from miner.natix.repository import repository_in
    from miner.settings.env_file import set_in_file, try_file

    settings = load_settings(env_file, set_, service).of_key(key)
    if settings.is_standalone and not dry_run:
        raise ConfigurationError(
            "SUBTENSOR_NETWORK=standalone: the card names a hotkey, and this one is thrown away; give the miner's "
            "settings (--env-file), or --dry-run"
        )
    if repository_in(repo) != repo:
        raise ConfigurationError(f"--repo={repo}: owner/name of a repository on the hub is allowed")
    if out is not None and not dry_run:
        raise ConfigurationError(f"--out={out}: goes with --dry-run")
    file = _settings_file(env_file, service) if set_env else None
    found = find_model(model)
    hotkey = own_wallet(settings).hotkey.ss58_address
    own_name = repo.split("/")[1]
    title = name or own_name

    def files_of(number: str) -> "tuple[NatixCard, Files]":
        card = natix_card(title, description, number, hotkey)
        text = card.model_dump_json(indent=2).encode() + b"\n"
        made = {NATIX_CARD: text, README: readme(found, card, license_).encode()}
        return card, {**found.documents, **found.weights, **made}

    if dry_run:
        out = out or Path(own_name)
        card, files = files_of(next_version(None, version))
        _write(out, files)
        if version is None and not as_json:
            print(f"version {FIRST_VERSION}, if nothing is published in {repo} yet; else it follows the last one")
        _tell(repo, card, files, str(out), as_json=as_json)
        return
    if file is not None:
        try_file(file)
    card, files, commit = _publish(repo, version, files_of)
    _tell(repo, card, files, commit, as_json=as_json)
    where = f"MODEL_URL={PAGE}{repo}"
    if file is not None:
        try:
            set_in_file(file, "MODEL_URL", PAGE + repo)
        except ConfigurationError as fault:
            raise CouldNotStart(f"{fault}; it is published: put {where} into the file by hand") from fault
    if not as_json:
        print(
            f"{where} stands in {file} now; it counts from the next start" if file else f"put into miner.env: {where}"
        )
        print("then, once and for each new uid: roadwork-miner register")


def _settings_file(env_file: Path | None, service: str | None) -> Path:
    """Return the file that --set-env writes.

    Raises:
        ConfigurationError: what stands in it would not count.
    """
    from miner.settings.origins import origins

    given = file_of(env_file, service)
    file = given or LOCAL_ENV_FILE.absolute()
    if given is None and file.exists():
        raise ConfigurationError(f"--set-env: --no-env-file refuses {file}; leave it out, or name a file (--env-file)")
    if service is None and origins(given, {})["model_url"].kind == "environment":
        raise ConfigurationError(
            "--set-env: MODEL_URL stands in the environment, which wins over the file; take it out there"
        )
    if str(file).startswith("/proc/"):
        raise ConfigurationError(f"--set-env: {file} is no file that can be written")
    return file


def _write(out: Path, files: Mapping[str, Path | bytes]) -> None:
    try:
        if out.exists() and not _may_be_written(out, files):
            raise ConfigurationError(
                f"--out={out}: an empty folder, none yet, or one that publish wrote and nobody added to, is allowed"
            )
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, out / name)
            else:
                write_safely(out / name, content)
    except OSError as error:
        raise CouldNotStart(f"--out={out}: can't be written: {error.strerror}") from error


def _may_be_written(out: Path, files: Collection[str]) -> bool:
    """Return whether a folder is empty, or was written by us and has nothing that would stay beside the new files."""
    from miner.natix.publication import MADE_BY, README

    there = {path.name for path in out.iterdir()} if out.is_dir() else {""}
    return not there or (there <= set(files) and README in there and MADE_BY.encode() in (out / README).read_bytes())


def _publish(repo: str, version: str | None, files_of: "FilesOf") -> "tuple[NatixCard, Files, str]":
    """Read the last card, and send all files in one commit; what the hub has of somebody's own stays."""
    from rich.console import Console

    from miner.formats import one_line
    from miner.natix.hub import HubRepository
    from miner.natix.publication import MADE_BY, NATIX_CARD, README, next_version, read_card

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    hub = HubRepository(repo)
    console.print(f"· the hub: {repo}, with the token of {one_line(hub.check_token())}", markup=False)
    last, text = None, hub.read(NATIX_CARD)
    try:
        last = read_card(text) if text is not None else None
    except ValueError as error:
        console.print(
            f"· its {NATIX_CARD} is not as NATIX wants it: {one_line(str(error))}; it is replaced", markup=False
        )
    card, files = files_of(next_version(last.version if last is not None else None, version))
    if last is not None and last.submitted_by != card.submitted_by:
        console.print(
            f"· its {NATIX_CARD} was of the hotkey {one_line(last.submitted_by)}; it is replaced", markup=False
        )
    own = hub.read(README, may_be_cut=True)  # the mark stands near its beginning
    if own is not None and MADE_BY.encode() not in own:
        console.print(f"· its {README} is your own, and stays as it is", markup=False)
        del files[README]
    hub.make()
    size = sum(file.stat().st_size if isinstance(file, Path) else len(file) for file in files.values())
    console.print(f"· sending {len(files)} files, {size / 1e6:.1f} MB: {', '.join(sorted(files))}", markup=False)
    commit = hub.commit(files, f"{card.model_name} {card.version}", show=sys.stderr.isatty())
    return card, files, commit


def _tell(repo: str, card: "NatixCard", files: Mapping[str, object], where: str, *, as_json: bool) -> None:
    if as_json:
        told = {"repository": repo, "model_url": PAGE + repo, "where": where, "files": sorted(files)}
        print(json.dumps(told | {"card": card.model_dump()}))
    else:
        print(f"{card.model_name} {card.version} of {card.submitted_by}: {where}")
