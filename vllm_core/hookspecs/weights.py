"""How weights are stored and multiplied."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import QuantizationQuery, WeightFormatQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def weight_format(query: WeightFormatQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to open a checkpoint.

    When     Once per engine, when the model's path is known and before anything is read.
    query    ``path`` a file or a folder; ``files`` the relative names in it, sorted (the
             file's own name if it is one). Decide by names; at most read a magic number.
    Returns  ``Offer`` whose target has the contract ``interfaces.weights.Checkpoint``:
             opened with the path, it gives configuration, tokenizer files and tensors under
             the names that weight rules match, reading a tensor only when asked for it.
             ``Refusal`` for a file of this format that cannot be read (say why);
             ``None`` for other files.
    Choice   ``--load-format NAME`` names one; else the highest rank, ``prefer.weight_format``,
             and an error naming both. The core offers safetensors with rank PORTABLE.
    Errors   An exception counts as ``Refusal``, unless the format was named: then it is raised
             with the plugin's name and version.
    Since    Hook API 1.
    """
    return None


@hookspec
def quantization_method(query: QuantizationQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to load and multiply a checkpoint's quantized matrices.

    When     Once per engine, in the parent process, if config.json has a
             "quantization_config" or the user named a method.
    query    ``method``: "quant_method" there, or the user's; ``config`` the whole table, {}
             for quantizing while loading; ``dtype`` of the activations; ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.quantization.Quantization``:
             made from ``Offer.options`` and ``config`` over them, it names for each matrix the
             parameters, how they shard, and the product. ``Refusal`` when the method is this
             plugin's and the device or a field of ``config`` rules it out; ``None`` for others.
             For experts ``gives={"moe.weights": (format, ...)}`` states the layouts it makes.
    Choice   The highest rank wins; within a rank ``prefer.quantization_method``, then recorded
             figures, then an error naming both.
    Errors   An exception counts as ``Refusal``. A checkpoint that names a method nobody offers
             ends the start, with every refusal's reason.
    Since    Hook API 1.
    """
    return None
