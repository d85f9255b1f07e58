"""`roadwork-miner config`: the settings as the miner takes them, and where each comes from."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detectors.errors import DetectorError
from detectors.load import PreparedModel
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from miner.chain.standalone import CALLERS_FILE
from miner.cli.common import EnvFile, Json, Service, Set, file_of, load_settings, read_assignments, unit_settings
from miner.cli.group import FLAGS_GIVEN
from miner.errors import ConfigurationError
from miner.inference.plan import Plan, choose, plan_of
from miner.settings.origins import Origin, hub_settings, names_of, origins, shown_value
from miner.settings.settings import Settings
from miner.settings.validators import AUTO, nearest

if TYPE_CHECKING:
    from rich.table import Table

PIPED_WIDTH = 160  # characters, where nobody says how wide


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting as it is shown: secrets hidden, `settled` what an open value comes to (None: nothing is open)."""

    key: str
    value: Any
    settled: Any
    default: Any
    origin: Origin

    @property
    def is_changed(self) -> bool:
        """Whether anything set it, if only to its default."""
        return self.origin.kind != "default"


def config(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[SETTING…]", help="Only these; default: all.")] = None,
    env_file: EnvFile = None,
    service: Service = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what something set.")] = False,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Show every setting: its value, where that comes from, and its default.

    `0 → 2` is an open value and what it comes to here. Passwords, tokens and keys in addresses are hidden.
    """
    wanted = _named(keys or [])
    settings = load_settings(env_file, set_, service)
    env_file = file_of(env_file, service)
    unit = unit_settings(service) if service is not None else {}
    given = dict.fromkeys(read_assignments(set_)[0], "--set") | context.meta[FLAGS_GIVEN]
    rows = [
        row
        for row in rows_of(settings, origins(env_file, given, unit))
        if (row.key in wanted or not wanted) and (row.is_changed or not changed)
    ]
    hub = [] if wanted else list(hub_settings(env_file))
    if as_json:
        told = {
            "file": str(env_file) if env_file is not None else None,
            "settings": {row.key: _facts(row) for row in rows},
            "hub": {key: {"value": value, "from": _origin(origin)} for key, value, origin in hub},
        }
        print(json.dumps(told, indent=2))
        return
    _show([*rows, *(SettingRow(key, value, None, None, origin) for key, value, origin in hub)], env_file)


def _named(keys: list[str]) -> set[str]:
    known = {name.upper(): key.upper() for key in Settings.model_fields for name in (key, *names_of(key))}
    for key in keys:
        if key.upper() not in known:
            near = nearest(key.upper(), list(known))
            raise ConfigurationError(f"{key}: there is no such setting" + (f"; did you mean {near}?" if near else ""))
    return {known[key.upper()] for key in keys}


def rows_of(settings: Settings, found: dict[str, Origin]) -> Iterator[SettingRow]:
    """Yield a row for each setting, in the order of `env/README.md`."""
    settled = settled_values(settings)
    for name, field in Settings.model_fields.items():
        value, default = shown_value(name, getattr(settings, name)), shown_value(name, field.default)
        yield SettingRow(name.upper(), value, settled.get(name), default, found[name])


def settled_values(settings: Settings) -> dict[str, Any]:
    """Return what values that leave something open come to on this machine, as far as no model has to be loaded."""
    plan = _plan(settings)
    found: dict[str, Any] = {}
    if not settings.image_detector_config:
        found["image_detector_config"] = settings.detector_config
    backends = [way.backend for way in plan.branches.values()] or [plan.backend]
    precisions = [way.precision for way in plan.branches.values()] or [plan.precision]
    for name, each in (("image_detector_backend", backends), ("image_detector_precision", precisions)):
        if getattr(settings, name) == AUTO:
            found[name] = "+".join(dict.fromkeys(each))
    for name, count in (("inference_slots", plan.slots), ("inference_threads", plan.threads)):
        if getattr(settings, name) == 0:
            found[name] = count
    if settings.axon_external_port is None and not settings.wallet_hotkeys:
        found["axon_external_port"] = settings.miner_axon_port
    if settings.standalone_file is None and settings.is_standalone:
        found["standalone_file"] = str(settings.state_dir / CALLERS_FILE)
    if settings.shadow_detector_config and not settings.shadow_detector:
        found["shadow_detector"] = settings.image_detector
    return found


def _plan(settings: Settings) -> Plan:
    cores = allowed_cores()
    try:
        model = PreparedModel.find(read_config(settings.detector_config), settings.models_dir)
        return plan_of(settings, model, cores)
    except (DetectorError, OSError):  # not prepared, or the start says what is wrong with it
        return choose(settings, cores, None)


def _facts(row: SettingRow) -> dict[str, Any]:
    facts = {"value": row.value, "default": row.default, "from": _origin(row.origin), "changed": row.is_changed}
    return facts if row.settled is None else facts | {"settled": row.settled}


def _origin(origin: Origin) -> dict[str, Any]:
    facts = {"kind": origin.kind, "name": origin.name or None, "line": origin.line}
    return {key: value for key, value in facts.items() if value is not None}


def _show(rows: list[SettingRow], env_file: Path | None) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    if rows:
        console.print(table_of(rows, env_file))
    else:
        print("nothing is set: every setting has its default")


def table_of(rows: list[SettingRow], env_file: Path | None) -> "Table":
    """Return the rows for people; a default is written where the value is another."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("setting", no_wrap=True)
    for heading in ("value", "from", "default"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        value = _text(row.value) if row.settled is None else f"{_text(row.value)} → {row.settled}".lstrip()
        default = _text(row.default) if row.is_changed else ""
        style = "bold" if row.is_changed else ""
        table.add_row(*(Text(cell, style) for cell in (row.key, value, _place(row.origin, env_file), default)))
    return table


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _place(origin: Origin, env_file: Path | None) -> str:
    match origin.kind:
        case "flag":
            return origin.name
        case "file":
            assert env_file is not None
            return f"{env_file.name}:{origin.line}"
        case "unit":
            return "the unit"
        case _:
            return origin.kind
