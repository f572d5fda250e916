"""Retrieval: the search, the stored neighbours, and the protocol, which is tested by trying to break it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpora import corpus as made_corpus

from foleylib.corpora.prepare import prepare
from foleylib.datasets import manifest as manifests
from foleylib.datasets import retrieval, search
from foleylib.datasets.retrieval import PROTOCOLS, Neighbours
from foleylib.params.retrieval import Search
from foleylib.runtime import write_json
from foleylib.stages import features, retrieval_index

SPLITS = np.array(["train"] * 12 + ["val"] * 4 + ["test"] * 6)
SCENES = {"train": 12, "val": 4, "test": 6}


def unit(n, dim, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clouds(n, seed):
    """Unit vectors around 40 centres."""
    x = unit(40, 32)[np.random.default_rng(seed).integers(0, 40, n)] + 0.3 * unit(n, 32, seed + 1)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def plainly(queries, vectors, k):
    """(scores, rows) by sorting everything."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@settings(deadline=None, max_examples=40)
@given(q=st.integers(1, 30), n=st.integers(1, 400), k=st.integers(1, 60), block=st.sampled_from([16, 100, 16384]))
def test_the_exact_search_is_the_sorted_list(q, n, k, block):
    queries, vectors = unit(q, 16, seed=1), unit(n, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK", block)
        scores, rows = search.exact(queries, vectors, k)
    expected, places = plainly(queries, vectors, k)
    assert rows.shape == (q, min(k, n)) and np.allclose(scores, expected, atol=1e-6)
    assert np.mean(rows == places) > 0.99  # but for scores that are equal in single precision


@pytest.mark.parametrize(
    "index",
    [lambda x: search.ivf(x, lists=64, probes=8), lambda x: search.hnsw(x, links=16, construction=40, search=100)],
    ids=["ivf", "hnsw"],
)
def test_an_approximate_index_finds_nearly_all(index):
    vectors, queries = clouds(8000, 1), clouds(100, 5)
    true = search.exact(queries, vectors, 50)
    index, again = index(vectors), index(vectors)
    scores, rows = search.approximate(queries, index, 50)
    assert rows.shape == (100, 50) and (np.diff(scores, axis=1) <= 1e-6).all()
    assert 0.95 < search.recall(rows, true[1]) <= 1
    assert np.array_equal(rows, search.approximate(queries, again, 50)[1])
    own = np.take_along_axis(queries @ vectors.T, rows, 1)
    assert np.allclose(scores[rows >= 0], own[rows >= 0], atol=1e-5)


def test_fewer_lists_and_probes_find_less():
    vectors, queries = clouds(8000, 1), clouds(100, 5)
    true = search.exact(queries, vectors, 50)[1]
    found = [search.approximate(queries, search.ivf(vectors, lists=64, probes=p), 50)[1] for p in (1, 64)]
    assert search.recall(found[0], true) < search.recall(found[1], true) == 1


def test_recall_is_the_share_that_is_found():
    true, found = np.array([[1, 2], [3, 4]]), np.array([[2, 9, 1], [4, -1, -1]])
    assert search.recall(found, true) == 0.75 and search.recall(true, true) == 1


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 60), least=st.floats(-0.5, 0.9))
def test_similar_pairs_are_all_of_them(n, least):
    vectors = unit(n, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK", 13)
        patch.setattr(search, "GROUP", 7)
        pairs = search.similar_pairs(vectors, least)
    products = vectors @ vectors.T
    assert (pairs[:, 0] < pairs[:, 1]).all() and len({*map(tuple, pairs.tolist())}) == len(pairs)
    sure = np.triu(products >= least + 1e-6, 1), np.triu(products >= least - 1e-6, 1)
    assert sure[0].sum() <= len(pairs) <= sure[1].sum() and (products[tuple(pairs.T)] >= least - 1e-6).all()


@pytest.mark.parametrize(
    ("queries", "vectors", "k"),
    [
        (unit(2, 4), unit(3, 5), 1),
        (unit(2, 4), unit(3, 4), 0),
        (unit(2, 4).astype(np.float64), unit(3, 4), 1),
        (unit(2, 4), np.zeros((0, 4), np.float32), 1),
        (unit(2, 4)[:, ::2], unit(3, 2), 1),
    ],
)
def test_vectors_that_do_not_fit_are_refused(queries, vectors, k):
    with pytest.raises(ValueError, match="float32|must fit"):
        search.exact(queries, vectors, k)


# The stored neighbours of a corpus on disk.


def written(folder, settings, *, groups=None, contents=None, seed=0, captions=2):
    """A corpus' manifest and made-up features in `folder`, and its neighbours: (manifest, arrays, folder of neighbours)."""
    n = len(SPLITS)
    frame = pd.DataFrame({column: ["x"] * n for column in manifests.COLUMNS})
    frame["id"], frame["split"] = [f"clip{i:02d}" for i in range(n)], SPLITS
    frame["source_group"] = [f"g{i}" for i in range(n)] if groups is None else groups
    frame["sha256"] = [f"s{i}" for i in range(n)] if contents is None else contents
    frame["path"] = [f"audio/{id}.wav" for id in frame.id]
    arrays = {"audio": unit(n, 8, seed), "captions": unit(n * captions, 8, seed + 1).reshape(n, captions, 8)}
    arrays["text"], arrays["caption_count"] = arrays["captions"][:, 0], np.where(SPLITS == "test", captions, 1)
    clips, cached = folder / "clips", folder / "features"
    (clips / "audio").mkdir(parents=True)
    cached.mkdir()
    for path in frame.path:
        (clips / path).touch()
    frame.to_parquet(clips / "manifest.parquet", index=False)
    for name, array in arrays.items():
        np.save(cached / f"{name}.npy", array)
    frame[["id", "split"]].to_parquet(cached / "index.parquet", index=False)
    write_json(cached / "features.json", {"models": str(seed)})
    retrieval_index.compute(clips, cached, folder / "out", settings)
    return frame, arrays, folder / "out"


def allowed(frame, arrays, i, protocol, duplicate):
    """Which clips may be neighbours of clip i, told anew."""
    order = ["train", "val", "test"]
    own, kept = frame.iloc[i], []
    for j, other in frame.iterrows():
        reachable = other.split == "train" or (
            protocol != "train" and order.index(other.split) <= order.index(own.split)
        )
        kin = j == i or other.source_group == own.source_group or other.sha256 == own.sha256
        kin = kin or arrays["audio"][i] @ arrays["audio"][j] >= duplicate
        kept.append(reachable and not (kin and (own.split == "train" or protocol != "published")))
    return np.flatnonzero(kept)


labels = st.lists(st.integers(0, 14), min_size=len(SPLITS), max_size=len(SPLITS))


@settings(deadline=None, max_examples=25)
@given(groups=labels, contents=labels, duplicate=st.sampled_from([0.3, 0.7, 1.0]), seed=st.integers(0, 50))
def test_neighbours_are_the_nearest_that_the_protocol_allows(tmp_path_factory, groups, contents, duplicate, seed):
    how = Search(top=9, duplicate=duplicate)
    names = [f"{split}{group}" for split, group in zip(SPLITS, groups)]
    folder = tmp_path_factory.mktemp("r")
    frame, arrays, out = written(folder, how, groups=names, contents=[str(c) for c in contents], seed=seed)
    for protocol in PROTOCOLS:
        found = Neighbours(out, frame, protocol)
        for caption in (0, 1):
            told = found(frame.id, 9, caption=caption)
            for i in range(len(frame)):
                if caption < arrays["caption_count"][i]:
                    may = allowed(frame, arrays, i, protocol, duplicate)
                    scores = arrays["captions"][i, caption] @ arrays["audio"][may].T
                    best = may[np.argsort(-scores)][:9]
                    assert told.ids[i][told.mask[i]].tolist() == frame.id[best].tolist()
                    assert np.allclose(told.scores[i][told.mask[i]], np.sort(scores)[::-1][:9], atol=1e-6)
                else:
                    assert not told.mask[i].any()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Neighbours of clips of which 0 and 1 are of one group, 2 and 3 of the same bytes, and none a near-duplicate."""
    groups, contents = ([f"{letter}{i}" for i in range(len(SPLITS))] for letter in "gs")
    groups[1], contents[3] = groups[0], contents[2]
    how = Search(top=6, duplicate=1.0)
    folder = tmp_path_factory.mktemp("stored")
    frame, arrays, out = written(folder, how, groups=groups, contents=contents)
    return SimpleNamespace(frame=frame, arrays=arrays, out=out, folder=folder, how=how)


@pytest.fixture
def broken(stored, tmp_path):
    """The stored neighbours with those of one clip replaced, read under a protocol."""

    def read(protocol, item, neighbour, *, pairs=(), frame=None):
        out = tmp_path / "broken"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(stored.out, out)
        rows = np.load(out / f"rows_{protocol}.npy")
        rows[item, 0, 2] = neighbour
        np.save(out / f"rows_{protocol}.npy", rows)
        np.save(out / "duplicates.npy", np.array(pairs, dtype=np.int64).reshape(-1, 2))
        return Neighbours(out, stored.frame if frame is None else frame, protocol)

    return read


@pytest.mark.parametrize(
    ("item", "neighbour", "protocols", "reason"),
    [
        (5, 5, PROTOCOLS, "clip05 (train) has clip05, itself"),
        (0, 1, PROTOCOLS, "clip00 (train) has clip01, of its source group"),
        (2, 3, PROTOCOLS, "clip02 (train) has clip03, of the same bytes"),
        (6, 4, PROTOCOLS, "clip06 (train) has clip04, a near-duplicate"),
        (4, 6, PROTOCOLS, "clip04 (train) has clip06, a near-duplicate"),
        (7, 18, PROTOCOLS, "clip07 (train) has clip18, of split test"),
        (7, 13, PROTOCOLS, "clip07 (train) has clip13, of split val"),
        (13, 18, PROTOCOLS, "clip13 (val) has clip18, of split test"),
        (18, 19, ["train"], "clip18 (test) has clip19, of split test"),
        (18, 13, ["train"], "clip18 (test) has clip13, of split val"),
        (18, 18, ["train", "full"], "clip18 (test) has clip18, itself"),
        (20, 8, ["train", "full"], "clip20 (test) has clip08, a near-duplicate"),
    ],
)
def test_a_neighbour_against_the_protocol_is_named(broken, stored, item, neighbour, protocols, reason):
    pairs = [(4, 6), (8, 20)]
    others = [i for i in range(len(SPLITS)) if i != item]
    for protocol in PROTOCOLS:
        neighbours = broken(protocol, item, neighbour, pairs=pairs if "near" in reason else ())
        if protocol not in protocols:
            assert stored.frame.id[neighbour] == neighbours([stored.frame.id[item]], 6).ids[0, 2]
            continue
        with pytest.raises(ValueError) as error:
            neighbours(stored.frame.id, 6)
        assert reason in str(error.value) and "Run the retrieval_index stage" in str(error.value)
        assert neighbours([stored.frame.id[item]], 2).mask.all()  # what is not read does no harm
        if "near" not in reason:
            assert neighbours(stored.frame.id[others], 6).mask.all()


def test_the_splits_and_groups_of_today_count(broken, stored):
    """Neighbours that were right when they were made break the protocol of a corpus that was split anew."""
    moved = stored.frame.assign(split=np.where(stored.frame.id == "clip03", "test", stored.frame.split))
    with pytest.raises(ValueError, match=r"\(train\) has clip03, of split test"):
        broken("full", 0, 3, frame=moved)(["clip00"], 6)
    merged = stored.frame.assign(source_group=np.where(stored.frame.index < 8, "one", stored.frame.source_group))
    with pytest.raises(ValueError, match="has clip07, of its source group"):
        broken("train", 0, 7, frame=merged)(["clip00"], 6)


@pytest.mark.parametrize("row", [-2, len(SPLITS), 10**6])
def test_a_damaged_file_is_named(broken, row):
    with pytest.raises(ValueError, match="broken: damaged, neighbours of clip05 are no clips"):
        broken("train", 5, row)(["clip04", "clip05"], 6)


def test_the_leak_of_the_published_index_is_there(stored):
    test = stored.frame.id[SPLITS == "test"]
    kinds = {}
    for protocol in PROTOCOLS:
        neighbours = Neighbours(stored.out, stored.frame, protocol)
        kinds[protocol] = [set(neighbours([id], 6).ids[0]) for id in test]
    assert any(id in found for id, found in zip(test, kinds["published"]))
    assert not any(id in found for id, found in zip(test, kinds["full"]))
    assert any(found & set(test) for found in kinds["full"])
    assert all(found <= set(stored.frame.id[SPLITS == "train"]) for found in kinds["train"])


def test_captions_and_k_are_those_asked_for(stored):
    neighbours = Neighbours(stored.out, stored.frame, "full")
    ids = ["clip20", "clip16", "clip20"]
    first, second = (neighbours(ids, 3, caption=c) for c in (0, 1))
    mixed = neighbours(ids, 3, caption=np.array([0, 1, 1]))
    assert mixed.ids.tolist() == [first.ids[0].tolist(), second.ids[1].tolist(), second.ids[2].tolist()]
    assert first.ids.shape == first.scores.shape == first.mask.shape == (3, 3)
    assert not np.array_equal(first.ids, second.ids) and (np.diff(first.scores, axis=1) <= 0).all()
    assert np.array_equal(stored.frame.id.to_numpy()[first.rows], first.ids)


def test_a_clip_with_few_neighbours_has_a_mask(tmp_path):
    groups = ["one"] * 9 + ["a", "b", "c"] + [f"h{i}" for i in range(10)]
    frame, _, out = written(tmp_path, Search(top=6, duplicate=1.0), groups=groups)
    found = Neighbours(out, frame, "train")(["clip00", "clip09"], 6)
    assert found.mask.sum(1).tolist() == [3, 6] and found.ids[0, 3:].tolist() == ["", "", ""]
    assert found.rows[0, 3:].tolist() == [-1] * 3 and found.scores[0, 3:].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda n: n(["clip00", "nobody"], 3), "has no clips .'nobody'."),
        (lambda n: n(["clip00"], 7), "k=7: .* has the 6 nearest"),
        (lambda n: n(["clip00"], 0), "k=0"),
        (lambda n: n(["clip20"], 3, caption=2), "caption=.2.: .* has 2 captions"),
        (lambda n: n(["clip20"], 3, caption=-1), "caption=.-1."),
    ],
)
def test_a_wrong_question_is_told(stored, ask, sentence):
    with pytest.raises(ValueError, match=sentence):
        ask(Neighbours(stored.out, stored.frame, "train"))


def test_neighbours_of_other_clips_are_refused(stored, tmp_path):
    frame = stored.frame
    for other in (frame.iloc[:-1], frame.iloc[::-1], frame.assign(sha256=frame.sha256 + "x")):
        with pytest.raises(ValueError, match="was made from other clips; run the retrieval_index stage"):
            Neighbours(stored.out, other, "train")
    with pytest.raises(ValueError, match="holds no neighbours; run the retrieval_index stage"):
        Neighbours(tmp_path, frame, "train")
    with pytest.raises(ValueError, match="'all' is none of train, full, published"):
        Neighbours(stored.out, frame, "all")


@pytest.mark.parametrize(
    ("score", "query", "database"),
    [
        ("text_to_audio", "captions", "audio"),
        ("text_to_text", "captions", "text"),
        ("audio_to_audio", "audio", "audio"),
    ],
)
def test_what_is_compared_is_a_setting(tmp_path, score, query, database):
    frame, arrays, out = written(tmp_path, Search(top=4, duplicate=1.0, score=score))
    found = Neighbours(out, frame, "train")(["clip20"], 4, caption=1)
    asks = arrays[query][20, 1] if query == "captions" else arrays[query][20]
    scores = arrays[database][:12] @ asks
    assert found.rows[0].tolist() == np.argsort(-scores)[:4].tolist()
    assert np.allclose(found.scores[0], np.sort(scores)[::-1][:4], atol=1e-6)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_approximate_index_keeps_the_protocol_and_tells_its_recall(stored, tmp_path, index):
    out = tmp_path / "out"
    how = stored.how.changed(index=index)
    retrieval_index.compute(stored.folder / "clips", stored.folder / "features", out, how)
    key = json.loads((out / "retrieval.json").read_text())
    assert len(key["recall"]) == 9 and all(share == 1 for share in key["recall"].values())  # of a dozen clips
    for protocol in PROTOCOLS:
        told, exact = (Neighbours(folder, stored.frame, protocol)(stored.frame.id, 6) for folder in (out, stored.out))
        assert np.array_equal(told.ids, exact.ids)


def test_what_is_done_is_not_done_again(stored, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    shutil.copytree(stored.folder, folder)
    calls = []
    searched = retrieval_index.Finder.__call__
    monkeypatch.setattr(
        retrieval_index.Finder, "__call__", lambda self, *a: calls.append(a) or searched(self, *a), raising=True
    )

    def again(how=stored.how):
        calls.clear()
        retrieval_index.compute(folder / "clips", folder / "features", folder / "out", how)
        return bool(calls)

    assert not again()
    assert again(stored.how.changed(top=5)) and not again(stored.how.changed(top=5))
    write_json(folder / "features" / "features.json", {"models": "others"})
    assert again(stored.how.changed(top=5))
    stored.frame.assign(source_group="one").to_parquet(folder / "clips" / "manifest.parquet", index=False)
    assert again(stored.how.changed(top=5))
    stored.frame.iloc[::-1].to_parquet(folder / "clips" / "manifest.parquet", index=False)
    with pytest.raises(ValueError, match="made from other clips than .*; run the features stage again"):
        again()


def test_from_scenes_to_their_neighbours(tiny, tiny_models, tiny_paths):
    """The whole way at tiny size: scenes, their features, the index, and what is read of it."""
    changes = {"clips_per_class": None, "scenes": SCENES, "events": [1, 2], "classes": ["Rain", "DogBark", "Bell"]}
    changes |= {"captions": {"test": 2}, "held_out": ["Bell"], "seconds": 0.76}
    cfg = tiny.model_copy(update={"corpora": {"scenes": made_corpus("synthetic", **changes)}})
    found = cfg.retrieval.changed(search=Search(top=5, duplicate=1.0).model_dump())
    cfg = cfg.model_copy(update={"retrieval": found})
    manifest = prepare("scenes", cfg.corpora["scenes"], tiny_paths.CLIPS / "scenes")
    features.make("scenes", cfg)
    out = retrieval_index.make("scenes", cfg)
    assert out == tiny_paths.RETRIEVAL / "scenes"
    found = Neighbours(out, manifest, "train")(manifest.id, 5, caption=0)
    assert found.mask.all() and all(id.startswith("Scene-train-") for id in found.ids.ravel())
    assert not (found.ids == manifest.id.to_numpy()[:, None]).any()
    assert retrieval.read_key(out)["recall"] == {f"{s}, {p}": 1.0 for p in PROTOCOLS for s in SCENES}
    with pytest.raises(ValueError, match="corpora in params.yaml has no 'none'"):
        retrieval_index.make("none", cfg)
