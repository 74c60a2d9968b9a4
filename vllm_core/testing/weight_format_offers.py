"""What a weight format's plugin says: which files are its own, and that it is light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.weight_format_case import AskedFormat, Written


class FormatOffers:
    """Tests of the plugin's hook."""

    weight_format: ClassVar[str]
    others: ClassVar[tuple[tuple[str, ...], ...]]
    cannot: ClassVar[Mapping[str, str]]

    def test_its_files_are_recognised_by_their_names(self, asked: AskedFormat, written: Written) -> None:
        query = asked.query(written.path)
        offer = asked.offer(query)
        assert offer.name == self.weight_format, f"the offer is called {offer.name}, not {self.weight_format}"
        listed = any((o.kind, o.name) == ("weight_format", offer.name) for o in asked.plugin.provides)
        assert listed, f"provides() does not list {offer.name}"
        if written.path.is_dir():
            assert query.files, f"{written.path} is empty"

    def test_the_engine_finds_it_without_being_told(self, asked: AskedFormat, written: Written) -> None:
        opened = asked.open(written.path, "auto")
        assert type(opened).__name__ == type(written.checkpoint).__name__, (
            f"{written.path.name} is opened as {type(opened).__name__} if nobody names the format"
        )
        assert set(opened.source.tensors()) == set(written.tensors)

    def test_files_of_other_formats_are_left_to_others(self, asked: AskedFormat) -> None:
        for files in self.others:
            answer = asked.answer(WeightFormatQuery(path="/a/folder", files=files))
            assert answer.offer is None, f'"{self.weight_format}" would open {", ".join(files) or "an empty folder"}'

    def test_the_plugin_module_imports_without_torch(self, asked: AskedFormat) -> None:
        assert_imports_light(asked.module)
