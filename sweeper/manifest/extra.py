"""Imports the code that works on manifests, whose packages are an extra that a run does not need."""

from types import ModuleType

from sweeper.errors import ConfigurationError


def lifecycle() -> ModuleType:
    """Return the module `lifecycle`.

    Raises:
        ConfigurationError: a package is not installed.
    """
    try:
        from sweeper.manifest import lifecycle as module
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, and nothing was done. Manifests need more packages: "
            "pip install '.[manifest]' in the program's checkout"
        ) from None
    return module
