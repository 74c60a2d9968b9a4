"""``POST /v1/next`` for vllm-core's server. Importing this module must not import torch."""

from vllm_core.plugin import Endpoint, hookimpl

HOOK_API = 1


@hookimpl
def settings() -> str:
    return "vllm_plugin_nextwords.settings:Settings"


@hookimpl
def http_endpoints() -> list[Endpoint]:
    return [Endpoint("/v1/next", "vllm_plugin_nextwords.route:make", ("POST",), "the likeliest next tokens")]
