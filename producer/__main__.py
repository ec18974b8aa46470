"""``aii`` and ``python -m producer``: Ctrl-C ends the command without a traceback from its first moment on."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; it is imported while SIGINT ends the process, as it does before Python starts."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from producer.cli import aii  # noqa: PLC0415  # a tenth of a second

    signal.signal(signal.SIGINT, handler)  # one who ignores SIGINT goes on doing so
    aii(prog_name="aii")


if __name__ == "__main__":
    main()
