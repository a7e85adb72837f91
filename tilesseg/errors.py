"""Refusals: what a user can cause, said in one line.

Every message names what is wrong, the two values that disagree, and what to do. The command line prints the
message alone and exits with 1; a traceback is for our own mistakes.
"""


class TilessegError(Exception):
    """Any refusal of tilesseg."""


class JobError(TilessegError):
    """The job asks for something that cannot work."""


class SourceError(TilessegError):
    """An image cannot be opened, or does not fit the model."""


class ModelError(TilessegError):
    """A model bundle is incomplete, damaged, or not what its spec says."""


class FormatError(TilessegError):
    """A product cannot be written in the format asked for."""


class StoreError(TilessegError):
    """A run directory cannot be used: not writable, or made by another plan."""
