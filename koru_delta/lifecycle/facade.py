"""`db.lifecycle`: what is wished, planned and done so that what matters is near."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import numpy as np

from koru_delta.causal import Cut, Version, moment
from koru_delta.errors import (
    EmbedderError,
    InvalidDataError,
    KoruDeltaError,
    QueryError,
    ReadOnlyError,
    SummarizerError,
)
from koru_delta.lifecycle.consolidate import (
    Consolidation,
    Consolidator,
    Summarizer,
    Undoable,
    name_of,
)
from koru_delta.lifecycle.grouping import Consolidate
from koru_delta.lifecycle.idle import Idle
from koru_delta.lifecycle.importance import Importance
from koru_delta.lifecycle.jobs import Runner
from koru_delta.lifecycle.mover import AllHot, Mover, MoveResult
from koru_delta.lifecycle.plan import Plan, Settings, Stock, Tier, plan
from koru_delta.lifecycle.policies import KEEP, Policies, Policy
from koru_delta.lifecycle.scorer import Scored, Scorer
from koru_delta.lifecycle.tracker import Tracker
from koru_delta.lifecycle.usage import Place
from koru_delta.log import CausalLog
from koru_delta.log.moments import AsOf

CHECK_SECONDS: Final = 300.0
CONSOLIDATE_SECONDS: Final = 3_600.0
GENOME_SECONDS: Final = 86_400.0
FLUSH_SECONDS: Final = 60.0
_LIGHT: Final = 50_000  # keys of a namespace, up to which it is looked at without a budget


@dataclass(frozen=True, slots=True, repr=False)
class Checked:
    """What a check did: what it hid, how many foretellings it learned from, what it moved."""

    hidden: tuple[Version, ...]
    learned: int
    plan: Plan
    results: tuple[MoveResult, ...]

    @property
    def moved(self) -> int:
        """How many keys are in another tier now."""
        return sum(len(result.keys) for result in self.results)

    def __repr__(self) -> str:
        hidden = sum(len(entry.targets) for entry in self.hidden)
        return f"<Checked: {hidden:,} hidden, {self.moved:,} moved>"


class Lifecycle:
    """What is near and what is far, what is forgotten, and why.

    Wishes (`policy`, `pin`) are kept in the log. While there are some, or keys are used, one
    thread does the jobs: "check" every 5 minutes hides what has been idle for too long, and
    moves keys between tiers. No answer changes by a move. "consolidate" every hour makes
    summaries of old events where that is wished; `undo` takes one back.
    """

    def __init__(
        self,
        log: CausalLog,
        tracker: Tracker,
        runner: Runner,
        *,
        author: str | None = None,
        mover: Mover | None = None,
        settings: Settings | None = None,
        consolidator: Consolidator | None = None,
    ) -> None:
        self.mover: Mover = mover or AllHot(log)
        self._log = log
        self._tracker = tracker
        self._runner = runner
        self._author = author
        self._settings = settings or Settings()
        self._policies = Policies(log)
        self._consolidator = consolidator
        self._scorer = Scorer(
            log, tracker.file, None if consolidator is None else consolidator.demoted
        )
        self._idle = Idle(log)
        self._jobs: dict[str, Callable[[], object]] = {}
        self._in_background = not (log.engine.read_only or log.engine.temporary)
        log.engine.after_fork.append(tracker.begin)
        if tracker.is_on:
            runner.add("usage", FLUSH_SECONDS, self._flush)
            if self._in_background:
                tracker.on_notes = self._flush_soon
        self.add_job("check", CHECK_SECONDS, self.check)
        if consolidator is not None:
            self.add_job("consolidate", CONSOLIDATE_SECONDS, self.consolidate)
        if self._in_background and any(wish.is_active for wish in self.policies().values()):
            runner.start()

    def __repr__(self) -> str:
        return f"<Lifecycle of {self._log.engine.path or 'memory'}>"

    # Wishes

    def policy(
        self,
        namespace: str | None = None,
        *,
        keys: str = "*",
        ttl: timedelta | None = KEEP,
        hot_bytes: int | None = KEEP,
        warm_bytes: int | None = KEEP,
        cold_bytes: int | None = KEEP,
        consolidate: Consolidate | None = KEEP,
        summarizer: Summarizer | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Policy:
        """Wish something of a namespace, or of the whole database; what is left out stays.

        Args:
            namespace: None is the whole database: its budgets hold for all together.
            keys: A pattern such as "session-*", which `ttl` is for.
            ttl: Keys that were neither written nor used for so long are hidden by "check";
                `unhide` brings them back. None lifts it.
            hot_bytes: At most so many bytes of hot keys; None lifts it. `warm_bytes` and
                `cold_bytes` likewise; what fits nowhere is deep.
            consolidate: Which old events the job "consolidate" makes summaries of; None lifts it.
            summarizer: A callable from the texts of events, oldest first, to one text, which
                makes those summaries in place of sentences taken from the texts. Its name is
                recorded, itself is not: pass it each time the database is opened. Other
                processes leave the namespace to those that were given one of that name.

        Returns:
            All that is wished there now; with nothing but a namespace, it only reads.

        Raises:
            InvalidDataError: it makes no sense.
            ReadOnlyError: the database was opened read-only.
        """
        wishes = (ttl, hot_bytes, warm_bytes, cold_bytes, consolidate)
        if all(wish is KEEP for wish in wishes) and summarizer is None:
            return self.policies().get(namespace, Policy(namespace))
        self._check_writable()
        if summarizer is not None:
            consolidate = self._summarized_by(namespace, consolidate, summarizer)
        wished = self._policies.change(
            namespace, author=author or self._author, message=message, keys=keys, ttl=ttl,
            consolidate=consolidate, hot=hot_bytes, warm=warm_bytes, cold=cold_bytes,
        )  # fmt: skip
        if summarizer is not None and self._consolidator is not None and namespace is not None:
            self._consolidator.summarizers[namespace] = name_of(summarizer), summarizer
        if wished.is_active and self._in_background:
            self._runner.start()
        return wished

    def policies(self, *, as_of: AsOf = None) -> dict[str | None, Policy]:
        """What is wished, or was at a moment, by namespace; of the whole database under None."""
        return self._policies.all(self._log.cut(as_of))

    def pin(
        self, namespace: str, key: str, *, author: str | None = None, message: str | None = None
    ) -> None:
        """Keep a key hot and never hide it for being idle; pinning twice is fine."""
        self._check_writable()
        self._policies.pin(namespace, key, author=author or self._author, message=message)

    def unpin(
        self, namespace: str, key: str, *, author: str | None = None, message: str | None = None
    ) -> bool:
        """Wish that no more; False if it was not pinned."""
        self._check_writable()
        return self._policies.unpin(namespace, key, author=author or self._author, message=message)

    def pins(self, *, as_of: AsOf = None) -> list[Place]:
        """What is pinned, or was at a moment: `(namespace, key)` in order."""
        return sorted(self._policies.pins(self._log.cut(as_of)))

    def _summarized_by(
        self, namespace: str | None, wish: Consolidate | None, summarizer: Summarizer
    ) -> Consolidate:
        """What is wished, or was, with what is to summarize."""
        if wish is KEEP:
            wish = self.policies().get(namespace, Policy(namespace)).consolidate
        if not callable(summarizer) or not isinstance(wish, Consolidate):
            raise InvalidDataError(
                "summarizer is a callable from a list of texts to one, and belongs to "
                "consolidate=: nothing of the namespace is wished to be consolidated"
            )
        return replace(wish, summarizer=name_of(summarizer))

    # Looking

    def importance(self, namespace: str) -> dict[str, float]:
        """How much each present key matters now, in [0, 1], by the score that is taken."""
        self._tracker.flush()
        scored = self._scorer.scored(
            self.mover.look([namespace]), self._scorer.model(), self._log.now()
        )
        keys = self._log.engine.keys_of(scored.held.ids.tolist())
        return dict(sorted(zip(keys, scored.scores.tolist(), strict=True)))

    def plan(self, dry_run: bool = True) -> Plan:
        """What is to move for every budget to hold, and why; nothing moves while `dry_run`."""
        if dry_run:
            self._tracker.flush()
            planned, _ = self._planned(self._log.now(), self._scorer.model())
            return planned
        self._check_writable()
        with self._runner.working:
            self._tracker.flush()
            planned, _ = self._planned(self._log.now(), self._scorer.model())
            self._carry_out(planned)
            return planned

    def stats(self) -> dict[str, Any]:
        """Tiers with their bytes and budgets, uses that are tracked, both scores, the jobs.

        Of importance it tells which score is taken, and of each how it did on foretellings
        that it had not learned from: `log_loss`, `auc`, `brier`, `calibration`.
        """
        self._tracker.flush()
        file, model = self._tracker.file, self._scorer.model()
        budget = self.policies().get(None, Policy(None)).budget
        held = self.mover.look()
        tiers = {
            str(tier): {
                "keys": int((held.tiers == tier).sum()),
                "bytes": int(held.sizes[held.tiers == tier, tier].sum()),
                "budget_bytes": budget.of(tier),
            }
            for tier in Tier
        }
        done = {} if file is None else file.done()
        return {
            "tiers": tiers,
            "usage": {
                "tracked": self._tracker.is_on,
                "noted": self._tracker.noted,
                "dropped": self._tracker.dropped,
                **({} if file is None else file.sizes()),
            },
            "importance": {
                "taken": model.kind,
                "learned_from": model.seen,
                **{name: report.to_json() for name, report in model.reports().items()},
            },
            "jobs": {
                name: {
                    "every_seconds": seconds,
                    "last": moment(done[name]).isoformat() if name in done else None,
                }
                for name, seconds in self._runner.every_seconds().items()
            },
        }

    # Jobs

    def add_job(self, name: str, every_seconds: float, call: Callable[[], object]) -> None:
        """Have a bound method called so often by one of the processes, and by `run_once`."""
        self._jobs[name] = call
        if not self._log.engine.read_only:
            file = self._tracker.file
            self._runner.add(name, every_seconds, call, None if file is None else file.claim)

    def run_once(self, job: str) -> Any:
        """Do a job now, on this thread, whether it is due or not; what it returns.

        Raises:
            QueryError: there is no such job.
            ReadOnlyError: the database was opened read-only.
        """
        if job not in self._jobs:
            raise QueryError(f"there is no job {job!r}; it is one of {', '.join(self._jobs)}")
        self._check_writable()
        with self._runner.working:
            done = self._jobs[job]()
            if self._tracker.file is not None:
                self._tracker.file.note_done(job, self._log.now().clock)
            return done

    def run_due(self) -> list[str]:
        """Do now, on this thread, every job that is due by the database's clock; their names.

        The background thread does the same; this is for whoever owns the clock.
        """
        self._check_writable()
        return self._runner.run_due()

    def check(self) -> Checked:
        """The job "check": hide what is idle, learn, move; `run_once("check")` calls it."""
        self._check_writable()
        with self._runner.working:
            self._tracker.flush()
            hidden = self._hide_idle()
            now = self._log.now()
            model, learned = self._scorer.learn(now)
            planned, scored = self._planned(now, model)
            self._scorer.foretell(scored, now)
            results = self._carry_out(planned)
            if self._tracker.file is not None:
                self._tracker.file.forget_moved(now.clock - self._settings.stay_far)
            return Checked(tuple(hidden), learned, planned, tuple(results))

    def consolidate(self) -> list[Consolidation]:
        """The job "consolidate": make the summaries that are wished; what was made.

        `run_once("consolidate")` calls it.

        Raises:
            SummarizerError, EmbedderError: what was made before stays, and every namespace was
                tried.
        """
        self._check_writable()
        assert self._consolidator is not None
        made: list[Consolidation] = []
        failed: KoruDeltaError | None = None
        with self._runner.working:
            pins = self._scorer.numbers(self.pins())
            for namespace, policy in self.policies().items():
                if namespace is None or policy.consolidate is None or self._runner.is_stopping:
                    continue
                self._tracker.flush()
                held = self.mover.look([namespace])
                scores = self._scorer.scored(held, self._scorer.model(), self._log.now()).scores
                may = ~held.hidden & (scores < policy.consolidate.below) & ~np.isin(held.ids, pins)
                try:
                    made += self._consolidator.run(
                        namespace,
                        policy.consolidate,
                        held,
                        np.flatnonzero(may),
                        lambda: self._runner.is_stopping,
                    )
                except (SummarizerError, EmbedderError) as error:
                    failed = failed or error
        if failed is not None:
            raise failed
        return made

    def consolidations(
        self, namespace: str | None = None, *, as_of: AsOf = None
    ) -> list[Consolidation]:
        """The summaries that stand in place of their sources, or did at a moment, oldest first."""
        if self._consolidator is None:
            return []
        return self._consolidator.consolidations(namespace, as_of)

    def undo(
        self,
        what: Undoable | Iterable[Undoable],
        *,
        author: str | None = None,
        message: str | None = None,
    ) -> list[Version]:
        """Take a consolidation back: its sources are found again, its summary is deleted.

        In one commit for each. What was changed meanwhile stays as it is: a source that was
        brought back, or hidden for another reason, and a summary that holds another value.
        What is in quarantine comes back when that is released. The sources count as new, so
        they are left alone for as long as if they were.

        Args:
            what: What `run_once("consolidate")` or `consolidations` returned, or the summary or
                its id; one or several.

        Returns:
            The sources that are back; none where it was undone before.

        Raises:
            InvalidDataError: one of them is no summary of a consolidation.
            UnknownVersionError: there is no such version.
            ReadOnlyError: the database was opened read-only.
        """
        self._check_writable()
        if isinstance(what, (Consolidation, Version, str)):
            what = [what]
        if self._consolidator is None or not isinstance(what, Iterable):
            raise InvalidDataError(
                "what is undone is a consolidation, or its summary (a version, such as "
                f"memory.version, or the id of one), not {what!r}"
            )
        back = []
        for each in what:
            back += self._consolidator.undo(each, author=author, message=message)
        return back

    def _hide_idle(self) -> list[Version]:
        wishes = {
            name: policy for name, policy in self.policies().items()
            if name is not None and policy.idle
        }  # fmt: skip
        if not wishes:
            return []
        held = self.mover.look(wishes)
        usage, rows = self._scorer.uses.of(held.ids)
        last = held.touched.copy()
        last[rows >= 0] = np.maximum(last[rows >= 0], usage.last[rows[rows >= 0]])
        pins = self._scorer.numbers(self._policies.pins(self._log.now()))
        may = ~held.hidden & ~np.isin(held.ids, pins)
        made = []
        for name, some in held.by_namespace():
            if name in wishes:
                made += self._idle.hide(
                    wishes[name], held, some[may[some]], last, author=self._author
                )
        return made

    def _planned(self, now: Cut, model: Importance) -> tuple[Plan, Scored]:
        policies = self._policies.all(now)
        total = policies.get(None, Policy(None)).budget
        budgets = {
            name: policy.budget
            for name, policy in policies.items()
            if name is not None and policy.budget.is_limit()
        }
        if not budgets and not total.is_limit():
            return Plan(), self._scorer.scored(self.mover.look(self._light()), model, now)
        scored = self._scorer.scored(self.mover.look(), model, now)
        held = scored.held
        stock = Stock(
            held.ids, held.spaces, held.names, held.places, held.tiers, held.sizes,
            scored.scores, scored.lasting,
            np.isin(held.ids, self._scorer.numbers(self._policies.pins(now))),
            self._scorer.moved(held.ids, now.clock - self._settings.stay_far, now.clock),
        )  # fmt: skip
        planned = plan(stock, total, now.clock, budgets=budgets, settings=self._settings)
        return planned, scored

    def _light(self) -> list[str]:
        """What is looked at where nothing is to be planned: to foretell, and for `stats`."""
        file = self._tracker.file
        return [
            name
            for name in ([] if file is None else file.namespaces())
            if self._log.engine.count_keys(name, _LIGHT) < _LIGHT
        ]

    def _carry_out(self, planned: Plan) -> list[MoveResult]:
        file = self._tracker.file
        results = []
        for move in planned.moves:
            if self._runner.is_stopping:
                break  # the rest is planned anew when the database is open again
            result = self.mover.move(move)
            results.append(result)
            if file is not None and result.keys:
                file.note_moved(move.namespace, result.keys, self._log.now().clock)
        return results

    def _flush(self) -> None:
        self._tracker.flush()

    def _flush_soon(self, waiting: int) -> None:
        """Within a minute, or at once if many wait: others may hide what seems idle to them."""
        if waiting == 1:
            self._runner.start()
        else:
            self._runner.ask("usage")

    def _check_writable(self) -> None:
        if self._log.engine.read_only:
            raise ReadOnlyError(
                f"{self._log.engine.path} was opened with read_only=True; open it to write"
            )
