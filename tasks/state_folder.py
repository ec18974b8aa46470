"""The folder of the local stack, of downloaded indexes and of weights, which is found before the settings are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tasks.errors import InvalidSetting

__all__ = ["OTHER_VARIABLES", "stack_file", "state_dir"]

# What is read before the settings are, or without them.
OTHER_VARIABLES: Final = {
    "AII_STATE_DIR": (
        "the XDG state folder, `~/.local/state/aii`",
        "folder of the local stack, downloaded indexes and weights, and the stack file",
    ),
    "AII_TRACEBACK": ("unset", "set to 1 to see where a command met an unexpected error"),
}


def state_dir() -> Path:
    """Folder of the local stack and of downloaded indexes: ``AII_STATE_DIR``, else the XDG state folder.

    Raises:
        InvalidSetting: it is below a home folder that does not exist.
    """
    configured = os.environ.get("AII_STATE_DIR", "").strip()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(configured).expanduser().absolute() if configured else Path(base).expanduser().absolute() / "aii"
    except RuntimeError:  # an account without a home, as in many containers; or ~NAME of no account
        raise InvalidSetting("AII_STATE_DIR: there is no such home folder: set it to the path of a folder.") from None


def stack_file() -> Path:
    """Where ``aii up`` notes the addresses and secrets of the stack it started (mode 0600)."""
    return state_dir() / "stack.env"
