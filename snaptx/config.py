"""What the administrator decides: TOML, the distribution's defaults under the machine's own.

Read in this order, later over earlier, table by table and key by key:
``usr/lib/snaptx/snaptx.conf``, ``etc/snaptx/snaptx.conf``, then
``etc/snaptx/snaptx.conf.d/*.conf`` by name; all below the system root that is
worked on.  A key nobody knows is an error: a misspelt limit is no limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import places
from snaptx.errors import ConfigError

GIB = 1 << 30
DESCRIBED = "snaptx.conf(5) describes the file"
AT_LEAST_ONE = {"timeout", "wait", "tries", "menu", "interval"}
"""Without an end nothing fails; without a try or an entry nothing boots; without a pause nobody rests."""


class Nested(StrEnum):
    """What becomes of a subvolume inside the root, which a snapshot leaves out."""

    REFUSE = "refuse"
    CARRY = "carry"
    SHARE = "share"


class ManagerName(StrEnum):
    """A package manager; AUTO is the one of the distribution."""

    AUTO = "auto"
    APT = "apt"
    DNF = "dnf"
    PACMAN = "pacman"
    ZYPPER = "zypper"


class Conffiles(StrEnum):
    """What becomes of a configuration file that the administrator and the package changed."""

    KEEP = "keep"
    NEW = "new"


class HookMode(StrEnum):
    """What a package manager's hooks do."""

    SNAPSHOT = "snapshot"
    OFF = "off"
    REQUIRED = "required"


class Conflicts(StrEnum):
    """Who wins where the running root and the new generation changed the same path."""

    FAIL = "fail"
    NEW = "new"
    OLD = "old"


class Priority(StrEnum):
    """Whom staging lets go first: nobody, or every other process."""

    NORMAL = "normal"
    IDLE = "idle"


class Policy(StrEnum):
    """How far an unattended update goes by itself; each includes those before it."""

    NONE = "none"
    CHECK = "check"
    DOWNLOAD = "download"
    STAGE = "stage"
    COMMIT = "commit"
    REBOOT = "reboot"


class LimitsConfig(NamedTuple):
    """The most a payload may ask for."""

    max_bytes: int = 64 * GIB  # bytes, unpacked
    max_file_bytes: int = 16 * GIB  # bytes, one file
    max_files: int = 5_000_000  # members
    max_ratio: int = 200  # unpacked bytes per packed byte


class StagingConfig(NamedTuple):
    """How a generation is prepared."""

    nested: Nested = Nested.REFUSE
    conflicts: Conflicts = Conflicts.FAIL
    ignore: tuple[str, ...] = ("/run", "/tmp", "/proc", "/sys", "/dev")  # never carried over
    priority: Priority = Priority.NORMAL


class RetentionConfig(NamedTuple):
    """Which generations stay; the protected ones always do."""

    keep: int = 10  # newest committed generations
    keep_days: int = 0  # days; younger ones stay as well
    min_free: int = 10  # percent of the filesystem; below it more are removed


class HealthConfig(NamedTuple):
    """How a new generation proves itself."""

    timeout: int = 120  # seconds for each check


class BootConfig(NamedTuple):
    """What the boot entry offers."""

    tries: int = 2  # boots a generation on trial gets
    menu: int = 20  # entries at most


class SharedConfig(NamedTuple):
    """What belongs to no generation."""

    paths: tuple[str, ...] = places.PATHS
    ignore: tuple[str, ...] = ()  # these may be rolled back


class UpdateConfig(NamedTuple):
    """How the machine updates itself."""

    policy: Policy = Policy.COMMIT
    sources: tuple[str, ...] = ()  # directories and URLs of overlays
    window: tuple[str, ...] = ()  # when to commit and restart; always, if empty
    interval: int = 24  # hours between two looks at the sources
    max_download: int = 4 * GIB  # bytes kept for one update
    timeout: int = 30  # seconds a server may say nothing
    motd: str = "/run/motd.d/snaptx"  # the line for those who log in; none, if empty
    metrics: str = "/var/lib/prometheus/node-exporter"  # directory of textfiles, if it exists


class LiveConfig(NamedTuple):
    """What of a generation a live switch puts under the running system."""

    paths: tuple[str, ...] = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")


class PackagesConfig(NamedTuple):
    """How packages are upgraded in a generation."""

    manager: ManagerName = ManagerName.AUTO
    conffiles: Conffiles = Conffiles.KEEP


class HooksConfig(NamedTuple):
    """What happens when somebody calls the package manager without snaptx."""

    mode: HookMode = HookMode.SNAPSHOT


