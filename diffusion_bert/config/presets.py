"""Presets: the YAML files of ``configs/`` and those of a user, read as flat tables of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from .paths import beside_or_inside

MADE_OF = ("parent", "preset")  # what the config.yaml of a run names besides its settings
CONFIG_DIR = beside_or_inside("configs")


def load_preset(name_or_path: str) -> dict[str, Any]:
    """The settings of ``configs/NAME.yaml`` or of a YAML file, as a flat dictionary (types are checked when the config
    is built).

    Raises:
        UserError: no such preset, not readable, not YAML, or not one flat table of settings.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = CONFIG_DIR / f"{name_or_path}.yaml"
        if not path.is_file():
            names = sorted(p.stem for p in CONFIG_DIR.glob("*.yaml"))
            raise UserError(
                f"no preset '{name_or_path}': expected one of {', '.join(names)}{nearest(name_or_path, names)}"
            )
    return load_settings(path)


def load_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, whatever its ending; raises as ``load_preset`` does."""
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; --config takes a YAML file, --preset a name from configs/"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save the preset as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'}); write one 'key: value'"
            " per line, no tabs"
        ) from None
    if not isinstance(settings, dict) or not settings:
        raise UserError(
            f"{path} holds {'nothing' if not settings else type(settings).__name__}: expected 'key: value' lines"
        )
    return {name: value for name, value in settings.items() if name not in MADE_OF}
