from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import Database, Layers
from koru_delta.errors import ModelMismatchError, QueryError
from koru_delta.search.synthesis.layers import make_layers, spherical_kmeans, units, words
from koru_delta.testing import FixedClock

TOPICS = {
    "rain": "rain cloud storm", "cake": "cake sugar flour", "star": "star planet orbit",
}  # fmt: skip


def mixture(seed: int, rows: int = 300, groups: int = 5, dimensions: int = 16) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    centers = numbers.standard_normal((groups, dimensions)) * 4
    return (centers[np.arange(rows) % groups] + numbers.standard_normal((rows, dimensions))).astype(
        np.float32
    )


def fill(db: Database, rows: int = 60) -> None:
    numbers = np.random.default_rng(5)
    for n in range(rows):
        topic = list(TOPICS)[n % 3]
        vector = np.eye(3, 8)[n % 3] + 0.1 * numbers.standard_normal(8)
        db.embed("d", f"{topic}-{n:02}", vector, {"text": f"{TOPICS[topic]} and more of the same"})


def same(one: Layers, other: Layers) -> bool:
    return one.to_dict() | {"seq": 0} == other.to_dict() | {"seq": 0} and all(
        np.allclose(a.centroid, b.centroid, rtol=0, atol=1e-9)
        for level, beside in zip(one.levels, other.levels, strict=True)
        for a, b in zip(level, beside, strict=True)
    )


def test_separate_groups_are_found():
    rows = units(mixture(1))
    assigned, centroids = spherical_kmeans(rows, 5)
    for group in range(5):
        assert len(set(assigned[group::5].tolist())) == 1
    assert len(centroids) == 5
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_clustering_twice_gives_the_same_and_leaves_nothing_out(seed, count, wanted):
    rows = units(mixture(seed, count, groups=3, dimensions=4))
    assigned, centroids = spherical_kmeans(rows, wanted, seed=seed)
    again, _ = spherical_kmeans(rows.copy(), wanted, seed=seed)

    assert assigned.tolist() == again.tolist()
    assert set(assigned.tolist()) == set(range(len(centroids)))
    assert len(centroids) <= min(wanted, count)


def test_equal_rows_are_one_cluster_and_none_is_empty():
    rows = units(np.tile(np.array([[1, 0], [0, 1]], dtype=np.float32), (50, 1)))
    assigned, centroids = spherical_kmeans(rows, 7)
    assert sorted(np.bincount(assigned).tolist()) == [50, 50]
    assert len(centroids) == 2
    alone, _ = spherical_kmeans(rows[:1], 7)
    assert alone.tolist() == [0]


@given(st.permutations(range(30)))
@settings(deadline=None, max_examples=20)
def test_the_order_in_which_keys_came_does_not_matter(order):
    vectors = mixture(3, 30)
    texts = {f"k{n:02}": f"word{n % 5} text{n}" for n in range(30)}
    made = []
    for some in (range(30), order):
        with koru_delta.open(clock=FixedClock()) as db:
            for n in some:
                key = f"k{n:02}"
                db.embed("d", key, vectors[n], {"text": texts[key]})
            made.append(db.layers("d", branching=3))
    assert same(*made)


def test_layers_say_what_they_hold(db):
    fill(db)
    layers = db.layers("d", levels=2, branching=3, labels=3)

    assert [len(level) for level in layers.levels] == [3, 9]
    assert layers.size == 60
    for cluster in layers.levels[0]:
        keys = layers.keys(cluster.id)
        (topic,) = {key[:4] for key in keys}
        assert sorted(cluster.labels) == sorted(TOPICS[topic].split())
        assert cluster.size == len(keys) == 20
        assert set(cluster.representatives) <= set(keys)
        inside = [layers.keys(child) for child in cluster.children]
        assert sorted(key for some in inside for key in some) == list(keys)
        assert [len(some) for some in inside] == sorted(map(len, inside), reverse=True)
        assert all(layers.cluster(child).parent == cluster.id for child in cluster.children)
        assert cluster.parent is None
        assert cluster.cohesion > 0.9
    every = [key for cluster in layers.levels[0] for key in layers.keys(cluster.id)]
    assert sorted(every) == db.list_keys("d")


def test_a_descent_leads_from_layer_to_layer_to_keys(db):
    fill(db)
    layers = db.layers("d", branching=3)
    query = db.vectors(db.version("d", "cake-01"))["default"]
    found = db.descend("d", query, branching=3)

    assert [cluster.level for cluster in found.path] == [1, 2]
    assert found.path[1].parent == found.path[0].id
    assert not found.children
    assert found.keys[0] == "cake-01"
    assert sorted(found.keys) == list(layers.keys(found.path[-1].id))
    named = db.descend("d", cluster="1", branching=3)
    assert [cluster.id for cluster in named.path] == ["1"]
    assert tuple(cluster.id for cluster in named.children) == named.path[0].children
    assert named.keys[:3] == named.path[0].representatives
    below = db.descend("d", query, cluster=found.path[0].id, branching=3)
    assert below.keys == found.keys


@pytest.mark.parametrize(
    "options",
    [{"levels": 0}, {"levels": 9}, {"levels": True}, {"branching": 1}, {"branching": 5000},
     {"labels": -1}, {"representatives": 1.5}, {"seed": -1}],
)  # fmt: skip
def test_shapes_that_are_none_are_refused(db, options):
    with pytest.raises(QueryError):
        db.layers("d", **options)


