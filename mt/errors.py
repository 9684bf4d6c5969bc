"""Mistakes that a user can mend."""

from __future__ import annotations


class MTError(Exception):
    """A mistake in a user's input, options or files, with its remedy.

    The message is one line that names the file, line or option at fault and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """
