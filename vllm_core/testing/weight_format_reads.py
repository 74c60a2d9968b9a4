"""What a weight format gives: the tensors that were written, whole, in parts, and from several threads."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import torch

from vllm_core.testing.weight_format_case import (
    AskedFormat,
    Written,
    bits,
    in_a_process,
    parts_of,
    weight_files,
)
from vllm_core.testing.weight_format_child import digest

ROWS = 64  # a part of the large matrix is its rows over this
THREADS = 8


class FormatReads:
    """Tests of a checkpoint that is whole."""

    config: ClassVar[Mapping[str, Any]]
    large: ClassVar[tuple[str, tuple[int, int]]]
    needs: Any

    def test_the_config_is_what_was_written(self, written: Written) -> None:
        found = written.checkpoint.config
        for name, value in self.config.items():
            assert found.get(name) == value, f"config {name!r} is {found.get(name)!r}, and {value!r} was written"
        assert isinstance(written.checkpoint.generation_config, dict)
        tokenizer = written.checkpoint.tokenizer
        assert tokenizer is None or tokenizer.path or tokenizer.tokenizer_json, "a tokenizer without files or content"

    def test_names_shapes_and_dtypes_are_those_of_the_source(self, written: Written) -> None:
        infos = written.checkpoint.source.tensors()
        assert set(infos) == set(written.tensors), (
            f"missing are {sorted(set(written.tensors) - set(infos))[:5]}, nobody wrote"
            f" {sorted(set(infos) - set(written.tensors))[:5]}"
        )
        for name, tensor in written.tensors.items():
            info = infos[name]
            assert info.name == name, f"{name} is called {info.name} in its TensorInfo"
            assert tuple(info.shape) == tuple(tensor.shape), f"{name} is {list(info.shape)}, not {list(tensor.shape)}"
            assert f"torch.{info.dtype}" == str(tensor.dtype), f"{name} is {info.dtype}, not {tensor.dtype}"
        room = sum(file.stat().st_size for file in weight_files(written.path))
        count = sum(info.nbytes for info in infos.values())
        assert 0 < count <= room, f"tensors have {count:,} bytes on disk by their TensorInfo, the files {room:,}"

    def test_values_are_those_of_the_source(self, written: Written) -> None:
        """Bit for bit, on the CPU; a second time, too."""
        source = written.checkpoint.source
        for name, want in written.tensors.items():
            for _ in range(2):
                got = source.read(name)
                assert got.device.type == "cpu"
                assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{name} is {got.dtype} {list(got.shape)}"
                wrong = int((bits(got) != bits(want)).sum())
                assert not wrong, f"{wrong} of {want.nbytes} bytes of {name} differ from what was written"

    def test_a_part_is_that_part_of_the_whole(self, written: Written) -> None:
        for name, want in written.tensors.items():
            for slices in parts_of(want.shape):
                got, part = written.checkpoint.source.read(name, slices), want[tuple(slice(*s) for s in slices)]
                assert (got.dtype, got.shape) == (part.dtype, part.shape), (
                    f"{name} {slices} is {got.dtype} {list(got.shape)}, not {part.dtype} {list(part.shape)}"
                )
                assert torch.equal(bits(got), bits(part)), f"{name} {slices} is not that part of the whole"

    def test_a_part_is_read_without_the_rest(self, asked: AskedFormat, written: Written, tmp_path: Path) -> None:
        """Half of the file is gone when the first rows of a large matrix are read, and with it what nobody asked for.

        A rank of eight would otherwise read the checkpoint eight times.
        """
        self.needs("parts")
        path, want = self.make_large(tmp_path)  # type: ignore[attr-defined]
        name, rows = self.large[0], len(want) // ROWS
        whole = tuple((0, n) for n in want.shape[1:])
        said, ended = in_a_process(
            {
                "job": "part",
                "target": asked.offer_for(path).target,
                "good": str(written.path),
                "checkpoint": str(path),
                "large": name,
                "first": ((rows, rows + 1), *whole),
                "files": [str(file) for file in weight_files(path) if file.stat().st_size > 1 << 20],
                "parts": [((0, rows), *whole), ((len(want) - rows, len(want)), *whole)],
            }
        )
        assert {"cut": True} in said, f"the checkpoint with a matrix of {want.nbytes:,} bytes does not open: {ended}"
        digests = [line["digest"] for line in said if "digest" in line]
        assert digests, (
            f"reading rows 0 to {rows} of {len(want)} needs what lies in the second half of the file ({ended})\n"
            "  instead read the bytes of the part alone, or `cannot` says why not: {'parts': ...}"
        )
        assert digests[0] == digest(want[:rows]), f"rows 0 to {rows} are not those of the source"
        assert digests[1:] != [digest(want[-rows:])], (
            f"the last rows of {name} could be read when they were no longer in the file: they were read before anybody"
            " asked for them"
        )

    def test_threads_read_at_the_same_time(self, written: Written) -> None:
        source = written.checkpoint.source

        def read(name: str) -> str:
            try:
                got = source.read(name)
            except Exception as error:
                return f"{name} raises {type(error).__name__}: {error}"
            same = got.shape == written.tensors[name].shape and torch.equal(bits(got), bits(written.tensors[name]))
            return "" if same else f"{name} differs from what was written"

        with ThreadPoolExecutor(THREADS) as threads:
            wrong = sorted(set(threads.map(read, [*written.tensors] * 4)) - {""})
        assert not wrong, f"read by {THREADS} threads at a time, " + "\n  ".join(wrong[:5])

    def test_other_ways_to_a_tensor_lead_to_the_same(self, written: Written) -> None:
        """``read_into`` and ``locate``, where a source has them."""
        source = written.checkpoint.source
        for name, want in written.tensors.items():
            if (read_into := getattr(source, "read_into", None)) is not None and want.is_floating_point():
                for dtype in (want.dtype, torch.float32, torch.bfloat16):
                    for slices in ((), *list(parts_of(want.shape))[-1:]):
                        part = want[tuple(slice(*s) for s in slices)]
                        out = torch.full(part.shape, 7, dtype=dtype)
                        read_into(name, slices, out)
                        same = torch.equal(bits(out.nan_to_num()), bits(part.to(dtype).nan_to_num()))
                        assert same, f"read_into({name}, {slices}) of {dtype} is not what read gives"
            if (locate := getattr(source, "locate", None)) is not None and (place := locate(name)) is not None:
                with Path(place.path).open("rb") as file:
                    file.seek(place.offset)
                    stored = file.read(want.nbytes)
                assert stored == bits(want).numpy().tobytes(), f"{name} does not lie at byte {place.offset:,}"

    def test_what_was_read_outlives_the_source(self, asked: AskedFormat, written: Written) -> None:
        source = asked.open(written.path).source
        read = {name: source.read(name) for name in written.tensors}
        source.close()
        del source
        wrong = [name for name, tensor in read.items() if not torch.equal(bits(tensor), bits(written.tensors[name]))]
        assert not wrong, f"{', '.join(wrong[:5])} changed when the source was closed"
