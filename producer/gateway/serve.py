"""Runs the gateway in an HTTP server."""

from __future__ import annotations

import logging
from typing import Final

import uvicorn

from producer.gateway.app import create_gateway
from tasks.errors import InvalidRequest
from tasks.logs import set_up_logs
from tasks.settings import load_settings

__all__ = ["serve"]

_MOST_REQUESTS: Final = 1_000  # at the same time; more are refused with 503
_STOP_S: Final = 35  # a little more than a request may wait
_LONGEST_HEAD: Final = 32 * 2**10


def serve() -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun are answered first.

    Raises:
        InvalidSetting: a setting cannot be used.
        InvalidRequest: the address cannot be listened on.
    """
    settings = load_settings()
    app = create_gateway(settings)
    set_up_logs(logging.INFO, settings)
    config = uvicorn.Config(
        app,
        host=settings.gateway_address,
        port=settings.gateway_port,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="uvloop",  # a fifth less of a core for each request than asyncio's own
        http="h11",  # which bounds a request's head; httptools is no faster here and does not
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=_STOP_S,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
    )
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit:
        # uvicorn has logged why; it ends the process by itself when it cannot listen.
        raise InvalidRequest(
            f"Nothing can listen on {settings.gateway_address}:{settings.gateway_port}: set AII_GATEWAY_PORT."
        ) from None
