"""The plugin's settings: ``[plugin.gguf]`` in vllm.toml, ``--plugin.gguf.weights``."""

from __future__ import annotations

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class GgufSettings:
    """How the plugin holds weights."""

    weights: str = setting(
        "dequantize",
        choices=("dequantize", "keep"),
        help="dequantize: matrices become numbers of the engine's dtype while they are loaded. keep: they stay in the"
        " blocks of the file, and are dequantized piece by piece in every step.",
        trade="keep takes a fraction of the memory; dequantize is several times faster.",
    )
