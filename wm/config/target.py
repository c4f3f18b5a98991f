"""The one door for classes from outside: `package.module:Name`."""

from __future__ import annotations

import importlib
from typing import Any

from wm.config.errors import UserError, nearest


def load_target(target: str, path: str) -> Any:
    """What `package.module:Name` names, imported from the Python path.

    Args:
        path: the setting that holds it, for messages.

    Raises:
        UserError: misspelt, not importable, or the module has no such name.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UserError(f"{path}: expected package.module:Name (got {target!r})")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module from outside may fail in any way while it is imported
        raise UserError(
            f"{path}: '{module_name}' cannot be imported ({_reason(error)}); is it on PYTHONPATH?"
        ) from error
    if not hasattr(module, name):
        names = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{path}: '{module_name}' has no '{name}'.{nearest(name, names)}")
    return getattr(module, name)


def call_target(target: str, path: str, settings: dict[str, Any], *given: Any) -> Any:
    """`load_target`, called with what is given and settings as keyword arguments. Raises UserError when the call fails."""
    factory = load_target(target, path)
    try:
        return factory(*given, **settings)
    except UserError:
        raise
    except Exception as error:  # the same
        shown = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        raise UserError(f"{path}: {target}({shown}) failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
