"""Opening a checkpoint: from what the user calls a model to its configuration, tokenizer and tensors."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.interfaces.weights import Checkpoint, TokenizerFiles, WeightSource
from vllm_core.plugins.errors import NoOffer
from vllm_core.weights.errors import CheckpointError, listing
from vllm_core.weights.locate import locate
from vllm_core.weights.safetensors import SafetensorsSource, read_json

__all__ = ["SafetensorsCheckpoint", "open_checkpoint"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CORE = "core"  # the plugin name under which the core offers safetensors


class SafetensorsCheckpoint:
    """A folder as `save_pretrained` writes it, or one ``.safetensors`` file beside its ``config.json``.

    Tensors are looked for when ``source`` is first used, so a folder without any serves dummy weights.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else self.path.parent
        config = self.folder / "config.json"
        if not config.is_file():
            raise CheckpointError(
                f"{self.folder} has no config.json, which says what model this is\n"
                f"  it has\n{listing(_files(self.folder) or ['nothing'])}"
            )
        self.config: dict[str, Any] = read_json(config)
        generation = self.folder / "generation_config.json"
        self.generation_config: dict[str, Any] = read_json(generation) if generation.is_file() else {}

    @cached_property
    def source(self) -> WeightSource:
        return SafetensorsSource(self.path)

    @cached_property
    def tokenizer(self) -> TokenizerFiles | None:
        found = any((self.folder / name).is_file() for name in _TOKENIZERS)
        return TokenizerFiles(path=str(self.folder)) if found else None


def open_checkpoint(
    model: str,
    *,
    choose: Any,
    catalog: Any = None,
    revision: str | None = None,
    download_dir: str | None = None,
    load_format: str = "auto",
) -> Checkpoint:
    """Find a model and open it in its format. No tensor is read.

    model         a folder or file, a bundled model's name, or a Hub id (``ORG/NAME``, or one file: ``ORG/NAME/FILE``)
    choose        ``Selector.choose``: asked for the weight format
    catalog       ``Catalog``, for bundled models; None: there are none
    load_format   a format's name; ``"auto"``: safetensors if there are any, else the best offer;
                  ``"dummy"``: as auto, but there need be no weights
    """
    path = locate(model, catalog=catalog, revision=revision, download_dir=download_dir, weights=load_format != "dummy")
    files = _files(path) if path.is_dir() else [path.name]
    if load_format == "dummy" and path.is_dir() and "config.json" in files:
        return SafetensorsCheckpoint(str(path))
    if path.is_dir() and not files:
        raise CheckpointError(f"the folder {path} holds no files")
    named = None if load_format in ("auto", "dummy") else load_format
    has_safetensors = any(name.endswith(".safetensors") for name in files)
    try:
        decision = choose(
            "weight_format",
            WeightFormatQuery(path=str(path), files=tuple(files)),
            named,
            asked_by="--load-format" if named else "",
            first=_CORE if has_safetensors else "",
        )
    except Exception as e:
        if named is not None or has_safetensors:
            raise
        if pickles := [f for f in files if f.endswith(_PICKLES)]:
            raise _pickles(path, pickles) from e
        if isinstance(e, NoOffer):
            raise _no_format(path, files, e, catalog) from e
        raise
    return decision.load()(str(path))


def _files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file())


def _no_format(path: Path, files: list[str], error: NoOffer, catalog: Any) -> CheckpointError:
    """Nobody takes these files: say what they are, who was asked, and who reads a format called like their endings."""
    why = "".join(f"\n  why     {reason}" for reason in error.facts.get("why", ()))
    for ending in sorted({Path(name).suffix[1:].lower() for name in files} - {""} if catalog is not None else ()):
        known = catalog.nobody("weight_format", ending).facts
        why += "".join(f"\n  {label:<7} {text}" for label in ("why", "install") for text in known.get(label, ()))
    dummy = '\n  instead load_format="dummy" runs a config.json without weights' if "config.json" in files else ""
    usual = "" if why or dummy else "\n  a checkpoint is a folder with config.json and *.safetensors"
    return CheckpointError(
        f"{path} holds no weights in a format that anybody here reads{why}\n  found\n{listing(files)}{dummy}{usual}"
    )


def _pickles(path: Path, files: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} holds weights as pickles only, and reading a pickle runs whatever code its author put there\n"
        f"  found\n{listing(files)}\n"
        "  instead a revision of the model in safetensors (on the Hub perhaps a pull request: --revision refs/pr/N), or"
        " convert it once where that code may run: load it with transformers, save_pretrained(FOLDER), serve FOLDER"
    )
