"""Names of packages that load on first use."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest


PACKAGES = ["boost_trl", "boost_trl.analysis", "boost_trl.selection", "boost_trl.trainer"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_loads_and_no_submodule_takes_its_place(package):
    package = importlib.import_module(package)
    assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not any(isinstance(getattr(package, name), ModuleType) for name in package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_refused(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        getattr(importlib.import_module(package), "noth" + "ing")


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_are_told_the_same_names(package):
    """A type checker reads the stub beside `__init__.py`, which runs nothing."""
    package = importlib.import_module(package)
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text())
    told = {alias.asname: f"{node.module}.{alias.name}" for node in stub.body for alias in node.names}
    told.pop("__version__", None)
    assert told == {name: f"{module}.{name}" for name, module in package._MODULE_OF.items()}