class Config(NamedTuple):
    """Everything that can be configured, with its defaults."""

    limits: LimitsConfig = LimitsConfig()
    staging: StagingConfig = StagingConfig()
    retention: RetentionConfig = RetentionConfig()
    health: HealthConfig = HealthConfig()
    boot: BootConfig = BootConfig()
    shared: SharedConfig = SharedConfig()
    update: UpdateConfig = UpdateConfig()
    live: LiveConfig = LiveConfig()
    packages: PackagesConfig = PackagesConfig()
    hooks: HooksConfig = HooksConfig()


def files(sysroot: Path) -> list[Path]:
    """Return the configuration files that exist below ``sysroot``, in reading order.

    Raises:
        ConfigError: the name of one is taken by what is no file.
    """
    etc = sysroot / "etc/snaptx"
    fixed = [sysroot / "usr/lib/snaptx/snaptx.conf", etc / "snaptx.conf"]
    return [path for path in (*fixed, *sorted(etc.glob("snaptx.conf.d/*.conf"))) if is_there(path)]


def is_there(path: Path) -> bool:
    """Return whether there is a configuration file of that name; a link to /dev/null stands for none.

    Raises:
        ConfigError: the name is taken by what is no file, or a link leads to none.
    """
    if path.is_file():
        return True
    if os.path.lexists(path) and os.path.realpath(path) != os.devnull:
        raise ConfigError(f"{path} is no regular file", hint="put a file in its place, or remove it")
    return False


def load(sysroot: Path, only: Path | None = None) -> Config:
    """Return the configuration of ``sysroot``, or that of the one file ``only``.

    Raises:
        ConfigError: a file can't be read, is no TOML, or has an unknown or impossible value.
    """
    config = Config()
    for path in [only] if only else files(sysroot):
        config = merge(config, parse(path), str(path))
    return config


def parse(path: Path) -> Mapping[str, Any]:
    """Return what a file says.

    Raises:
        ConfigError: it can't be read, or is no TOML.
    """
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a file that can be read") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: it is nested too deep", hint=DESCRIBED) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", hint=DESCRIBED) from error


def merge(config: Config, tables: Mapping[str, Any], where: str) -> Config:
    """Return ``config`` with what ``tables`` (parsed TOML) says laid over it."""
    sections = config._asdict()
    for name, values in tables.items():
        if name not in sections:
            raise _unknown(where, f"[{name}]", sections)
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: {name} is no table", hint=f"as in: [{name}], and its keys below it")
        sections[name] = merge_section(sections[name], values, f"{where}: [{name}]")
    return Config(**sections)


def merge_section(section: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return the record ``section`` with ``values`` laid over it.

    Raises:
        ConfigError: one of them is unknown or impossible.
    """
    changes = {}
    for key, value in values.items():
        if key not in section._fields:
            raise _unknown(where, key, section._fields)
        changes[key] = _convert(value, getattr(section, key), f"{where} {key}")
        if key in AT_LEAST_ONE and changes[key] == 0:
            raise ConfigError(f"{where} {key}: 0 is too few", hint="1 or more")
        if key == "window":
            _check_windows(changes[key], f"{where} {key}")
        if isinstance(section, LiveConfig):
            _check_places(changes[key], f"{where} {key}")
    return section._replace(**changes)


def _convert(value: Any, default: Any, where: str) -> Any:
    if any("\0" in item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)):
        raise ConfigError(f"{where}: {value!r} has a NUL", hint="no path, URL or word can have one")
    match default:
        case StrEnum():
            choices = [choice.value for choice in type(default)]
            if value not in choices:
                raise ConfigError(f"{where}: {value!r} is not possible", hint=f"one of: {', '.join(choices)}")
            return type(default)(value)
        case str() if isinstance(value, str):
            return value
        case bool():
            if isinstance(value, bool):
                return value
        case int() if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        case tuple() if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    kinds: dict[type, str] = {tuple: "a list of text", str: "text", bool: "true or false"}
    wanted = kinds.get(type(default), "a whole number, 0 or more")
    raise ConfigError(f"{where}: {value!r} is not {wanted}", hint=DESCRIBED)


def _check_windows(windows: tuple[str, ...], where: str) -> None:
    from snaptx import window  # few machines have any

    for text in windows:
        try:
            window.parse(text)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}", hint="as in: Sat,Sun 02:00-05:00") from error


def is_place(path: str) -> bool:
    """Return whether this is a directory below the root as the table of mounts tells it."""
    return path != "/" and path == "/" + os.path.normpath(path).strip("/")


def _check_places(paths: tuple[str, ...], where: str) -> None:
    """Refuse what is not how the table of mounts tells a directory: what is live there would not be found."""
    for path in paths:
        if not is_place(path):
            raise ConfigError(f"{where}: {path!r} is no directory below the root", hint="as in: /usr")


def _unknown(where: str, name: str, known: Any) -> ConfigError:
    return ConfigError(f"{where}: {name} is unknown", hint=f"known here: {', '.join(sorted(known))}")
