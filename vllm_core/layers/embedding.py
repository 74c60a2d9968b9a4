"""Both ends of a model: token ids to vectors, vectors to logits, split over ranks by vocabulary."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.plan import Plan
from vllm_core.interfaces.quantization import EmbeddingMethod, LinearShape
from vllm_core.layers.base import Layer
from vllm_core.layers.linear import Linear
from vllm_core.layers.params import FilledLayer
from vllm_core.layers.shards import Shard, split_padded, whole


class TokenEmbedding(FilledLayer):
    """ids [T] -> [T, hidden]. On pipeline stages behind the first: undefined values of that shape.

    There the weight exists only where a tied head needs it.
    """

    method: EmbeddingMethod | None = None  # None: dense, the parameter ``weight``

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.vocab_size, self.hidden = vocab_size, hidden
        self.is_head = False  # a tied head multiplies with it

    def setup(self, plan: Plan) -> None:
        self.group = plan.group("tp")
        stage = plan.group("pp")
        self.begins = stage.rank == 0
        self.dtype = plan.dtype
        if not self.begins and not (self.is_head and stage.rank == stage.size - 1):
            self.elsewhere = [""]
            return
        shard = split_padded(self.vocab_size, self.group)
        self.first, self.end = shard.start, shard.stop
        shape = LinearShape(in_size=self.hidden, out_sizes=(shard.size,))
        self.method = plan.embedding(self.path, shape)
        if self.method is not None:
            self.make_params(plan, self.method.params(shape, plan.dtype), whole(self.hidden), {"": shard})
            return
        self.make_parameter("weight", (shard.size, self.hidden), plan.dtype, plan.torch_device)
        row = (0, self.hidden)
        read, into = ((shard.start, shard.stop), row), ((0, shard.stop - shard.start), row)
        self.loads["weight"] = {"": SlotRange((self.vocab_size, self.hidden), read, into)}
        self.lookup = plan.op("embedding", size=self.hidden, vocab=shard.size)

    def loaded(self) -> None:
        if self.method is not None:
            self.method.loaded(self)

    def rows(self, ids: Tensor) -> Tensor:
        """Of this rank's share."""
        if self.method is not None:
            return self.method.rows(self, ids)
        return self.lookup(ids, self._parameters["weight"])

    def forward(self, ids: Tensor) -> Tensor:
        if not self.begins:
            return ids.new_empty((len(ids), self.hidden), dtype=self.dtype)
        if self.group.size == 1:
            return self.rows(ids)
        mine = (ids >= self.first) & (ids < self.end)
        x = self.rows((ids - self.first).masked_fill(~mine, 0))
        return self.group.all_reduce(x.masked_fill(~mine.unsqueeze(-1), 0))


class LMHead(Linear):
    """hidden [N, hidden] -> logits [N, vocab_size], gathered from all ranks."""

    def __init__(self, vocab_size: int, hidden: int, bias: bool = False) -> None:
        super().__init__(hidden, {"": vocab_size}, bias)
        self.vocab_size = vocab_size

    def shards(self, plan: Plan) -> tuple[Shard, dict[str, Shard]]:
        self.group = plan.group("tp")
        return whole(self.in_size), {"": split_padded(self.vocab_size, self.group)}

    def forward(self, x: Tensor) -> Tensor:
        return self.group.all_gather(self.apply_linear(self, x))[..., : self.vocab_size]


class TiedHead(Layer):
    """A head that multiplies with the embedding's own weight; ``bias`` is one of the head's own.

    Checkpoints may hold the weight a second time, as the head's.
    """

    embedding: TokenEmbedding
    unread = {"weight": "the head is the embedding"}

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.has_bias = bias

    def tie(self, embedding: TokenEmbedding) -> None:
        # Past nn.Module's bookkeeping: the embedding is no child and its weight is loaded once.
        object.__setattr__(self, "embedding", embedding)
        embedding.is_head = True

    def setup(self, plan: Plan) -> None:
        self.group = plan.group("tp")
        rows = split_padded(self.embedding.vocab_size, self.group)
        if self.has_bias:
            self.make_parameter("bias", (rows.size,), plan.dtype, plan.torch_device)
            read, into = ((rows.start, rows.stop),), ((0, rows.stop - rows.start),)
            self.loads["bias"] = {"": SlotRange((self.embedding.vocab_size,), read, into)}
        self.pack = None
        if self.embedding.method is None:
            self.product = plan.op("linear", in_size=self.embedding.hidden, out_size=rows.size, bias=self.has_bias)
            self.pack = getattr(self.product, "pack", None)

    def loaded(self) -> None:
        if self.pack is not None:  # a copy: lookups read the weight as it is
            self.__dict__["packed"] = self.pack(self.embedding._parameters["weight"])

    def forward(self, x: Tensor) -> Tensor:
        bias = self._parameters.get("bias")
        if self.embedding.method is not None:
            logits = self.embedding.method.apply(self.embedding, x)
            logits = logits if bias is None else logits + bias
        else:
            weight = self.embedding._parameters["weight"] if self.pack is None else self.__dict__["packed"]
            logits = self.product(x, weight, bias)
        return self.group.all_gather(logits)[..., : self.embedding.vocab_size]
