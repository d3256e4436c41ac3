"""Keys made of names that may be any strings, and bytes as JSON.

A key is parts joined by "/". No part holds one of its own, so that no two sequences of
names share a key, and those that begin alike stand together in key order.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final

import koru_delta
from koru_delta_langchain.ids import text

_QUOTED: Final = str.maketrans(
    {"%": "%25", "/": "%2F", "#": "%23", "=": "%3D", "\0": "%00"}
)  # "#" starts a hash, "=" the key of a store's item
_LONGEST: Final = 200  # bytes of a part; a key has at most 1024 in all
_LONGEST_ID: Final = 100
_REVERSED: Final = bytes(range(255, -1, -1))

_TWICE: Final = bytes(range(128, 256)) + b'"\\\n\r\t\b\f'  # take two bytes in JSON
_SIXFOLD: Final = bytes(byte for byte in range(32) if byte not in b"\n\r\t\b\f")


def part(name: str, longest: int = _LONGEST) -> str:
    """`name` as one part of a key; its hash where it takes more than `longest` bytes.

    >>> part("user/42"), part("é"), len(part("x" * 300))
    ('user%2F42', 'é', 65)
    """
    quoted = text("a name", name).translate(_QUOTED)
    data = quoted.encode(errors="surrogatepass")
    if len(data) <= longest:
        return quoted
    return "#" + sha256(name.encode(errors="surrogatepass")).hexdigest()


def name_of(quoted: str) -> str | None:
    """The name a part was made of, or None where only its hash is there.

    >>> name_of(part("100% a/b"))
    '100% a/b'
    """
    if quoted.startswith("#"):
        return None
    for plain, sign in (("/", "%2F"), ("#", "%23"), ("=", "%3D"), ("\0", "%00"), ("%", "%25")):
        quoted = quoted.replace(sign, plain)
    return quoted


def newest_first(identity: str) -> str:
    """A part that sorts the other way than `identity`, by its first 100 bytes of UTF-8.

    >>> ids = ["a", "ab", "b", "", "é", "x" * 99 + "1", "x" * 99 + "12"]
    >>> sorted(ids, key=newest_first) == sorted(ids, reverse=True)
    True
    """
    data = text("a checkpoint id", identity).encode(errors="surrogatepass")
    turned = data[:_LONGEST_ID].translate(_REVERSED).hex()
    # What goes on comes before what ends: any hex digit sorts below "g".
    if len(data) <= _LONGEST_ID:
        return turned + "g"
    return turned + "f" + sha256(data).hexdigest()


def packed(kind: str, data: bytes) -> list[str]:
    r"""What a serializer made, as JSON: as text where that is shorter, else in base 64.

    Messages are mostly ASCII, which stays readable and compresses better as itself.

    >>> packed("msgpack", b"\xa5hello")
    ['msgpack', '¥hello']
    >>> packed("bytes", bytes(3))
    ['bytes', 'AAAA', 'base64']
    """
    size = len(data)
    twice = size - len(data.translate(None, _TWICE))
    sixfold = size - len(data.translate(None, _SIXFOLD))
    if twice + 5 * sixfold <= size // 3 + 10:  # base 64 takes a third more, and its name
        return [kind, data.decode("latin-1")]
    return [kind, b64encode(data).decode("ascii"), "base64"]


def unpacked(stored: object) -> tuple[str, bytes]:
    """What `packed` was given.

    Raises:
        InvalidDataError: it is something else.
    """
    match stored:
        case [str(kind), str(data)]:
            return kind, data.encode("latin-1")
        case [str(kind), str(data), "base64"]:
            return kind, b64decode(data)
    raise koru_delta.errors.InvalidDataError(
        f"this is nothing a serializer made, but {type(stored).__name__}; keep other values in "
        "another namespace"
    )
