"""The application: routes, error answers, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import PlainTextResponse

from producer.gateway import assets, jobs, lookups, notifications, soft_bindings, submissions, takedowns
from producer.gateway.access import Rates, allowed
from producer.gateway.metrics import Measured, Metrics
from producer.gateway.problems import Problem, answers, install
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token, Tokens
from tasks.errors import NotFound, advice, kinds
from tasks.settings import Settings

__all__ = ["create_gateway"]

_DESCRIPTION: Final = "Protect images before they are published, and find their edited copies again."
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    Problem, submissions.ActivationParameters, submissions.QueryParameters, lookups.LookupParameters,
    soft_bindings.Binding, takedowns.TakedownRequest,
)  # fmt: skip
router = APIRouter(tags=["service"])


class Health(BaseModel):
    status: str


class ErrorCode(BaseModel):
    """What an error code means."""

    code: str
    when: str
    what_to_do: str


def create_gateway(settings: Settings) -> FastAPI:
    """Build the application. Connects when it is started.

    Raises:
        InvalidSetting: a setting or the file of tokens cannot be used.
    """
    state, metrics = State.connect(settings), Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await state.close()

    app = FastAPI(
        title="active image indexing", version=version("active-image-indexing"), description=_DESCRIPTION,
        lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,  # the address that it leads to would be the one that the client says
    )  # fmt: skip
    app.state.shared, app.state.metrics = state, metrics
    app.state.tokens, app.state.rates = Tokens(settings), Rates()
    app.add_middleware(Measured, metrics=metrics)
    install(app)
    parts = (submissions, lookups, jobs, assets, takedowns, notifications, soft_bindings)
    for part in (*(one.router for one in parts), router):
        app.include_router(part)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # the framework's own way to complete it
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the models that only answers and bodies read by hand refer to."""
    if not app.openapi_schema:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        for model in _BODIES:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)  # such a request is answered by 400, as a problem
    return app.openapi_schema or {}


@router.get(
    "/live", summary="Whether this process answers; one that does not is to be restarted", response_model=Health
)
async def live() -> Health:
    return Health(status="ok")


@router.get(
    "/health",
    summary="Whether jobs can be taken: Redis and S3 answer",
    response_model=Health,
    responses={503: answers()[503]},
)
async def health(request: Request) -> Response:
    state = state_of(request)
    await run_sync(state.ledger.check)
    await run_sync(state.store.check)
    return Response(Health(status="ok").model_dump_json(), media_type="application/json")


@router.get(
    "/metrics",
    summary="Figures of this process, for Prometheus",
    response_class=PlainTextResponse,
    responses=answers(),
)
async def metrics(request: Request, _: Annotated[Token, Depends(allowed("admin"))]) -> Response:
    text = await run_sync(generate_latest, request.app.state.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(
    "/v1/errors/{code}",
    summary="What an error code means, and what to do",
    response_model=ErrorCode,
    responses={status: answers(404)[status] for status in (400, 404)},
)
async def error_code(code: Annotated[str, Path(pattern=r"^[a-z0-9_]{1,40}$")]) -> ErrorCode:
    kind = next((kind for kind in kinds() if kind.code == code), None)
    if kind is None:
        raise NotFound(f"There is no error code {code}.")
    when, what_to_do = advice(kind)
    return ErrorCode(code=code, when=when, what_to_do=what_to_do)
