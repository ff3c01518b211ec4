"""The web application: ``/predict``, ``/health``, ``/metrics``, and a page at ``/``.

Nothing of a request is used as the name of a file, written, or logged.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import ipaddress
import platform
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import limits
import limits.storage
import limits.strategies
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dfssd import __version__
from dfssd.datasets.images.pixels import pixels_of
from dfssd.deployment.answers import answer, by_class, unreadable
from dfssd.deployment.drawing import colors_of_classes, drawn
from dfssd.deployment.networks import Network
from dfssd.errors import reason
from dfssd.files import file_digest
from dfssd.log import LOGGER
from dfssd.serving.metrics import TEXT_TYPE, Metrics
from dfssd.serving.settings import Settings
from dfssd.serving.uploads import Refused, Room, client_of, image_in
from dfssd.serving.worker import Worker

PAGE = Path(__file__).with_name("page.html")

_QUALITY = 90
"""Of a drawn JPEG."""

_FORM = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""What FastAPI cannot see of a prediction, since the body is read by hand."""


class Service:
    """A network and what is allowed to ask it.

    Attributes:
        network: What finds the boxes.
        settings: What is allowed.
        facts: What ``/health`` tells of both.
        metrics: Counts.
        worker: Computes the images.
        room: What is under way.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
        """Start the thread of the network."""
        self.network, self.settings = network, settings
        self.facts = facts_of(network, settings)
        self.room = Room(settings)
        model = self.facts["model"]
        self.metrics = Metrics(lambda: self.room.under_way, {**model, "dfssd": __version__})
        self.worker = Worker(network, most=settings.batch, wait=settings.wait, observe=self.metrics.batch)
        # Images are decoded while others are computed, but no more than that: decoded ones need much memory.
        self._decoded = asyncio.Semaphore(2 * self.worker.most)
        self._rate = None if settings.rate is None else limits.RateLimitItemPerMinute(settings.rate)
        self._limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())

    def bears_token(self, request: Request) -> bool:
        """Whether a request has the token, if there is one."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        wanted = self.settings.token
        return wanted is None or (
            scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), wanted.encode())
        )

    def check_token(self, request: Request) -> None:
        """Refuse a request without the token.

        Raises:
            Refused: It has none, or a wrong one.
        """
        if not self.bears_token(request):
            raise Refused(401, "this server wants its token: send the header 'Authorization: Bearer TOKEN'")

    def check_rate(self, request: Request) -> None:
        """Count a request, and refuse one too many.

        Raises:
            Refused: Its client has asked as often as it may.
        """
        client = client_of(request)
        if self._rate is not None and not self._limiter.hit(self._rate, client):
            again = self._limiter.get_window_stats(self._rate, client).reset_time - time.time()
            raise Refused(
                429, f"too many requests: {self.settings.rate} a minute are served", wait=max(1, round(again + 0.5))
            )

    async def predicted(self, data: bytes, draw: bool) -> tuple[dict[str, Any], bytes | None]:
        """What is said of an image, and the image with its boxes as a JPEG.

        Args:
            data: The bytes of an image file.
            draw: Whether the second one is wanted; None otherwise.

        Raises:
            Refused: It cannot be read.
        """
        async with self._decoded:
            pixels = await run_in_threadpool(self._pixels, data)
            boxes = await asyncio.wrap_future(self.worker.find(pixels))
            said = answer(pixels, boxes, self.network.names)
            picture = await run_in_threadpool(self._jpeg, pixels, boxes) if draw else None
        self.metrics.image(said)
        return {**said, "thresholds": self.facts["thresholds"]}, picture

    def _pixels(self, data: bytes) -> np.ndarray:
        pixels = pixels_of(data, self.network.bits, self.settings.most_pixels)
        problem = pixels if isinstance(pixels, str) else self.network.problem(pixels)
        if isinstance(pixels, str) or problem is not None:
            said = unreadable(str(problem))
            self.metrics.image(said)
            raise Refused(422, **said)
        return pixels

    def _jpeg(self, pixels: np.ndarray, boxes: np.ndarray) -> bytes:
        target = io.BytesIO()
        drawn(pixels, boxes, self.network.names).save(target, "JPEG", quality=_QUALITY)
        return target.getvalue()


