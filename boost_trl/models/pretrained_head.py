"""Saving and loading of small modules beside a language model: one safetensors file and one JSON file each."""

import json
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file

from boost_trl import __version__
from boost_trl.hub_names import resolve_model_name
from boost_trl.smollm2_package import SMOLLM2


class PretrainedHead(torch.nn.Module):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a module that is built from a dataclass `config`.

    `huggingface_hub.ModelHubMixin` is no base for it: its files are `config.json` and `model.safetensors`, which in a
    trainer's output folder are the language model's.
    """

    config_class: type
    weights_name: str
    config_name: str

    def save_pretrained(self, save_directory: str | Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Write the weights and the configuration into a folder, which is created if needed.

        Args:
            save_directory (`str` or `Path`): Folder; files of other names in it are left alone.
            state_dict (`dict`, *optional*): The weights, where the module does not hold them itself (ZeRO-3).
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state_dict = self.state_dict() if state_dict is None else state_dict
        state = {name: tensor.contiguous() for name, tensor in state_dict.items()}
        save_file(state, folder / self.weights_name, metadata={"format": "pt"})
        config = asdict(self.config) | {"boost_trl_version": __version__}
        (folder / self.config_name).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub_kwargs):
        """Load from a local folder or a Hub repository.

        Args:
            pretrained_model_name_or_path (`str` or `Path`): Folder that [`~PretrainedHead.save_pretrained`] wrote, or
                a Hub id.
            **hub_kwargs:
                `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only` and the like of
                [`~huggingface_hub.hf_hub_download`].

        Raises:
            FileNotFoundError: if a file is missing; the message names it.
            ValueError: if the weights do not fit the configuration.
        """
        config_file = _find(pretrained_model_name_or_path, cls.config_name, **hub_kwargs)
        weights_file = _find(pretrained_model_name_or_path, cls.weights_name, **hub_kwargs)
        values = json.loads(config_file.read_text())
        known = {field.name for field in fields(cls.config_class)}
        if unknown := sorted(values.keys() - known):
            warnings.warn(
                f"{cls.config_name} has entries that boost_trl {__version__} does not know and ignores: "
                f"{', '.join(unknown)}; it was written by version {values.get('boost_trl_version')}"
            )
        module = cls.from_config(cls.config_class(**{name: values[name] for name in known & values.keys()}))
        try:
            module.load_state_dict(load_file(weights_file))
        except RuntimeError as error:
            raise ValueError(f"{weights_file} does not fit {cls.config_name}: {error}") from error
        return module

    @classmethod
    def from_config(cls, config):
        """Build the module that `config` describes, with fresh weights."""
        return cls(config)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None, **commit_kwargs):
        """Upload the two files to a Hub model repository, which is created if needed; its other files stay.

        Args:
            repo_id (`str`): `"namespace/name"`.
            private (`bool`, *optional*): Visibility of a repository that is created.
            token (`str`, *optional*): Hub token; by default the stored login.
            **commit_kwargs:
                `commit_message`, `revision`, `create_pr`, `path_in_repo` of [`~huggingface_hub.HfApi.upload_folder`].

        Returns:
            [`~huggingface_hub.CommitInfo`]
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit_kwargs.setdefault("commit_message", f"Upload {type(self).__name__}")
            return api.upload_folder(repo_id=repo_id, folder_path=folder, **commit_kwargs)


def _find(source: str | Path, filename: str, **hub_kwargs) -> Path:
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
