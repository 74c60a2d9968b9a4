"""From settings to a running server: the engine, the application, the socket, and an orderly end."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import uvicorn

from vllm_core.commands import EngineSettings, UsageError, plugin_settings
from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import AsyncLLM, run_node
from vllm_plugin_server import tracing
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.app import App, make_app
from vllm_plugin_server.drain import DrainingServer
from vllm_plugin_server.limits import most
from vllm_plugin_server.logs import observers as logs
from vllm_plugin_server.logs.setup import configure, installed
from vllm_plugin_server.metrics import shared
from vllm_plugin_server.others import First, Others
from vllm_plugin_server.protocol import LimitedProtocol
from vllm_plugin_server.routes import choose
from vllm_plugin_server.settings import ServerSettings
from vllm_plugin_server.signals import FORCED, Signals, Terminated
from vllm_plugin_server.work import Work

__all__ = ["make_context", "open_socket", "report_of", "serve", "serve_headless", "with_environment"]

log = logging.getLogger(__name__)
BACKLOG = 4096  # connections that wait to be accepted


def serve(engine_settings: EngineSettings, settings: ServerSettings, catalog: Any) -> int:
    """Until a signal. Returns the exit code."""
    with Signals() as signals:
        try:
            code = _serve(engine_settings, settings, catalog, signals)
        except Terminated:
            log.info("ended before it was ready")
            code = 0
        finally:
            if (handler := installed()) is not None:
                handler.flush()  # before others write there
    return signals.code or code


def serve_headless(engine_settings: EngineSettings, settings: ServerSettings) -> int:
    """Engines without a server, for that of another node. Until a signal; returns the exit code."""
    configure(settings.log_level, settings.log_format, settings.api_key)
    with Signals() as signals:
        try:
            code = run_node(engine_settings, settings.engine_restarts)
        except Terminated:
            log.info("ended before it was ready")
            code = 0
    return signals.code or code


def _serve(engine_settings: EngineSettings, settings: ServerSettings, catalog: Any, signals: Signals) -> int:
    begun = time.monotonic()
    settings = with_environment(settings)
    configure(settings.log_level, settings.log_format, settings.api_key)
    tracing.check(settings)
    check_certificate(settings)
    endpoints = choose(catalog.entries("http_endpoints"), catalog.prefer("http_endpoints"))
    several = settings.api_server_count > 1
    listener = open_socket(settings, several=several)  # before the model is loaded: a port that is taken is told
    counted = shared.share() if several else None  # before figures are imported
    try:
        engine = AsyncLLM.from_settings(
            engine_settings, restarts=settings.engine_restarts, carry_over=settings.carry_over
        )
        code = 0
        try:
            context = make_context(engine, settings, catalog)
            logs.attach(context)
            tracing.attach(context)
            app = make_app(context, endpoints)
            with Others(settings.api_server_count - 1, engine, settings, listener) as others:
                code = run(app, context, listener, begun, others)
                return code
        finally:
            signals.force = partial(engine.shutdown, now=True)
            engine.shutdown(now=code > FORCED)
    finally:
        listener.close()
        if settings.uds is not None:
            Path(settings.uds).unlink(missing_ok=True)
        if counted is not None:
            shared.unshare(counted)


def with_environment(settings: ServerSettings) -> ServerSettings:
    """vLLM's variable for keys counts, too: who sets it does not want an open door."""
    key = os.environ.get("VLLM_API_KEY")
    return attrs.evolve(settings, api_key=[*settings.api_key, key]) if key else settings


def check_certificate(settings: ServerSettings) -> None:
    """Whether HTTPS can be spoken with these files, before a model is loaded for nothing."""
    if settings.ssl_certfile is None or settings.ssl_keyfile is None:
        return
    for flag, path in (("--ssl-certfile", settings.ssl_certfile), ("--ssl-keyfile", settings.ssl_keyfile)):
        try:
            open(path, "rb").close()
        except OSError as error:
            raise UsageError(f"{flag} {path} cannot be read: {error.strerror}") from None
    try:  # with a password, so that nobody is asked for one
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, "")
    except ssl.SSLError as error:
        raise UsageError(
            f"--ssl-certfile {settings.ssl_certfile} and --ssl-keyfile {settings.ssl_keyfile} are no certificate and"
            f" the key that belongs to it, both as PEM and the key without a password: {error.reason or error}"
        ) from None


def make_context(engine: Any, settings: ServerSettings, catalog: Any) -> ServerContext:
    """What routes share. ``catalog``: of plugins, for reports."""
    names = settings.served_model_name or [engine.settings.model]
    threads = min(4, (os.cpu_count() or 1) + 1)
    return ServerContext(
        engine=engine,
        models=dict.fromkeys(names, "base"),
        settings=settings,
        report=lambda: report_of(engine, catalog),
        work=Work(threads, most("template_seconds")),
        admission=Admission(max(1, settings.max_concurrent_requests // settings.api_server_count)),
        started=time.time(),
        plugins={**plugin_settings(catalog, engine.settings.plugin), "server": settings},
    )


def report_of(engine: Any, catalog: Any) -> dict[str, Any]:
    """What was chosen, by whom, and all plugins with their states."""
    return {
        "model": engine.settings.model,
        "digest": engine.lock.digest,
        **engine.explain(),
        "plugins": [
            {
                "name": p.name, "version": p.version, "distribution": p.distribution, "state": p.state,
                "reason": p.reason, "remedy": p.remedy,
            }
            for p in catalog.plugins
        ],
    }  # fmt: skip


def open_socket(settings: ServerSettings, *, several: bool = False) -> socket.socket:
    """Bound, and not listening yet. ``several`` processes of this user may then bind the same port."""
    if settings.uds is not None:
        _remove_stale(settings.uds)
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address: Any = settings.uds
    else:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if several else socket.SO_REUSEADDR, 1)
        address = (settings.host, settings.port)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        shown = settings.uds or f"{settings.host}:{settings.port}"
        taken = "; --port N takes another one, --port 0 any that is free" if error.errno == errno.EADDRINUSE else ""
        raise OSError(f"cannot listen on {shown}: {error.strerror or error}{taken}") from None
    found.setblocking(False)
    return found


def _remove_stale(path: str) -> None:
    """A socket that a killed server left behind."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def run(
    app: App, context: ServerContext, listener: socket.socket, begun: float | None, others: Others | First | None = None
) -> int:
    """Serve on a bound socket until a signal, or until the engine is gone for good.

    ``begun``: when the start began, to be told; None: another process tells it.
    """
    _many_files()
    settings = context.settings
    config = uvicorn.Config(
        app.app,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        root_path=settings.root_path,
        backlog=BACKLOG,
        timeout_keep_alive=most("idle_seconds"),
        ssl_keyfile=settings.ssl_keyfile,
        ssl_certfile=settings.ssl_certfile,
    )
    server = DrainingServer(config, app.boundary, context, address_of(listener, settings), begun, others)
    server.run(sockets=[listener])
    return server.exit_code


def address_of(listener: socket.socket, settings: ServerSettings) -> str:
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' if settings.ssl_certfile else ''}://{host}:{port}"


def _many_files() -> None:
    """A connection is an open file: allow as many as the system does."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
