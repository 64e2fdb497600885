"""Guards imports of code that works on manifests, whose packages are an extra that a run does not need."""

from collections.abc import Iterator
from contextlib import contextmanager

from sweeper.errors import ConfigurationError


@contextmanager
def required() -> Iterator[None]:
    """Report a failed import in the body as a missing extra.

    Raises:
        ConfigurationError: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, and nothing was done. Manifests need more packages: "
            "pip install '.[manifest]' in the program's checkout"
        ) from None
