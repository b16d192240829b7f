"""Names of packages that load on first use."""

import importlib
import pkgutil
from types import ModuleType

import pytest


PACKAGES = ["boost_trl", "boost_trl.selection", "boost_trl.trainer"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_loads_and_no_submodule_takes_its_place(package):
    package = importlib.import_module(package)
    assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not any(isinstance(getattr(package, name), ModuleType) for name in package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_refused(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        getattr(importlib.import_module(package), "noth" + "ing")
