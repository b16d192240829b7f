"""Generated shops, kept in memory for the process and on disk for the next one."""

import hashlib
import json
import logging
import shutil
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from boost_trl.cache_folder import cache_folder
from boost_trl.files import whole_folder

from .catalogue import Catalogue
from .search import SearchIndex


logger = logging.getLogger(__name__)

# What a shop and its index are made by: this module and what it imports, which a test compares.
_SOURCES = (
    "cache catalogue full_catalogue full_table instructions records reward search small_catalogue stemmer text".split()
)


def _generate(name: str, seed: int) -> Catalogue:
    if name == "small":
        from .small_catalogue import generate_small_catalogue

        return generate_small_catalogue(seed)
    from .full_catalogue import generate_catalogue

    return generate_catalogue(seed)


@lru_cache(maxsize=4)
def load_catalogue(name: str, seed: int = 0) -> Catalogue:
    """A generated shop by name, from memory, from disk ([`cache_folder`]), or made now and put there, in the place of
    what older code made.

    Args:
        name (`str`): `"full"` or `"small"`.
        seed (`int`, *optional*, defaults to 0): what the shop is made from.

    Raises:
        ValueError: for another name.
    """
    if name not in ("full", "small"):
        raise ValueError(f"catalogue {name!r} is not 'full', 'small' or a Catalogue")
    folder = cache_folder("webshop") / f"{name}-{seed}-{_source_hash()}"
    if folder.is_dir():
        try:
            return read_catalogue(folder)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            logger.warning("the cached shop in %s cannot be read (%s); it is made again", folder, error)
    catalogue = _generate(name, seed)
    try:
        write_catalogue(catalogue, folder)
        for stale in set(folder.parent.glob(f"{name}-{seed}-*")) - {folder}:
            shutil.rmtree(stale, ignore_errors=True)
    except OSError as error:
        logger.warning("the shop cannot be cached in %s (%s); it will be made again next time", folder, error)
    return catalogue


def write_catalogue(catalogue: Catalogue, folder: str | Path) -> None:
    """Write products, goals and index to `folder` (JSON and NumPy arrays), whole or not at all."""
    with whole_folder(folder) as draft:
        index = catalogue.index
        content = {"products": catalogue.products, "prices": catalogue.prices, "goals": catalogue.goals}
        content |= {"terms": index.terms, "fingerprint": catalogue.fingerprint}
        (draft / "catalogue.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        np.savez(draft / "index.npz", starts=index.starts, documents=index.documents, impacts=index.impacts)
        shutil.rmtree(folder, ignore_errors=True)


def read_catalogue(folder: str | Path) -> Catalogue:
    """Read a catalogue that [`write_catalogue`] wrote."""
    folder = Path(folder)
    content = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
    with np.load(folder / "index.npz") as arrays:
        ids = [product["asin"] for product in content["products"]]
        index = SearchIndex(content["terms"], arrays["starts"], arrays["documents"], arrays["impacts"], ids)
    catalogue = Catalogue(content["products"], content["prices"], content["goals"], index)
    catalogue.fingerprint = content["fingerprint"]
    return catalogue


def _source_hash() -> str:
    """Changes with the code that makes shops, so that a cached one is never older than its code."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]
