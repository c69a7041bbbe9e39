"""From the YAML groups and the command line to one typed `Study`; whatever is wrong with either is one sentence.

Hydra composes, and nothing else of it runs: no job, no output folder, no logging.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from limit_lab import overrides as lines
from limit_lab.config import Study
from limit_lab.errors import ConfigError, did_you_mean

SCHEMA = "study_schema"


def config_dir() -> Path:
    """The folder of the shipped groups: the checkout's ``conf`` for its own ``src``, else the one inside the package.

    The checkout comes first because an editable install may leave a copy in site-packages.
    Raises: ConfigError when neither exists.
    """
    package = Path(__file__).resolve().parent
    places = [package.parent.parent / "conf"] if package.parent.name == "src" else []
    places.append(package / "conf")
    for place in places:
        if (place / "config.yaml").is_file():
            return place
    raise ConfigError(f"no conf folder belongs to {package}: install limit_lab again, or run it from a complete checkout.")


def directories(user: Path | None = None) -> list[Path]:
    """Where groups are looked for, in order. Raises: ConfigError when the user's folder does not exist."""
    if user is None:
        return [config_dir()]
    if not user.is_dir():
        raise ConfigError(f"--config-dir {user} is no folder: create it, with groups such as {user}/mixture/mine.yaml inside.")
    return [config_dir(), user.resolve()]


def compose(overrides: Sequence[str] = (), user: Path | None = None) -> Study:
    """The study that these overrides describe, its cross-field rules checked.

    Raises: ConfigError, in one sentence per problem, for anything unknown, mistyped or contradictory.
    """
    return typed(compose_node(overrides, user))


def typed(node: DictConfig) -> Study:
    """The study in a composed configuration, its cross-field rules checked. Raises: ConfigError."""
    try:
        return cast(Study, OmegaConf.to_object(node))
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{error.full_key} has no value: give it one in its YAML file or with {error.full_key}=..."
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {_first_line(error)}.") from error


def restored(values: Mapping[str, Any]) -> Study:
    """The study whose plain values were written down. Raises: ConfigError."""
    merged = OmegaConf.merge(OmegaConf.structured(Study), values)
    assert isinstance(merged, DictConfig)
    return typed(merged)


def register() -> None:
    """Make the schema known to Hydra, for the defaults list of config.yaml."""
    ConfigStore.instance().store(name=SCHEMA, node=Study)


def compose_node(overrides: Sequence[str] = (), user: Path | None = None, *, with_hydra: bool = False) -> DictConfig:
    """The configuration before it becomes a `Study`; ``with_hydra`` keeps Hydra's own node. Raises: ConfigError."""
    places = directories(user)
    lines.check(overrides, places)
    for text, override in zip(overrides, lines.parse(overrides), strict=True):
        if override.is_sweep_override():
            raise ConfigError(f"{text} is several values: add -m to run them one after another, or choose one.")
    register()
    search = [f"hydra.searchpath=[{_quoted('file://' + str(place))}]" for place in places[1:]]
    try:
        with hydra.initialize_config_dir(str(places[0]), version_base="1.3"):
            return hydra.compose("config", [*search, *overrides], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(error, list(overrides), user)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration file is not valid YAML: {' '.join(str(error).split())}.") from error


def _sentence(error: Exception, overrides: list[str], user: Path | None) -> str:
    """What Hydra or OmegaConf refused, without their advice (which is wrong for keys that the schema does not have)."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        name = error.missing_cfg_file.rpartition("/")[2]
        return f"{_first_line(error)}{did_you_mean(name, error.options or [])}"
    if entry := re.match(r"Could not override '([^']+)'", message):
        return _absent(entry[1], overrides, user)
    if merged := re.match(r"In '([^']+)': \w+ raised while composing config", message):
        return _misfit(merged[1], message, directories(user))
    if taken := re.search(r"An item is already at '([^']+)'", message):
        return f"+{taken[1]} is already in the configuration: leave out the + to change it."
    if error.__cause__ is not None:
        text = message.splitlines()[0].removeprefix("Error merging override ")
        if made := re.search(r"dict is not a subclass of (\w+)", str(error.__cause__)):
            return f"{text}: the command line cannot make a new {made[1]}; write it in a YAML file of your own --config-dir."
        return f"{text}: {_first_line(error.__cause__)}."
    return _first_line(error)


def _absent(key: str, overrides: list[str], user: Path | None) -> str:
    """A plain override of a dictionary entry that is not there."""
    text = next((text for text in overrides if text.lstrip("+~").split("=")[0] == key), key)
    parent, _, entry = key.rpartition(".")
    rest = [other for other in overrides if other != text]
    present = OmegaConf.select(compose_node(rest, user), parent) if len(rest) < len(overrides) else None
    names = [str(name) for name in present] if isinstance(present, DictConfig) else []
    return f"{text}: {parent} has no entry '{entry}' (add one with +{key}=...){did_you_mean(entry, names)}"


def _misfit(config: str, message: str, places: list[Path]) -> str:
    """A YAML file that does not fit the schema: every unknown key in it, or what OmegaConf said about a value."""
    path = next((place / f"{config}.yaml" for place in places if (place / f"{config}.yaml").is_file()), Path(config))
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        content = {key: value for key, value in content.items() if key != "defaults"} if isinstance(content, dict) else content
        package = "" if re.match(r"#\s*@package _global_", text) or "/" not in config else config.split("/")[0]
        kind = lines.child(Study, package) if package else Study
        found = list(lines.unknown(content, kind, package))
        if found:
            known = lines.candidates(places)
            return "\n".join(f"{path}: the configuration has no key '{key}'{lines.suggest(key, known)}" for key in found)
    reason = message.splitlines()[1] if "\n" in message else message
    where = re.search(r"full_key: (\S+)", message)
    return f"{path}: {where[1] + ': ' if where else ''}{reason.strip()}."


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
