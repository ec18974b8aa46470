"""Ports for the servers of tests, which several processes of pytest start at the same time."""

from __future__ import annotations

import socket

__all__ = ["reserved_port"]

_RESERVATIONS: list[socket.socket] = []


def reserved_port() -> int:
    """A port of this machine that no other program is given until this process ends.

    The socket that reserves it stays bound and never listens. Linux then hands the port to no other program that asks
    for any port, and lets a server listen there that names it and sets ``SO_REUSEADDR``, as all of ours do.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    _RESERVATIONS.append(reservation)
    return int(reservation.getsockname()[1])
