"""``python -m deploy.flower``: Flower on our Celery application, whose time-outs notice a dead connection to Redis."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from deploy.flower.install import install
from tasks.app import create_app
from tasks.command_line import exit_on_error
from tasks.errors import InvalidSetting
from tasks.logs import set_up_logs
from tasks.settings import Settings, load_settings
from tasks.state_folder import state_dir


def main() -> None:
    settings = load_settings()
    # Flower takes options from the environment too: a command line is readable by every user of the machine.
    os.environ["FLOWER_BASIC_AUTH"] = _login(settings)
    set_up_logs(logging.INFO, settings)
    install(settings)
    create_app(settings).start(_arguments(settings))


def _login(settings: Settings) -> str:
    password = settings.flower_password.get_secret_value()
    if not password:  # without one, Flower would serve every page without a login
        raise InvalidSetting("Set AII_FLOWER_PASSWORD, or start Flower with `aii up`, which generates one.")
    if "," in settings.flower_user + password:
        raise InvalidSetting("AII_FLOWER_USER and AII_FLOWER_PASSWORD cannot hold a comma: Flower reads it as a list.")
    if not (settings.flower_user + password).isascii():  # Flower compares them as ASCII, and fails over others
        raise InvalidSetting("AII_FLOWER_USER and AII_FLOWER_PASSWORD can hold ASCII characters only.")
    return f"{settings.flower_user}:{password}"


def _arguments(settings: Settings) -> list[str]:
    folder = state_dir() / "flower"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        "flower",
        f"--address={settings.flower_address}",
        f"--port={settings.flower_port}",
        f"--conf={Path(__file__).with_name('flowerconfig.py')}",
        f"--db={folder / 'events'}",
    ]


if __name__ == "__main__":
    with exit_on_error("flower"):
        main()
