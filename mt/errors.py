"""Mistakes that a user can mend."""

from __future__ import annotations

from importlib.util import find_spec


class MTError(Exception):
    """A mistake in a user's input, options or files, with its remedy.

    The message is one line that names the file, line or option at fault and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """


def require(needed_by: str, extra: str, *packages: str, otherwise: str = "") -> None:
    """Tell before the work, and not after it, that an optional package is not installed.

    Args:
        needed_by: What asks for it, such as an option.
        extra: Of `mt`, with which the packages are installed.
        packages: By the names that Python imports.
        otherwise: What else one can do.

    Raises:
        MTError: A package is not there.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MTError(
                f"{needed_by}: the package {package} is not installed; "
                f"pip install 'mt[{extra}]'{otherwise}"
            )
