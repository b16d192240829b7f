"""Names of a package that load on first use."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def load_on_use(package: str, module_of: dict[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package (`str`): its `__name__`.
        module_of (`dict`): name -> module that defines it. No submodule of the package may have one of these names: once
            imported, it would stand in the place of what it defines.
    """

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
