"""`WeightFormatConformance`: the tests that every weight format runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.testing.kit import Conformance
from vllm_core.testing.weight_format_case import AskedFormat, Written, plain_tensors
from vllm_core.testing.weight_format_damage import FormatDamage
from vllm_core.testing.weight_format_offers import FormatOffers
from vllm_core.testing.weight_format_reads import FormatReads


class WeightFormatConformance(FormatReads, FormatDamage, FormatOffers, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    weight_format   the name of its offer, as in --load-format
    dtypes          of the kit's tensors, which have every shape from a single number to three dimensions
    config          fields of config.json, or what the checkpoint should make of its metadata
    large           (name, shape) of a matrix whose first rows must be read without the rest of it
    padding         bytes at a file's end that mean nothing: it may be cut off there
    others          files of other formats, which the plugin must leave to others
    plugin_settings fields of [plugin.NAME]
    cannot          "parts": a part cannot be read without the rest -> why; any other name may be added. Printed after
                    every run

    Write checkpoints in ``write`` from the format's description or with its own library, not with the code that is
    tested; ``lies`` are files that contradict themselves.
    """

    kind = "weight-format"
    hook = "weight_format"
    subject = "weight_format"

    weight_format: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16", "int8", "int64", "uint8")
    config: ClassVar[Mapping[str, Any]] = {"architectures": ["TinyForCausalLM"], "hidden_size": 20}
    large: ClassVar[tuple[str, tuple[int, int]]] = ("model.large.weight", (16384, 256))
    padding: ClassVar[int] = 0
    others: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("config.json", "model.other-format"),
        ("config.json", "pytorch_model.bin"),
        ("config.json", "tokenizer.json"),
        (),
    )
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    def write(self, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
        """Make a checkpoint in an empty folder; the path that users give: a file, or the folder."""
        raise pytest.UsageError(f"{type(self).__name__} writes no checkpoint: override write()")

    def lies(self, content: bytes) -> Mapping[str, bytes]:
        """What is wrong -> ``content``, that of a weight file, with a header that says so."""
        raise pytest.UsageError(f"{type(self).__name__} has no file that contradicts itself: override lies()")

    def tensors(self) -> Mapping[str, Tensor]:
        """What is written: by the names that weight rules match."""
        return plain_tensors(self.dtypes)

    def read_as(self, name: str, tensor: Tensor) -> Tensor:
        """What reading should give of a tensor that was written: the same, bit for bit."""
        return tensor

    @classmethod
    def ask(cls) -> AskedFormat:
        return AskedFormat(cls.weight_format, cls.plugin_settings)

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> AskedFormat:
        return request.cls.ask()

    @pytest.fixture(scope="class")
    @classmethod
    def written(
        cls, request: pytest.FixtureRequest, asked: AskedFormat, tmp_path_factory: pytest.TempPathFactory
    ) -> Written:
        return request.cls().make(asked, tmp_path_factory.mktemp("checkpoint"))

    def make(self, asked: AskedFormat, folder: Path) -> Written:
        """A checkpoint of the kit's tensors, opened as the engine does it."""
        tensors = self.tensors()
        path = self.write(folder, self.config, tensors)
        wanted = {name: self.read_as(name, tensor) for name, tensor in tensors.items()}
        return Written(path, asked.open(path), wanted)

    def make_large(self, folder: Path) -> tuple[Path, Tensor]:
        """A checkpoint with the large matrix, beside the small tensors; what reading it should give."""
        name, shape = self.large
        number = torch.arange(shape[0] * shape[1], dtype=torch.float32).view(shape)
        matrix = number.remainder(8191).sub(4095)
        return self.write(folder, self.config, {**self.tensors(), name: matrix}), self.read_as(name, matrix)
