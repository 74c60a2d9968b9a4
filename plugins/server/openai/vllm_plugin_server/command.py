"""``vllm-core serve MODEL``"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from vllm_core.commands import UsageError, add_engine_flags, add_flags, check_plugins, engine_settings, own_settings
from vllm_plugin_server.settings import ServerSettings

__all__ = ["Serve"]


class Serve:
    about = (
        "Serves a model over HTTP, as OpenAI's API, Anthropic's Messages and vLLM's server do. It listens on this "
        "machine only unless --host says otherwise; with --api-key every request must bring a key. Ctrl-C or SIGTERM "
        "lets running requests end (--shutdown-timeout); a second one ends at once."
    )
    examples = (
        ("serve SmolLM2-135M-Instruct", "at http://127.0.0.1:8000"),
        ("serve ./my-model --port 9000 --served-model-name gpt-mine --api-key SECRET", ""),
        ("serve ./my-model --uds /run/model.sock", "for a proxy on this machine"),
        ("serve ./my-model --config vllm.toml", "[engine], [plugin.server] and [plugins] of a file"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_flags(parser, ServerSettings)
        add_engine_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        loaded = engine_settings(args)
        settings, engine = own_settings("server", ServerSettings, loaded, args)
        catalog = check_plugins(loaded)
        if engine.skip_tokenizer_init:
            raise UsageError("the server needs a tokenizer: leave --skip-tokenizer-init out")
        if settings.headless:
            from vllm_plugin_server.serve import serve_headless

            return serve_headless(engine, settings)
        from vllm_plugin_server.serve import serve
        from vllm_plugin_server.signals import FORCED

        code = serve(engine, settings, catalog)
        if code > FORCED:  # all has been undone, and what Python does at its end takes as long as it likes
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
        return code
