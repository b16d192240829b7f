"""Environments that are classes in a Python file, named `path/to/file.py:ClassName`."""

import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any


_METHODS = ("tasks", "reset", "step", "admissible_actions", "close")


def names_file(name: str) -> bool:
    """Whether `name` is of the form `path/to/file.py:ClassName`."""
    return name.rpartition(":")[0].endswith(".py")


def load_from_file(name: str) -> Callable[..., Any]:
    """The class or function that `name` means. The file is run, once in a process.

    Args:
        name (`str`): `path/to/file.py:ClassName`.

    Raises:
        ValueError: if there is no such file, it cannot be run, or what it has under this name is no environment.
    """
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"the environment {name!r} cannot be made: there is no file {path!r} here")
    module = _run(Path(path).resolve())
    factory = getattr(module, attribute, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{path} has no class {attribute!r}; it has {', '.join(own) or 'none'}")
    missing = [method for method in _METHODS if isinstance(factory, type) and not hasattr(factory, method)]
    if missing:
        raise ValueError(f"{name} is no environment: it has no {', '.join(f'`{method}`' for method in missing)}")
    return factory


@cache
def _run(path: Path) -> ModuleType:
    module_name = f"{path.stem}_environment_file"
    # Where classes look for their module, as dataclasses do while they are made.
    module = sys.modules[module_name] = ModuleType(module_name)
    module.__file__ = str(path)
    # As where Python runs a script: files beside it can be imported.
    sys.path.insert(0, str(path.parent))
    try:
        SourceFileLoader(module_name, str(path)).exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
