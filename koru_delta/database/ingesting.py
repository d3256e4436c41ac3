"""Taking in documents, embedding anew, and taking out what turned out to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from koru_delta.causal import Version
from koru_delta.database.arguments import ANY, write_options
from koru_delta.database.writes import WriteVerbs
from koru_delta.embedders import Embedder
from koru_delta.values import Value

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.ingest.chunking import ChunkingConfig
    from koru_delta.ingest.lineage import Reference
    from koru_delta.ingest.quarantine import Quarantine
    from koru_delta.ingest.run import Run
    from koru_delta.ingest.sources import Source


class IngestVerbs(WriteVerbs):
    """What fills a database from outside, many commits at a time."""

    def reembed(
        self,
        namespace: str,
        model: str,
        embed_fn: Embedder,
        *,
        text: Callable[[str, Value], str] | None = None,
        batch: int = 256,
        progress: Callable[[int, int], None] | bool | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> int:
        """Give every present key that has a vector a vector of another model, and no other.

        Each becomes a new version of the same value, `derived_from` the version before, so
        what is asked of an earlier moment is answered by the model of that moment. The valid
        interval and the end of life of the version stay; what only holds at other valid
        times than now keeps its model. Keys that have a vector of this model alone are
        passed over, so a call that was interrupted is ended by the same call. A model that
        is new here measures as the namespace's others do.

        Args:
            embed_fn: As `embedder=` of `koru_delta.open`; called outside of every lock.
            text: What is embedded, of a key and its value. By default the value if it is a
                string, its field "text" if that is one, else its canonical JSON.
            batch: Keys embedded in one call and written in one commit.
            progress: Called with `(done, total)`; True shows a bar on standard error, False
                nothing, None a bar for more than 1,000 keys on a terminal.

        Returns:
            How many versions were written.

        Raises:
            IngestError: somebody wrote a key again and again while it was embedded. Here
                and below, what was embedded before stays.
            InvalidDataError: a key holds null and there is no `text`; and as `embed`.
            DimensionMismatchError, EmbedderError; and those of `put`.
        """
        from koru_delta.ingest.reembed import reembed

        note = message or f"embed with {model}"
        return reembed(
            self._intents, namespace, model, embed_fn, text=text, batch=batch, progress=progress,
            options=write_options(ANY, (), None, None, None, author, note, run),
        )  # fmt: skip

    def ingest(
        self,
        source: Source,
        *,
        namespace: str,
        chunking: ChunkingConfig | None = None,
        include: Sequence[str] = (),
        embedder: Embedder | Literal["own"] | None = "own",
        max_bytes: int | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
        progress: Callable[[int, Any], None] | bool | None = None,
    ) -> Run:
        """Take in documents, cut into chunks with vectors; again, only what has changed.

        A document is kept in `namespace`, its chunks in `f"{namespace}.chunks"`, which is
        what to search, the record of the run in `f"{namespace}.runs"`. A chunk is
        `derived_from` the version of its document that brought it. Of a changed document
        only changed chunks are embedded; those that are gone are deleted, so that every
        moment before finds what stood there then. Each flush is one commit: a run that was
        killed leaves whole documents, and the same call goes on from there.

        Args:
            source: A file or directory by its path, as it is now (a repository too; its
                history is `koru_delta.ingest.Git(path, rev=)`), or an iterable of records:
                mappings with `id` and `text`, or tuples `(id, text)` or `(id, text,
                metadata)`. `koru_delta.ingest.Files(paths, prune=True)` and
                `Records(records, complete=True)` also delete what is gone. A namespace has
                one kind of source.
            chunking: How to cut; None is as the runs before did, and by content in the first,
                see `koru_delta.ingest.chunking`. It and `embedder` are the same in every run
                that fills a namespace.
            include: Glob patterns of the files wanted; none is all.
            embedder: Makes the vectors; None stores text alone.
            max_bytes: Larger files are skipped; 2 MiB by default.
            run: Names the run; by default it is numbered.
            progress: Called with what is done and what there is to do (None: nobody knows);
                True shows a bar on standard error, False nothing, None a bar on a terminal
                for long work.

        Raises:
            IngestError: the source cannot be read, the namespace was filled in another way,
                or another run writes into it.
            InvalidDataError: a record or argument is not well formed, or the namespace ends in
                `.chunks`, `.commits` or `.runs`.
            EmbedderError: there is no embedder, or it failed.
            MissingExtraError: a PDF or HTML file was named itself, and the extra
                `documents` is not installed; in a directory such files are `skipped`.
        """
        from koru_delta.ingest.sources import ingest

        self._check_writable()
        return ingest(
            self, source, namespace=namespace, chunking=chunking, include=include,
            embedder=embedder, max_bytes=max_bytes, author=author, message=message, run=run,
            progress=progress,
        )  # fmt: skip

    def quarantine(
        self,
        ref: Reference,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Quarantine:
        """Take a version and all that was derived from it out of search, until `release`.

        It is one commit; `get`, `history` and every moment before it go on as before. What
        is derived later, such as by ingesting a changed document again, is found; asking
        once more covers that too.

        Args:
            ref: A version or its id, a match, `(namespace, key)` for every version a key
                has had, or a `Run` for all that it wrote.

        Raises:
            KeyNotFoundError, UnknownVersionError: there is no such thing.
            InvalidDataError: there is nothing that could be found in it.
        """
        from koru_delta.ingest.quarantine import quarantine

        self._check_writable()
        options = write_options(ANY, (), None, None, None, author, message, run)
        return quarantine(self._intents, ref, options)

    def release(
        self,
        quarantine: Quarantine | str,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """End a quarantine, by itself or its id: what no other one covers can be found again.

        Returns:
            The entries of the log that brought versions back, in one commit; their `target`s
            are those. Empty where another quarantine covers all of them: `quarantines()`
            tells which stand.

        Raises:
            UnknownVersionError: no such quarantine stands.
        """
        from koru_delta.ingest.quarantine import release

        self._check_writable()
        options = write_options(ANY, (), None, None, None, author, message, run)
        return release(self._intents, quarantine, options)
