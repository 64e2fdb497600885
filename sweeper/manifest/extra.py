"""The door to what works on manifests: its packages are an extra, and a sweep does without them."""

from types import ModuleType

from sweeper.errors import ConfigurationError


def lifecycle() -> ModuleType:
    """The module `lifecycle`, once its packages are known to be there.

    Raises:
        ConfigurationError: one of them is not installed.
    """
    try:
        from sweeper.manifest import lifecycle as found
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, and nothing was done. Manifests need more packages: "
            "pip install '.[manifest]' in the program's checkout"
        ) from None
    return found
