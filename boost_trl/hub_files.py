"""Files of a folder or of a Hub repository, and folders that become one: what small modules beside a model are loaded and pushed
with."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitInfo, HfApi, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from boost_trl.hub_names import resolve_model_name
from boost_trl.smollm2_package import SMOLLM2


CARD_NAME = "README.md"


def find_file(source: str | Path, filename: str, **hub_kwargs) -> Path:
    """The file of a local folder or of a Hub repository.

    Args:
        source (`str` or `Path`): folder or Hub id.
        filename (`str`): in it.
        **hub_kwargs: `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only` of [`~huggingface_hub.hf_hub_download`].

    Raises:
        FileNotFoundError: if there is no such file; the message names it.
    """
    if Path(source).is_dir():
        path = Path(source, hub_kwargs.get("subfolder") or "", filename)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: is {source} the output_dir of a finished training?")
        return path
    _check_name(str(source), filename, **hub_kwargs)
    try:
        return Path(hf_hub_download(str(source), filename, **hub_kwargs))
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{filename} is neither in a local folder {source} nor to be had from the Hub repository of that name"
        ) from error


def _check_name(name: str, filename: str, revision: str | None = None, cache_dir: str | None = None, **kwargs) -> None:
    """Refuse at once a name of which `hf_hub_download` would ask the Hub again and again."""
    if name == SMOLLM2:
        raise FileNotFoundError(
            f"{name!r} is a plain language model, which has no {filename}: name the output_dir of a finished training"
        )
    # As that of a model, the file may lie in the cache.
    resolve_model_name(name, revision=revision, cache_dir=cache_dir, gguf_file=filename, **kwargs)


def push_files(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    loader: str,
    text: str,
    private: bool | None = None,
    token: str | bool | None = None,
    **commit_kwargs,
) -> CommitInfo:
    """Upload what `save(folder)` writes to a model repository, which is created if needed; its other files stay. A repository
    without a card gets one.

    Args:
        save (`Callable`): writes the files into a folder.
        repo_id (`str`): `"namespace/name"`.
        loader (`str`): the class whose `from_pretrained` loads them, as `"boost_trl.ValueHeads"`.
        text (`str`): what they are, a sentence for the card.
        private, token, commit_kwargs (*optional*): as of `push_to_hub` everywhere.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    has_card = api.file_exists(repo_id, CARD_NAME, revision=commit_kwargs.get("revision"))
    with TemporaryDirectory() as folder:
        save(Path(folder))
        if not has_card and not commit_kwargs.get("path_in_repo"):
            _card(repo_id, loader, text).save(Path(folder, CARD_NAME))
        commit_kwargs.setdefault("commit_message", f"Upload {loader.rpartition('.')[2]}")
        return api.upload_folder(repo_id=repo_id, folder_path=folder, **commit_kwargs)


def _card(repo_id: str, loader: str, text: str) -> ModelCard:
    data = ModelCardData(library_name="boost_trl", tags=["boost_trl", "trl"])
    module, _, name = loader.rpartition(".")
    variable = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    code = f'from {module} import {name}\n\n{variable} = {name}.from_pretrained("{repo_id}")'
    heading = f"# {repo_id.rpartition('/')[2]}"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{heading}\n\n{text}\n\n```python\n{code}\n```\n")
