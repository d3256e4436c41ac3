"""How much it matters to have a key near: a number in [0, 1] from how it is used.

There are two. The heuristic is a formula. The learned one foretells whether a key is
used within the horizon: a logistic regression that learns from what became of earlier
foretellings. Both are held to what came true, before anything is learned from it, and the
learned one is taken only while it was better.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson

from koru_delta.lifecycle.usage import GET, HALF_LIFE, HIT, HOUR, LATELY, RECALL, USED, Usage

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Kind = Literal["heuristic", "learned"]

FRESH: Final = HOUR // 4  # after which recency is one half
RECENT: Final = 0.01  # the recency after about a day
_WEIGHTS: Final = (0.45, 0.25, 0.2, 0.1)  # recency, frequency, feedback and centrality
_HIT: Final = 0.25  # of a use: most of the hits of an answer are passed over
_DAYS: Final = 10.0  # that a profile of the day is made of, as uses fade
FEATURES: Final = (
    "recency", "frequency", "feedback", "centrality", "often", "lately", "age", "written", "due",
    "this hour", "next hour", "share of this hour", "awaited", "was used",
)  # fmt: skip
_KEPT: Final = 2_000  # foretellings that came true or not, by which the two are compared
_ENOUGH: Final = 200  # of them, before the learned one may be taken
_FORGET: Final = 0.999  # of what was learned, with each batch
_PRIOR: Final = 1.0
_STEPS: Final = 8
_BINS: Final = 10


def heuristic(features: Floats) -> Floats:
    """Recency, frequency, feedback and centrality, weighed; in [0, 1].

    Source: DESIGN 8, but for recency: it halves once and then falls off as 1 / age. That kept
    as much near as the best half-life did, and still tells a month from a year.
    """
    found: Floats = features[:, :4] @ np.array(_WEIGHTS)
    return found


def lasting(features: Floats) -> Floats:
    """The features as they are at any hour of these days: without what this hour is about."""
    found = features.copy()
    column = {name: number for number, name in enumerate(FEATURES)}
    uses = np.expm1(features[:, column["often"]] * 8.0)
    for name in ("this hour", "next hour"):
        found[:, column[name]] = np.log1p(uses / (24 * _DAYS)) / 3.0
    found[:, column["share of this hour"]] = features[:, column["was used"]] / 24
    for name in ("lately", "awaited"):
        found[:, column[name]] = 0.0
    return found


def facts(
    written: Times,
    cited: npt.NDArray[np.int64],
    usage: Usage,
    rows: npt.NDArray[np.int64],
    awaited: Floats,
    now: int,
) -> Floats:
    """The features of keys of one namespace, shape (n, len(FEATURES)).

    Args:
        written: When each was written, in microseconds.
        cited: How many versions name a version of the key as a cause.
        usage: Uses of keys.
        rows: Of each key its row in `usage`; -1 was never used.
        awaited: How probable it is that it comes after one that was used just now.
    """
    size = len(rows)
    if not size:
        return np.zeros((0, len(FEATURES)))
    known = rows >= 0
    usage = usage.rows(rows[known])
    last = written.astype(np.int64)
    last[known] = np.maximum(usage.last, last[known])
    age = np.maximum(now - last, 0).astype(np.float64)

    def spread(some: npt.NDArray[Any]) -> Floats:
        every = np.zeros(size)
        every[known] = some
        return every

    since = np.maximum(now - usage.last, 0)
    faded = 0.5 ** np.minimum(since / HALF_LIFE, 1000.0)
    counts = usage.counts * faded[:, None]
    uses = counts[:, GET] + counts[:, RECALL] + counts[:, USED] + _HIT * counts[:, HIT]
    gap = np.full(len(usage.gaps), np.inf)
    many = usage.gaps > 0
    gap[many] = 2.0 ** (usage.gap_log[many] / usage.gaps[many]) * 1e6
    due = np.exp(-np.abs(np.log2(age[known] + 1e6) - np.log2(gap + 1e6)))
    lately = usage.lately * 0.5 ** np.minimum(since / LATELY, 1000.0)
    hours = usage.hours * faded[:, None]
    days = np.clip((now - usage.first) / (24 * HOUR), 0, _DAYS) + 0.5
    hour = now // HOUR % 24

    features = np.empty((size, len(FEATURES)))
    for place, column in enumerate(
        [
            1.0 / (1.0 + age / FRESH),
            spread(_scaled(np.log1p(uses))),
            spread(1.0 - 0.5 ** counts[:, USED]),
            _scaled(np.log1p(cited.astype(np.float64))),
            spread(np.log1p(uses) / 8.0),
            spread(np.log1p(lately) / 4.0),
            np.log1p(age / 60e6) / 16.0,  # minutes; 16 is about seventeen years of them
            np.log1p(np.maximum(now - written, 0) / 60e6) / 16.0,
            spread(due),
            spread(np.log1p(hours[:, hour] / days) / 3.0),
            spread(np.log1p(hours[:, (hour + 1) % 24] / days) / 3.0),
            spread(hours[:, hour] / np.maximum(hours.sum(axis=1), 1e-9)),
            awaited,
            known,
        ]
    ):
        features[:, place] = column
    return np.clip(features, 0.0, 1.0, out=features)


def _scaled(found: Floats) -> Floats:
    """By the 99th percentile of those above 0."""
    some = found[found > 0]
    return found if not len(some) else np.minimum(found / np.percentile(some, 99), 1.0)


class Logistic:
    """Logistic regression that learns batch by batch, and forgets slowly.

    What was learned before is a normal distribution of the weights; a batch moves its mode by
    Newton's method and sharpens it by the curvature there (Laplace's approximation, as in
    MacKay 1992 and Spiegelhalter & Lauritzen 1990). There is no rate to choose.
    """

    def __init__(self, width: int) -> None:
        """Know nothing: every chance is even."""
        self.weights = np.zeros(width + 1)
        self.precision = np.eye(width + 1) * _PRIOR

    def chance(self, features: Floats) -> Floats:
        """How probable it is, of each row."""
        return _sigmoid(_with_one(features) @ self.weights)

    def learn(self, features: Floats, happened: Floats) -> None:
        """Take in what became of some rows."""
        if not len(features):
            return
        rows = _with_one(features)
        before = self.precision * _FORGET + np.eye(len(self.weights)) * (1 - _FORGET) * _PRIOR
        mode = self.weights.copy()
        curved = before
        for _ in range(_STEPS):
            chance = _sigmoid(rows @ mode)
            slope = rows.T @ (happened - chance) - before @ (mode - self.weights)
            curved = before + (rows * (chance * (1 - chance))[:, None]).T @ rows
            step = np.linalg.solve(curved, slope)
            mode += step / max(1.0, float(np.abs(step).max()) / 2)  # no leaps
            if float(np.abs(step).max()) < 1e-8:
                break
        self.weights, self.precision = mode, curved


@dataclass(frozen=True, slots=True)
class Report:
    """How well foretellings came true: those of one score, none of them learned from before.

    `calibration` has a row for each tenth of chances that were foretold: the mean chance, the
    share that came true, how many.
    """

    log_loss: float
    auc: float
    brier: float
    calibration: tuple[tuple[float, float, int], ...]

    @classmethod
    def of(cls, chances: Floats, happened: Floats) -> Report:
        """Of chances, and of what came true (1) and did not (0)."""
        sure = np.clip(chances, 1e-6, 1 - 1e-6)
        loss = -(happened * np.log(sure) + (1 - happened) * np.log(1 - sure)).mean()
        bins = np.minimum((chances * _BINS).astype(int), _BINS - 1)
        rows = []
        for each in range(_BINS):
            here = bins == each
            if here.any():
                rows.append(
                    (float(chances[here].mean()), float(happened[here].mean()), int(here.sum()))
                )
        brier = float(((chances - happened) ** 2).mean())
        return cls(float(loss), auc(chances, happened), brier, tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return {
            "log_loss": self.log_loss, "auc": self.auc, "brier": self.brier,
            "calibration": [
                {"foretold": chance, "came_true": share, "count": count}
                for chance, share, count in self.calibration
            ],
        }  # fmt: skip


def auc(chances: Floats, happened: Floats) -> float:
    """How often what came true had the higher chance than what did not; ties count half.

    Source: the rank-sum of Mann & Whitney 1947. 0.5 where one of the two is lacking.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.875
    """
    true = int(happened.sum())
    false = len(happened) - true
    if not true or not false:
        return 0.5
    _, inverse, counts = np.unique(chances, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of equal ones, the mean
    total = float(ranks[inverse][happened > 0].sum())
    return (total - true * (true + 1) / 2) / (true * false)


@dataclass(slots=True)
class Importance:
    """Both scores, how they did, and which of them is taken.

    The heuristic is no chance, so before the two are compared it is turned into one by a
    regression of its own, learned in the same way.
    """

    learned: Logistic = field(default_factory=lambda: Logistic(len(FEATURES)))
    scaled: Logistic = field(default_factory=lambda: Logistic(1))
    happened: list[float] = field(default_factory=list)
    by_learned: list[float] = field(default_factory=list)
    by_scaled: list[float] = field(default_factory=list)
    seen: int = 0  # foretellings learned from

    def learn(self, features: Floats, happened: Floats) -> None:
        """Hold both to what came true, and only then learn from it."""
        if not len(features):
            return
        rough = heuristic(features)[:, None]
        self.happened = [*self.happened, *happened.tolist()][-_KEPT:]
        self.by_learned = [*self.by_learned, *self.learned.chance(features).tolist()][-_KEPT:]
        self.by_scaled = [*self.by_scaled, *self.scaled.chance(rough).tolist()][-_KEPT:]
        self.learned.learn(features, happened)
        self.scaled.learn(rough, happened)
        self.seen += len(features)

    @property
    def kind(self) -> Kind:
        """Which of the two is taken."""
        if len(self.happened) < _ENOUGH or len(set(self.happened)) < 2:
            return "heuristic"
        reports = self.reports()
        better = reports["learned"].log_loss < reports["heuristic"].log_loss
        return "learned" if better else "heuristic"

    def score(self, features: Floats, kind: Kind | None = None) -> Floats:
        """In [0, 1], one a row: by what is taken, or by the kind asked for."""
        if (kind or self.kind) == "learned":
            return self.learned.chance(features)
        return heuristic(features)

    def reports(self) -> dict[Kind, Report]:
        """How each did on what it had not learned from; empty while there is nothing."""
        if not self.happened:
            return {}
        happened = np.array(self.happened)
        return {
            "heuristic": Report.of(np.array(self.by_scaled), happened),
            "learned": Report.of(np.array(self.by_learned), happened),
        }

    def to_bytes(self) -> bytes:
        """All of it, as JSON."""
        return orjson.dumps(
            {
                "features": FEATURES, "seen": self.seen, "happened": self.happened,
                "by_learned": self.by_learned, "by_scaled": self.by_scaled,
                "weights": [self.learned.weights, self.scaled.weights],
                "precision": [
                    self.learned.precision.ravel().tolist(), self.scaled.precision.ravel().tolist()
                ],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, state: bytes | None) -> Importance:
        """What `to_bytes` gave; afresh where that is lacking, or of other features."""
        made = cls()
        if state is None:
            return made
        try:
            kept: dict[str, Any] = orjson.loads(state)
            if tuple(kept["features"]) != FEATURES:
                return made
            for each, weights, precision in zip(
                (made.learned, made.scaled), kept["weights"], kept["precision"], strict=True
            ):
                size = len(each.weights)
                each.weights = np.array(weights, dtype=np.float64).reshape(size)
                each.precision = np.array(precision, dtype=np.float64).reshape(size, size)
            made.seen = int(kept["seen"])
            made.happened = [float(x) for x in kept["happened"]]
            made.by_learned = [float(x) for x in kept["by_learned"]]
            made.by_scaled = [float(x) for x in kept["by_scaled"]]
        except (ValueError, KeyError, TypeError):
            return cls()  # damaged: learned anew
        return made


def _with_one(features: Floats) -> Floats:
    return np.column_stack([features, np.ones(len(features))])


def _sigmoid(x: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0)))
    return found