def test_what_cannot_be_descended_is_refused(db):
    fill(db, 12)
    for options in ({}, {"cluster": "99"}, {"cluster": "0.99"}, {"query": [1.0]},
                    {"query": [0.0] * 8}):  # fmt: skip
        with pytest.raises(QueryError):
            db.descend("d", **options)
    db.embed("d", "other", [1.0, 0.0], model="flat")
    with pytest.raises(ModelMismatchError):
        db.layers("d")
    assert db.layers("d", model="flat").size == 1


def test_nothing_has_no_layers(db):
    layers = db.layers("nowhere")
    assert (layers.levels, layers.model, layers.size) == ((), None, 0)
    assert db.descend("nowhere", [1.0]).keys == ()
    with pytest.raises(QueryError):
        layers.cluster("0")
    db.embed("d", "a", [1.0, 0.0])
    db.delete("d", "a")
    assert db.layers("d").levels == ()


def test_labels_need_texts_and_a_single_cluster_has_its_commonest(db):
    db.embed("d", "a", [1.0, 0.0], {"text": "rain rain"})
    (only,) = db.layers("d", levels=1).levels[0]
    assert only.labels == ("rain",)
    assert db.layers("d", levels=1, labels=0).levels[0][0].labels == ()
    with koru_delta.open() as bare:
        bare.embed_many("d", [("a", [1.0, 0.0]), ("b", [0.0, 1.0])])
        assert [c.labels for c in bare.layers("d", levels=1).levels[0]] == [(), ()]


def test_any_analyzer_can_name_clusters():
    layers = make_layers(
        ["a", "b"], np.eye(2, dtype=np.float32), koru_shape(), lambda rows: ["A B", "A C"],
        lambda text: words(text + f" {text.split()[1] * 3}"),
    )  # fmt: skip
    assert [cluster.labels for cluster in layers.levels[0]] == [("bbb",), ("ccc",)]


def koru_shape():
    from koru_delta.search.synthesis.layers import Shape

    return Shape.of(1, 2, 5, 3, 0)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["embed", "embed", "embed", "delete", "put"]),
        st.integers(0, 7), st.integers(0, 9),
    ),
    min_size=1, max_size=25,
)  # fmt: skip
VECTORS = mixture(9, 10, groups=3, dimensions=6)


def act(db: Database, action: tuple[str, int, int]) -> None:
    kind, key, number = action
    if kind == "embed":
        db.embed("d", f"k{key}", VECTORS[number], {"text": f"word{number} common"})
    elif kind == "put":
        db.put("d", f"k{key}", {"text": "without a vector"})
    else:
        db.delete_many("d", [f"k{key}"])


@given(ACTIONS, st.data())
@settings(deadline=None, max_examples=40)
def test_layers_of_the_past_are_those_of_a_database_that_never_went_on(actions, data):
    stop = data.draw(st.integers(1, len(actions)))
    with koru_delta.open(clock=FixedClock()) as db, koru_delta.open(clock=FixedClock()) as fresh:
        for action in actions[:stop]:
            act(db, action)
            act(fresh, action)
        then = db.as_of(None)
        for action in actions[stop:]:
            act(db, action)
        past, now = then.layers("d", branching=2), fresh.layers("d", branching=2)
        assert same(past, now)
        if past:
            assert then.descend("d", VECTORS[0], branching=2).keys == (
                fresh.descend("d", VECTORS[0], branching=2).keys
            )


def test_layers_hold_what_is_true_at_the_valid_time_asked_for(db):
    day = "2025-01-{:02}T00:00:00Z".format
    for n in range(1, 9):
        db.embed("d", f"k{n}", VECTORS[n], valid_from=day(n), valid_to=day(n + 4))
    db.embed("d", "k2", VECTORS[9], valid_from=day(3), valid_to=day(5))
    for n in range(1, 13):
        layers = db.layers("d", levels=1, branching=2, valid_at=day(n))
        held = [key for cluster in (layers.levels or [[]])[0] for key in layers.keys(cluster.id)]
        assert sorted(held) == db.list_keys("d", valid_at=day(n))
        for key in held:
            version = db.version("d", key, valid_at=day(n))
            (vector,) = db.vectors(version).values()
            unit = vector / np.linalg.norm(vector)
            row = layers._rows[layers._keys.index(key)]
            assert row.tolist() == pytest.approx(unit.tolist(), abs=1e-6)


def test_layers_are_printed_as_a_tree_and_never_as_matrices() -> None:
    with koru_delta.open() as db:
        for at, word in enumerate(("rain", "snow")):
            for number in range(3):
                vector = [0.1 * number, 0.0, 0.0]
                vector[1 + at] = 1.0
                db.embed("n", f"{word}{number}", vector, {"text": f"{word} falls"})

        layers = db.layers("n", levels=1, branching=2)
        nothing = db.layers("empty")

    assert repr(layers) == "<Layers of 'n': 6 keys in levels of [2] clusters>"
    first, *rest = str(layers).splitlines()
    assert first == "n: 6 keys, 1 level"
    assert [line.split()[0] for line in rest] == ["0", "1"]
    assert {line.split("  ")[2].split()[0] for line in rest} == {"rain", "snow"}
    assert all("(3, such as " in line for line in rest)
    assert str(nothing) == "empty: 0 keys, 0 levels"
