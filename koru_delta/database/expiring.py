"""When what a key holds ends to count, said after it was written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from koru_delta.causal import Version, When, microseconds
from koru_delta.database.arguments import ANY, write_options
from koru_delta.database.opened import Opened
from koru_delta.errors import InvalidDataError
from koru_delta.intents import KEEP, CauseLike
from koru_delta.log.expiry import renew


class ExpireVerbs(Opened):
    """Ends of what is written already."""

    def expire(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        at: When | None = None,
        if_match: Version | str | None = ANY,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Say when what a key holds ends to count, exactly, as if it had been put with that end.

        The value and its vectors are written again as a version with `expires_at`, true when
        the one before it was, hidden if that was, and `derived_from` it. Every moment before
        goes on as it was. Before the end `touch` moves or lifts it; after it, `revert`
        brings the value back.

        Args:
            ttl: Seconds (or a timedelta) from now on; or else
            at: the first moment at which the key is absent.

        Raises:
            KeyNotFoundError: the key holds nothing; ErasedError: what it holds was erased.
            InvalidTimestampError: `at` is not ahead.
            ConflictError: another version than `if_match` is the present one.
            AnnotationError: what it holds is superseded: then it is out of search already.
        """
        if (ttl is None) == (at is None):
            raise InvalidDataError("expire takes ttl= or at=, one of them; touch() lifts an end")
        self._check_writable()
        options = write_options(if_match, causes, ttl, None, None, author, message, run)
        write = self._intents.put(namespace, key, None, options)
        write.expires_at = None if at is None else microseconds(at)
        return renew(self._log, write)

    def touch(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = KEEP,
        if_match: Version | str | None = ANY,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Let what a key holds live on: for as long again as it was given, or as `ttl` says.

        As `expire` it writes the value again; where there is nothing to change, as for a
        key that never ends, it writes nothing and returns the present version.

        Args:
            ttl: Seconds (or a timedelta) from now on; None lets it never end.

        Raises:
            KeyNotFoundError: the key holds nothing, or has ended: `revert` brings it back.
            ConflictError, AnnotationError, ErasedError: as for `expire`.
        """
        self._check_writable()
        given = None if ttl is KEEP else ttl
        options = write_options(if_match, causes, given, None, None, author, message, run)
        write = self._intents.put(namespace, key, None, options)
        return renew(self._log, write, restart=ttl is KEEP)
