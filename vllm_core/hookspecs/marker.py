"""The marker of hook specifications."""

import pluggy

hookspec = pluggy.HookspecMarker("vllm_core")