def facts_of(network: Network, settings: Settings) -> dict[str, Any]:
    """What ``/health`` tells of a network and of what is allowed; no path of this machine is in it."""
    file, names = network.file, list(network.names.values())
    packages = ("onnxruntime",) if file.suffix == ".onnx" else ("ultralytics", "torch")
    return {
        "model": {
            "name": file.name,
            "run": network.about.get("run"),
            "sha256": file_digest(file) if file.is_file() else None,
        },
        "classes": [{"name": name, "color": color} for name, color in zip(names, colors_of_classes(len(names)))],
        "thresholds": by_class(network.thresholds, network.names),
        "limits": {
            "max_mb": settings.most_bytes / 1e6,
            "max_megapixels": settings.most_pixels / 1e6,
            "rate": settings.rate,
            "queue": settings.queue,
        },
        "versions": {
            "dfssd": __version__,
            "python": platform.python_version(),
            **{name: found for name in packages if (found := _version(name))},
        },
    }


def _version(package: str) -> str | None:
    """The version of a package, also of one whose name depends on the processor that it is for."""
    for name in (package, f"{package}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def create_app(network: Network, settings: Settings, *, local: bool = False) -> FastAPI:
    """The application.

    Args:
        network: What finds the boxes.
        settings: What is allowed.
        local: Whether it is reached by loopback addresses alone; requests to other names are refused then.
    """
    service = Service(network, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.worker.close)

    page = PAGE.read_text(encoding="utf-8")
    app = FastAPI(title="dfssd serve", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    if local:
        app.add_middleware(_LocalNames)
    app.add_middleware(_Outermost, metrics=service.metrics, policy=policy_of(page))

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request, annotated: bool = False) -> Response:
        """Verdict and boxes of an image; with ``annotated=true`` the image with its boxes, as a JPEG."""
        try:
            service.check_rate(request)
            service.check_token(request)
            service.room.check()
            data = await image_in(request, service.room)
            with service.room.place():
                said, picture = await service.predicted(data, annotated)
        except Refused:
            raise
        # whatever a network raises costs this request only
        except Exception as e:
            LOGGER.error(f"an image could not be computed ({type(e).__name__}: {reason(e)})")
            raise Refused(500, "the network failed on this image") from e
        if picture is None:
            return JSONResponse(said)
        return Response(picture, media_type="image/jpeg", headers={"X-Verdict": said["verdict"]})

    @app.get("/health")
    async def health(request: Request) -> Response:
        """Whether images are computed; to whoever has the token, if there is one, also of what and how."""
        alive = service.worker.alive
        told = {"status": "ok" if alive else "failed", "token": settings.token is not None}
        told |= service.facts if service.bears_token(request) else {}
        return JSONResponse(told, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Counts in the text format of Prometheus."""
        service.check_token(request)
        return Response(service.metrics.text(), media_type=TEXT_TYPE)

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return HTMLResponse(page)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"Retry-After": str(error.wait)} if error.wait is not None else {}
        headers |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return JSONResponse(error.answer, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def misread(_: Request, error: RequestValidationError) -> Response:
        wrong = ", ".join(str(one["loc"][-1]) for one in error.errors())
        return JSONResponse({"problem": f"{wrong}: is not as it must be; annotated is true or false"}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        wrong = {404: "there is nothing at this address", 405: "this address takes another method"}
        problem = wrong.get(error.status_code)
        text = str(error.detail) if problem is None else f"{problem}; {addresses_of(app)}"
        return JSONResponse({"problem": text}, error.status_code, error.headers)

    return app


def addresses_of(app: FastAPI) -> str:
    """What a server can be asked, in one line: a method and an address each."""
    asked = [
        f"{method} {route.path}" + ("" if route.include_in_schema else " (a page)")
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]
    return f"the server has {', '.join(asked)}; GET {app.openapi_url} describes them"


def policy_of(page: str) -> str:
    """The content security policy that allows what is inside of a page, and answers of this server, nothing else."""

    def hashes(tag: str) -> str:
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside)
        return " ".join(f"'sha256-{one}'" for one in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def is_local_name(host: str) -> bool:
    """Whether the header ``Host`` names this machine as only itself does: ``localhost`` or a loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _LocalNames:
    """Refuses requests to other names: a site whose own name resolves to a loopback address could read the answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_local_name(Headers(scope=scope).get("host", "")):
            problem = "this server is for its own machine: ask for it as localhost or 127.0.0.1"
            await JSONResponse({"problem": problem}, 421)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Outermost:
    """Adds the headers of every answer, and counts the requests for a prediction."""

    def __init__(self, app: ASGIApp, metrics: Metrics, policy: str) -> None:
        self.app, self.metrics = app, metrics
        self.headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            if scope["path"] == "/predict" and scope["method"] == "POST":
                self.metrics.request(status, time.perf_counter() - start)
