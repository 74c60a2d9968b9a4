"""The plugin's settings: ``[plugin.int8]`` in vllm.toml, ``--plugin.int8.ignore``."""

from __future__ import annotations

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Int8Settings:
    """What stays dense when a checkpoint is quantized while it is loaded."""

    ignore: list[str] = setting(
        [],
        help="Matrices that stay dense, beside the head and the embeddings: names of the checkpoint's modules, with *"
        " for any part of a name, or re: and a regular expression. One that fits no matrix is an error.",
        trade="More dense matrices: more memory, nearer to the dense model.",
    )
