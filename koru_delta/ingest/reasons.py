"""Why something that was found is not ingested."""

from __future__ import annotations

from enum import Enum


class SkipReason(Enum):
    """Why a file, or one state of it, is not ingested; the value reads well in a report."""

    BINARY = "binary: it holds a NUL byte"
    NOT_UTF8 = "not valid UTF-8"
    TOO_LARGE = "larger than the limit"
    SYMLINK = "a symbolic link"
    SUBMODULE = "a submodule"
    PATH_NOT_UTF8 = "its path is not valid UTF-8"
    NOT_A_FILE = "neither a file nor a directory"
    UNREADABLE = "it could not be read"
    NEEDS_DOCUMENTS = "to read it: pip install 'koru-delta[documents]'"
    DAMAGED = "damaged, or not what its name says"
    ENCRYPTED = "encrypted with a password"
    NO_TEXT = "its pages hold no text, only pictures"
    TOO_DEEP = "its elements are nested too deeply"
