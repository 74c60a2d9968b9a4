"""Checkpoints from the Hugging Face Hub. huggingface_hub is imported when a download is needed.

Its environment variables hold: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["HubError", "download"]

_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "tokenizer*")
_WEIGHTS = "*.safetensors"
# A repository's other layouts: the original release, other frameworks, exports.
_IGNORED = ("*/*", "consolidated*.safetensors")


class HubError(Exception):
    """Why nothing came from the Hub, and what would help."""


def download(
    model_id: str, *, revision: str | None = None, download_dir: str | None = None, weights: bool = True
) -> str:
    """The folder of a model's files, from the cache or the Hub; of ``ORG/NAME/FILE`` the path of that one file.

    download_dir   used instead of the Hub's own cache
    weights        False fetches configuration and tokenizer only
    """
    import huggingface_hub as hub

    repo, file = _split(model_id)
    try:
        if file:
            return hub.hf_hub_download(repo, file, revision=revision, cache_dir=download_dir)
        patterns = [*_SMALL, _WEIGHTS] if weights else list(_SMALL)
        folder = hub.snapshot_download(
            repo, revision=revision, cache_dir=download_dir, allow_patterns=patterns, ignore_patterns=list(_IGNORED)
        )
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as e:
        raise HubError(_why(e, repo, revision, file)) from e
    if weights and not any(Path(folder).glob(_WEIGHTS)):
        raise HubError(_no_weights(repo, revision, folder))
    return folder


def _split(model_id: str) -> tuple[str, str]:
    parts = model_id.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def _why(error: Exception, repo: str, revision: str | None, file: str) -> str:
    """One cause, in words, with the way out."""
    from huggingface_hub import constants, errors

    at = f"revision {revision!r} of " if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} asks for consent to its terms: accept them on its page, then set HF_TOKEN (or run `hf auth login`)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {repo}, or it is private and HF_TOKEN does not open it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}"
    if isinstance(error, errors.HFValidationError):
        return f"not a valid id: {_first_line(error)}"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{at}{repo} is not in the cache, and HF_HUB_OFFLINE keeps this process from the network; unset it, or copy"
            " the files here and give their folder"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = _first_line(error.__cause__ or error)
        return (
            f"{at}{repo} is not in the cache and the network gave: {cause}; with network access this name works,"
            " without it copy the files here and give their folder"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{at}{repo} has no file {file!r}"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _no_weights(repo: str, revision: str | None, folder: str) -> str:
    """The repository has no safetensors: say what it has instead."""
    import huggingface_hub as hub

    try:
        files = hub.HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # the advice is worth less than the error it belongs to
        return f"it has no *.safetensors in {folder}"
    if pickles := [f for f in files if f.endswith((".bin", ".pt", ".pth", ".ckpt"))]:
        return (
            f"it has no *.safetensors, only pickles ({', '.join(pickles[:3])}), and reading a pickle runs whatever code"
            " its author put there; look for a revision in safetensors (--revision refs/pr/N)"
        )
    others = [f for f in files if not f.endswith((*(p.removeprefix("*") for p in _SMALL), ".md", ".gitattributes"))]
    if others:
        return f"it has no *.safetensors; one of its files can be named, as in {repo}/{others[0]}"
    return "it has no *.safetensors, nor other weights"
