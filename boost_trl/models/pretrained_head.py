"""Saving and loading of small modules beside a language model: one safetensors file and one JSON file each."""

import json
import warnings
from dataclasses import asdict, fields
from pathlib import Path

import torch
from huggingface_hub import CommitInfo
from safetensors.torch import load_file, save_file

from boost_trl.hub_files import find_file, push_files
from boost_trl.version import __version__


class PretrainedHead(torch.nn.Module):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a module that is built from a dataclass `config`.

    `huggingface_hub.ModelHubMixin` is no base for it: its files are `config.json` and `model.safetensors`, which in a
    trainer's output folder are the language model's.
    """

    config_class: type
    weights_name: str
    config_name: str

    @property
    def card_text(self) -> str:
        """Description of the module on its card, without a stop."""
        raise NotImplementedError

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
        config_file = find_file(pretrained_model_name_or_path, cls.config_name, **hub_kwargs)
        weights_file = find_file(pretrained_model_name_or_path, cls.weights_name, **hub_kwargs)
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

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None, **commit_kwargs
    ) -> CommitInfo:
        """Upload the two files to a Hub model repository, which is created if needed; its other files stay. A repository
        without a model card gets one that says how to load them.

        Args:
            repo_id (`str`): `"namespace/name"`.
            private (`bool`, *optional*): Visibility of a repository that is created.
            token (`str` or `bool`, *optional*): Hub token; by default the stored login.
            **commit_kwargs:
                `commit_message`, `revision`, `create_pr`, `path_in_repo` of [`~huggingface_hub.HfApi.upload_folder`].

        Returns:
            [`~huggingface_hub.CommitInfo`]
        """
        name = type(self).__name__
        return push_files(
            self.save_pretrained,
            repo_id,
            loader=f"boost_trl.{name}",
            text=f"{self.card_text}. Saved by boost_trl {__version__}.",
            private=private,
            token=token,
            **commit_kwargs,
        )
