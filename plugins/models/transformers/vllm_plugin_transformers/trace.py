"""What a model of transformers asks of attention, found by running it on the meta device and listening.

Where a window begins, which layers have one, scales, soft caps and sinks stand in different places in different
models. What reaches the attention function is the same everywhere, so this is where we look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.interface import listening
from vllm_plugin_transformers.tokenwise import TokenWise

TOKENS = 10_007  # of the run: a prime number, see `tokenwise`; they take no memory
META = torch.device("meta")

WITHOUT_EFFECT = {
    "position_ids", "cache_position", "position_embeddings", "dropout", "training", "use_cache", "is_causal",
    "output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "sliding_window",
}  # fmt: skip
"""Arguments of attention functions that change nothing here. The window is taken from the mask, which is what
transformers' plain attention goes by."""
OTHER_MASK = "it masks tokens otherwise than causal or by a sliding window (chunks, blocks, both directions, ...)"
READ = {"scaling", "softcap", "s_aux"}


@attrs.frozen(kw_only=True)
class Attending:
    """One call of attention: who, and what it asks for. Sizes as in ``interfaces.attention``."""

    path: str  # of the module that calls, in the model that was followed
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    scale: float
    window: int | None  # tokens a query sees, itself included
    soft_cap: float | None
    sinks: bool


@attrs.define
class Following:
    """A listener that takes down every call."""

    names: Mapping[nn.Module, str]  # of the model's modules
    calls: list[Attending] = attrs.field(factory=list)
    expected_mask: Any = None  # if given: the mask that must arrive untouched, and windows are not asked for
    _keys: list[Tensor] = attrs.field(factory=list)  # kept, so that no address is used twice

    def attention(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, settings: dict[str, Any]
    ) -> Tensor:
        name, path = type(module).__name__, self.names[module]
        given = {key for key, value in settings.items() if value is not None and value is not False}
        strange = sorted(given - WITHOUT_EFFECT - READ)
        if strange:
            raise CannotServe(f"{name} gives attention {', '.join(strange)}, which paged attention does not take")
        if settings.get("is_causal", getattr(module, "is_causal", True)) is False:
            raise CannotServe(f"{name} looks at later tokens")
        if any(call.path == path for call in self.calls):
            raise CannotServe(f"{name} runs several times a token, and has one cache")
        if k.shape[2] != q.shape[2]:
            raise CannotServe(
                f"{name} attends to other tokens than it is given (cross attention, or a cache of its own)"
            )
        if any(k is known for known in self._keys):
            raise CannotServe(f"{name} reads the keys of another layer (a shared cache)")
        self._keys.append(k)
        scale = settings.get("scaling")
        if not isinstance(scale, float | int | None):
            raise CannotServe(f"{name} scales scores by a {type(scale).__name__}, not by a number")
        self.calls.append(
            Attending(
                path=path,
                heads=q.shape[1],
                kv_heads=k.shape[1],
                k_dim=q.shape[3],
                v_dim=v.shape[3],
                scale=q.shape[3] ** -0.5 if scale is None else float(scale),
                window=self._window(name, mask),
                soft_cap=settings.get("softcap"),
                sinks=settings.get("s_aux") is not None,
            )
        )
        return q.new_empty(1, q.shape[2], q.shape[1], v.shape[3])

    def mask(self, settings: dict[str, Any]) -> Tensor:
        made = torch.empty(1, 1, settings["q_length"], settings["kv_length"], device=META)
        try:
            made.paged_window = window_of(settings)  # type: ignore[attr-defined]
        except CannotServe as error:  # matters only if a layer uses it
            made.paged_window = error  # type: ignore[attr-defined]
        return made

    def _window(self, name: str, mask: Any) -> int | None:
        if self.expected_mask is not None:
            if mask is not self.expected_mask:
                raise CannotServe(f"{name} is given a mask that the model changes (a bias of scores, perhaps)")
            return None
        if mask is None:
            raise CannotServe(f"{name} attends without a causal mask")
        if not hasattr(mask, "paged_window"):
            raise CannotServe(f"{name} is given a mask that is made in the model's own way")
        if isinstance(mask.paged_window, CannotServe):
            raise mask.paged_window
        return mask.paged_window


def window_of(settings: dict[str, Any]) -> int | None:
    """Tokens a query sees by this mask of transformers; None: all before it. Other masks are refused."""
    window = settings.get("local_size")
    reach = window or 1
    near = {q: (0, q - reach - 1, q - reach, q - reach + 1, q - 1, q, q + 1) for q in (0, 1, reach, 3 * reach + 1)}
    pairs = [(q, k) for q, keys in near.items() for k in keys if k >= 0]
    query, key = torch.tensor(pairs).unbind(1)
    want = (key <= query) & (key > query - window) if window else key <= query
    zero = torch.tensor(0)
    try:
        if torch.equal(settings["mask_function"](zero, zero, query, key).expand(want.shape), want):
            return window
    except Exception as error:  # a function over tensors that are not there, such as paddings
        raise CannotServe(OTHER_MASK) from error
    raise CannotServe(OTHER_MASK)


def follow(model: Any, base: Any, layers: Callable[[Tensor, Tensor], Any], mask: Tensor) -> list[Attending]:
    """All calls of attention, in order, of ``base``, the layers of transformers' ``model``, on the meta device.

    layers   layers(x [1, T, H], positions [1, T]): as the engine runs the model
    mask     what reaches attention then

    The model runs twice, from token ids as transformers runs it and from embeddings as the engine does. Both must
    call the same modules: a model that reads ids once more (an embedding for each layer) would go wrong silently.
    """
    takes = signature(base.forward).parameters
    if lacking := [name for name in ("inputs_embeds", "position_ids", "attention_mask") if name not in takes]:
        raise CannotServe(f"{type(base).__name__} does not take {', '.join(lacking)}")
    embed, names = model.get_input_embeddings(), {module: name for name, module in model.named_modules()}
    ids = torch.zeros(1, TOKENS, dtype=torch.int64, device=META)
    embeds = torch.empty(1, TOKENS, embed.weight.shape[-1], dtype=embed.weight.dtype, device=META)
    usual, ours = Following(names), Following(names, expected_mask=mask)
    everywhere = torch.ones_like(ids)
    called = _run(
        usual, base, lambda: base(input_ids=ids, attention_mask=everywhere, position_ids=ids, use_cache=False)
    )
    with TokenWise(TOKENS):
        called_by_us = _run(ours, base, lambda: layers(embeds, ids))
    if not usual.calls:
        raise CannotServe("none of its layers calls the attention interface")
    embedding = {name for name, module in base.named_modules() if module in set(embed.modules())}
    if lost := sorted((called ^ called_by_us) - embedding):
        raise CannotServe(f"given embeddings instead of token ids it leaves out {', '.join(lost[:3])}")
    if [attrs.evolve(call, window=None) for call in usual.calls] != ours.calls:
        raise CannotServe("given embeddings instead of token ids its layers attend otherwise")
    return usual.calls


def _run(listener: Following, base: nn.Module, run: Callable[[], Any]) -> set[str]:
    """Names of the modules that run."""
    names: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: names.add(name))
        for name, module in base.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), listening(listener):
            run()
    except CannotServe:
        raise
    except Exception as error:
        raise CannotServe(
            f"it cannot be followed without weights ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return names
