"""How long a step takes on the GPUs of one stage: what it reads, multiplies and sends, against what they can do.

Each part is the larger of its bytes over the memory's bandwidth and its operations over the product units' rate, and
a small time that does not depend on either. Products of more than a few tokens are cut into tiles; as many rounds
are needed as there are tiles for each multiprocessor.
"""

from __future__ import annotations

from math import ceil

import attrs

from vllm_plugin_simulate.hardware import Gpu, Host
from vllm_plugin_simulate.shapes import Shapes
from vllm_plugin_simulate.split import Split

__all__ = ["ITEM", "StepTime", "Work"]

ITEM = 2  # bytes of a number
DIAGONAL = 64  # keys that a query of a prompt meets in vain: tiles are square, causality is not


@attrs.frozen
class Work:
    """What a step computes."""

    decoding: int  # rows of one token
    context: int  # tokens that these read, all together
    prompts: tuple[tuple[int, int], ...]  # (tokens, tokens in the cache before) of each chunk of a prompt
    samples: int  # rows that get a token

    @property
    def tokens(self) -> int:
        return self.decoding + sum(new for new, _ in self.prompts)


class StepTime:
    """``seconds(work, stage)``, and ``parts(work, stage)`` by purpose."""

    def __init__(self, shapes: Shapes, gpu: Gpu, host: Host, split: Split) -> None:
        self.shapes, self.gpu, self.host, self.split = shapes, gpu, host, split
        self.stages = shapes.stages(split.pp)
        self._products = shapes.layer_products(split.tp)
        self._layer_bytes = ITEM * shapes.layer_parameters(split.tp)
        kv_heads = shapes.kv_heads_of(split.tp)
        self._heads = shapes.heads // split.tp
        self._token_bytes = ITEM * 2 * kv_heads * shapes.head_dim  # of the cache, in a layer
        self._query_bytes = ITEM * self._heads * shapes.head_dim
        self._hidden_bytes = ITEM * shapes.hidden
        self._layers_known: dict[int, float] = {}  # by tokens: products, passes and sums of a layer

    def seconds(self, work: Work, stage: int = 0) -> float:
        return sum(self.parts(work, stage).values())

    def parts(self, work: Work, stage: int = 0) -> dict[str, float]:
        """Seconds of layers' products, passes and sums; attention; head and drawing; the step itself; waiting."""
        layers, gpu, tokens = self.stages[stage], self.gpu, work.tokens
        if tokens == 1 and work.decoding and self.split.gpus == 1:  # all layers are one kernel
            layer = gpu.stack_seconds + (self._layer_bytes + work.context * self._token_bytes) / gpu.bandwidth
            found = {"layers": layers * layer, "attention": 0.0}
        else:
            found = {"layers": layers * self._layer(tokens), "attention": layers * self.attention(work)}
        found["step"] = gpu.step_seconds + gpu.row_seconds * (work.decoding + len(work.prompts) - 1)
        if stage == len(self.stages) - 1:
            found["head"] = self.head(work.samples)
        if work.prompts and tokens > self.host.recorded_tokens:  # kernel by kernel: the host may be slower
            found["launches"] = max(0.0, layers * self.launch_seconds - found["layers"] - found["attention"])
        return found

    @property
    def launch_seconds(self) -> float:
        """For the host to launch a layer of a step that is not recorded."""
        return self.host.layer_launches * self.host.launch_seconds

    def product(self, tokens: int, out: int, into: int) -> float:
        """Of ``tokens`` rows with a matrix [out, into]."""
        gpu = self.gpu
        size = ITEM * (out * into + tokens * (out + into))
        return gpu.product_seconds + max(size / gpu.bandwidth, self._tiles(tokens, out, into))

    def attention(self, work: Work) -> float:
        """Of a layer."""
        gpu, found = self.gpu, 0.0
        if work.decoding:
            found += gpu.attention_seconds + work.decoding * gpu.attention_row_seconds
            found += work.context * self._token_bytes / gpu.bandwidth
        if work.prompts:
            new = sum(new for new, _ in work.prompts)
            pairs = sum(new * (before + new / 2 + DIAGONAL) for new, before in work.prompts)
            moved = new * 2 * (self._query_bytes + self._token_bytes / 2)
            found += gpu.attention_seconds + moved / gpu.bandwidth
            found += 4 * self._heads * self.shapes.head_dim * pairs / gpu.attention_flops
        return found

    def head(self, samples: int) -> float:
        """Logits of the rows that get a token, and drawing it: a pass over them."""
        if not samples:
            return 0.0
        vocab = -(-self.shapes.vocab // self.split.tp)
        logits = ITEM * samples * vocab
        gathered = self.split.gather_seconds(logits)
        drawn = self.gpu.pass_seconds + logits * self.split.tp / self.gpu.bandwidth
        return self.product(samples, vocab, self.shapes.hidden) + gathered + drawn

    def send_bytes(self, tokens: int) -> int:
        """From a stage to the next: hidden states, with the residual added."""
        return tokens * self._hidden_bytes

    def _layer(self, tokens: int) -> float:
        """Products, passes between them and sums over ranks."""
        found = self._layers_known.get(tokens)
        if found is None:
            products = sum(self.product(tokens, out, into) for out, into in self._products)
            sums = 2 * self.split.reduce_seconds(tokens * self._hidden_bytes)
            found = self._layers_known[tokens] = products + self._passes(tokens) + sums
        return found

    def _passes(self, tokens: int) -> float:
        """Two residual adds with their norms, rotary with the writing of pages, SiLU."""
        gpu, (qkv, _, gate_up, _) = self.gpu, self._products
        moved = ITEM * tokens * (2 * 4 * self.shapes.hidden + 2 * qkv[0] + 3 * gate_up[0] / 2)
        return 4 * gpu.pass_seconds + moved / (gpu.bandwidth * gpu.pass_bandwidth)

    def _tiles(self, tokens: int, out: int, into: int) -> float:
        """Rounds of tiles over the multiprocessors, in the better of two sizes."""
        gpu = self.gpu
        found = []
        for side, share in ((128, 1.0), (64, gpu.half_tile)):
            rounds = ceil(ceil(tokens / side) * ceil(out / side) / gpu.multiprocessors)
            found.append(rounds * 2 * side * side * into * gpu.multiprocessors / (gpu.product_flops * share))
        return min(found)
