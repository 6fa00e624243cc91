import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from src.episodes.bins import OVERLAP_BINS
from src.episodes.episodes import (
    EpisodeError,
    SceneViews,
    TrainingEpisodes,
    check_episode,
    draw_training_episode,
    evaluation_episodes,
    gap_pairs,
    held_out,
    read_episodes,
    second_contexts,
    write_episodes,
)
from src.episodes.overlap import from_samples, nothing_to_measure, write_overlap
from src.scenes.scene import Scene, SceneRecord, write_index, write_scene
from tests.conftest import load_fixture
from tests.helpers.episodes import selection
from tests.helpers.frames import make_frames

VIEWS = 14


def strip_overlap(names, width=100, step=5):
    """Views of a wall: view i sees cells step * i to step * i + width; cov(i -> j) = 1 - step |i - j| / width."""
    cells = np.arange(width)
    begins = step * np.arange(len(names))
    seen = np.abs(begins[None, :, None] + cells - begins[:, None, None] - width / 2 + 0.5) < width / 2
    return from_samples("depth", names, np.ones((len(names), width), bool), seen)


def make_views(split="train", number=0, count=VIEWS, overlap=strip_overlap, **changes) -> SceneViews:
    names = tuple(f"frame{i:03d}" for i in range(count))
    record = SceneRecord(
        f"objects__{number}",
        f"scenes/objects__{number}.safetensors",
        f"{number:064d}",
        count,
        split,
        "metre",
        1.0,
        "objects",
    )
    values = {
        "record": record,
        "names": names,
        "content": tuple(f"{number}-{i}" for i in range(count)),
        "frame_number": np.arange(count),
        "centres": np.random.default_rng(number).normal(size=(count, 3)),
        "overlap": overlap(names),
    }
    return SceneViews(**values | changes)


def write_dataset(folder, splits=("train", "train", "val", "test")) -> dict[str, SceneViews]:
    """A folder of tiny scenes with true files, hashes and overlaps, and their frozen episodes."""
    records, scenes = [], {}
    for number, split in enumerate(splits):
        category = ("objects", "rooms")[number % 2]
        id = f"{category}__{number}"
        path = folder / "scenes" / f"{id}.safetensors"
        digest = write_scene(
            path,
            make_frames(VIEWS, (8, 6), seed=number),
            {"id": id, "category": category, "units": "metre"},
            split != "train",
        )
        records.append(SceneRecord(id, f"scenes/{id}.safetensors", digest, VIEWS, split, "metre", 1.0, category))
        overlap = strip_overlap(tuple(Scene.open(path).names))
        write_overlap(folder / "overlaps" / f"{id}.safetensors", overlap, digest)
        scenes[id] = SceneViews.of(records[-1], Scene.open(path), overlap)
    write_index(folder, records)
    for split in set(splits):
        chosen = [
            item
            for views in scenes.values()
            if views.record.split == split
            for item in evaluation_episodes(views, selection())[0]
        ]
        write_episodes(folder, split, chosen, scenes.__getitem__)
    return scenes


def positions(views, names):
    return [views.names.index(name) for name in names]


def true_coverage(i, j):
    return 1 - 5 * abs(i - j) / 100


def true_union(a, b, t):
    cells = set(range(5 * t, 5 * t + 100))
    return len(cells & (set(range(5 * a, 5 * a + 100)) | set(range(5 * b, 5 * b + 100)))) / 100


def test_evaluation_episodes_lie_in_their_bins():
    views = make_views()
    chosen, available = evaluation_episodes(views, selection(per_bin=5))
    assert Counter(item.bin for item in chosen) == dict.fromkeys(OVERLAP_BINS, 5)
    wanted = Counter(
        bin
        for i in range(VIEWS)
        for j in range(i + 1, VIEWS)
        for bin, (low, high) in OVERLAP_BINS.items()
        if low <= round(true_coverage(i, j), 6) < high + (high == 1)
    )
    assert abs(available["close"] - wanted["close"]) <= VIEWS  # float16 at the edges
    for item in chosen:
        check_episode(item, views, "train")
        (low, high), (c1, c2) = OVERLAP_BINS[item.bin], positions(views, item.contexts)
        assert low <= item.overlap <= high and item.overlap == pytest.approx(true_coverage(c1, c2), abs=1e-3)
        assert len(item.targets) == 3 and not item.fallback and item.overlap_source == "depth"
        assert all(true_union(c1, c2, t) >= low - 1e-9 for t in positions(views, item.targets))
    assert len({item.id for item in chosen}) == len({frozenset(item.contexts) for item in chosen}) == len(chosen)
    assert {item.contexts[0] < item.contexts[1] for item in chosen} == {True, False}
    assert evaluation_episodes(views, selection(per_bin=5))[0] == chosen


def test_empty_bins_are_reported():
    views = make_views(overlap=lambda names: strip_overlap(names, step=1))
    chosen, available = evaluation_episodes(views, selection())
    assert available["wide"] == available["very_wide"] == 0 and {item.bin for item in chosen} == {"close", "medium"}


def test_pairs_without_enough_covered_targets_are_dropped():
    few = make_views(count=4)
    assert evaluation_episodes(few, selection())[0] == []
    assert len(evaluation_episodes(few, selection(num_targets=2))[0]) > 0


@pytest.mark.parametrize("kind", ["coverage", "gap"])
def test_training_draws_are_allowed_and_varied(kind):
    views, rng = make_views(), np.random.default_rng(0)
    drawn = [draw_training_episode(views, selection(view_selection=kind), rng) for _ in range(400)]
    for item in drawn:
        check_episode(item, views, "train")
        (c1, c2), targets = positions(views, item.contexts), positions(views, item.targets)
        assert len(targets) == 3 and item.bin == "train" and not item.fallback
        if kind == "gap":
            assert 4 <= c2 - c1 <= 6 and all(c1 < t < c2 for t in targets)
            assert item.overlap is None and item.overlap_source == "gap"
        else:
            assert true_coverage(c1, c2) > 0.3 and all(true_union(c1, c2, t) > 0.3 for t in targets)
    assert {item.contexts[0] for item in drawn} == set(views.names[: VIEWS if kind == "coverage" else VIEWS - 4])
    assert len({name for item in drawn for name in item.targets}) >= VIEWS - 2


@pytest.mark.parametrize("case", ["a03", "a07"])
def test_splatt3rs_sampling_equals_the_reference(case):
    tensors, _ = load_fixture("splatt3r/view_sampling.safetensors")
    part = {name.removeprefix(f"{case}."): value.numpy() for name, value in tensors.items() if name.startswith(case)}
    alpha, beta = part["alpha_beta"]
    chosen = selection(view_selection="splatt3r", alpha=alpha, beta=beta)

    def overlap(names):  # the reference's [i][j] is the share of view j seen in view i
        return replace(
            nothing_to_measure(names),
            source="depth",
            coverage=part["coverage"].T,
            usable=np.ones(len(names), np.float32),
        )

    views = make_views(count=len(part["coverage"]), overlap=overlap)
    fallbacks = 0
    for first, used in enumerate(part["second_used"]):
        seconds, alone = second_contexts(views, chosen, first)
        expected = [index for index in part["valid_second"][first] if index >= 0]
        assert alone == (not expected) and seconds.tolist() == (expected or [used])
        targets, uncovered = held_out(views, chosen, first, used)
        expected = [index for index in part["valid_targets"][first] if index >= 0]
        assert uncovered == (len(expected) < 3)
        assert targets.tolist() == (part["fallback_targets"][first].tolist() if uncovered else expected)
        drawn = draw_training_episode(views, chosen, np.random.default_rng(first))
        fallbacks += drawn.fallback
    assert fallbacks > 0 or case == "a03"


def test_gap_pairs_are_uniform_and_counted():
    views = make_views(frame_number=np.delete(np.arange(VIEWS + 2), [3, 8]))
    wide = selection(num_targets=2)
    pairs, missing = gap_pairs(views, wide)
    numbers = views.frame_number.tolist()
    wanted = [
        (i, numbers.index(n + g))
        for i, n in enumerate(numbers)
        for g in (4, 5, 6)
        if n + g in numbers and sum(n < m < n + g for m in numbers) >= 2
    ]
    assert sorted(pairs) == sorted(wanted) and missing == VIEWS * 3 - len(wanted)
    rng = np.random.default_rng(0)
    counts = Counter(
        draw_training_episode(views, selection(view_selection="gap", num_targets=2), rng).contexts
        for _ in range(200 * len(pairs))
    )
    assert len(counts) == len(pairs) and max(abs(count - 200) for count in counts.values()) < 75


def test_training_falls_back_to_the_best_there_is_and_says_so():
    views, rng = make_views(), np.random.default_rng(0)
    item = draw_training_episode(views, selection(alpha=0.99), rng)
    c1, c2 = positions(views, item.contexts)
    assert item.fallback and abs(c1 - c2) == 1
    item = draw_training_episode(views, selection(beta=1.0), rng)
    contexts, targets = positions(views, item.contexts), positions(views, item.targets)
    rest = sorted((true_union(*contexts, t) for t in range(VIEWS) if t not in contexts), reverse=True)
    assert item.fallback and sorted((true_union(*contexts, t) for t in targets), reverse=True) == rest[:3]


def test_scenes_without_any_overlap_are_drawn_by_gap():
    views = make_views(overlap=nothing_to_measure)
    assert draw_training_episode(views, selection(), np.random.default_rng(0)).overlap_source == "gap"
    chosen, available = evaluation_episodes(views, selection())
    assert {item.bin for item in chosen} == {"gap"} and len(chosen) == 2 and list(available) == ["gap"]


@pytest.mark.parametrize("kind", ["coverage", "gap"])
def test_twins_and_unmoved_cameras_are_never_paired(kind):
    """Views 0-6 share one place; 7 shows the pixels of 13, and 8 those of 9."""
    content = [f"c{i}" for i in range(VIEWS)]
    content[13], content[9] = content[7], content[8]
    centres = np.arange(VIEWS)[:, None] * np.ones(3)
    centres[:7] = 0
    views = make_views(content=tuple(content), centres=centres)
    rng = np.random.default_rng(0)
    options = selection(view_selection=kind, num_targets=1)
    drawn = [draw_training_episode(views, options, rng) for _ in range(300)]
    for item in drawn + evaluation_episodes(views, options)[0]:
        check_episode(item, views, "train")


def test_scenes_with_too_few_photographs_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(EpisodeError, match="num_targets 3"):
        draw_training_episode(make_views(count=4), selection(), rng)
    with pytest.raises(EpisodeError, match="temporal_gap_min"):
        draw_training_episode(make_views(count=4), selection(view_selection="gap"), rng)


def test_written_episodes_are_read_back(tmp_path):
    scenes = write_dataset(tmp_path)
    for split, ids in (("train", 2), ("val", 1), ("test", 1)):
        found = read_episodes(tmp_path, split)
        assert len({item.scene for item in found}) == ids and {item.category for item in found} <= {"objects", "rooms"}
        assert found == [
            item
            for views in scenes.values()
            if views.record.split == split
            for item in evaluation_episodes(views, selection())[0]
        ]
    assert {item.category for item in read_episodes(tmp_path, "train", "rooms")} == {"rooms"}
    with pytest.raises(EpisodeError, match="no episode of category sofas .there are: objects, rooms"):
        read_episodes(tmp_path, "train", "sofas")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": lambda e: (e.contexts[0], *e.targets[1:])}, "repeats a frame"),
        ({"targets": lambda e: (e.targets[1], *e.targets[1:])}, "repeats a frame"),
        ({"contexts": lambda e: (e.contexts[0],) * 2}, "repeats a frame"),
        ({"targets": lambda e: ()}, "at least one target"),
        ({"contexts": lambda e: e.contexts[:1]}, "two contexts"),
        ({"targets": lambda e: ("nobody",)}, "has not: nobody"),
        ({"scene_sha256": lambda e: "0" * 64}, "another version"),
    ],
)
def test_rules_hold_when_writing_and_when_reading(tmp_path, change, words):
    scenes = write_dataset(tmp_path)
    ((key, value),) = change.items()
    good = read_episodes(tmp_path, "test")
    bad = type(good[0])(**vars(good[0]) | {key: value(good[0])})
    with pytest.raises(EpisodeError, match=words):
        write_episodes(tmp_path, "test", [bad], scenes.__getitem__)
    assert read_episodes(tmp_path, "test") == good  # what was there is still there
    lines = (tmp_path / "episodes_test.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {key: value(good[0])})
    (tmp_path / "episodes_test.jsonl").write_text("\n".join(lines))
    with pytest.raises(EpisodeError, match=words):
        read_episodes(tmp_path, "test")


def test_an_episode_of_another_split_or_with_twin_photographs_is_refused(tmp_path):
    scenes = write_dataset(tmp_path)
    with pytest.raises(EpisodeError, match="split train, not test"):
        write_episodes(tmp_path, "test", read_episodes(tmp_path, "train"), scenes.__getitem__)
    item = read_episodes(tmp_path, "test")[0]
    views = scenes[item.scene]
    content = list(views.content)
    content[views.names.index(item.targets[0])] = content[views.names.index(item.contexts[1])]
    with pytest.raises(EpisodeError, match="one image twice"):
        check_episode(item, SceneViews(**dict(vars_of(views), content=tuple(content))), "test")
    centres = views.centres.copy()
    centres[views.names.index(item.contexts[0])] = centres[views.names.index(item.contexts[1])]
    with pytest.raises(EpisodeError, match="in one place"):
        check_episode(item, SceneViews(**dict(vars_of(views), centres=centres)), "test")


def vars_of(views):
    return {key: getattr(views, key) for key in SceneViews.__dataclass_fields__}


def test_a_scene_changed_afterwards_is_noticed(tmp_path):
    scenes = write_dataset(tmp_path)
    views = next(views for views in scenes.values() if views.record.split == "test")
    path = tmp_path / views.record.file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="changed afterwards"):
        read_episodes(tmp_path, "test")


def test_missing_and_foreign_lists_are_refused(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "episodes_test.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(EpisodeError, match="not a list of episodes"):
        read_episodes(tmp_path, "test")
    (tmp_path / "episodes_test.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        read_episodes(tmp_path, "test")


def test_training_draws_depend_on_seed_and_index_alone(tmp_path):
    write_dataset(tmp_path)
    draw, again = (TrainingEpisodes(tmp_path, selection(), None, seed=3) for _ in range(2))
    forward = [draw(index) for index in range(20)]
    assert forward == [again(index) for index in reversed(range(20))][::-1]
    assert {item.category for item in forward} == {"objects", "rooms"}
    assert forward != [TrainingEpisodes(tmp_path, selection(), None, seed=4)(index) for index in range(20)]
    assert {TrainingEpisodes(tmp_path, selection(), "rooms", 3)(index).category for index in range(20)} == {"rooms"}
    with pytest.raises(EpisodeError, match="no training scene of category sofas"):
        TrainingEpisodes(tmp_path, selection(), "sofas", 3)


@pytest.mark.parametrize("kind", ["coverage", "gap"])
def test_views_without_depth_take_no_part_in_a_scene_that_goes_by_depth(kind):
    def patchy(names):
        overlap, blind = strip_overlap(names), np.arange(len(names)) % 5 == 1
        return replace(overlap, usable=np.where(blind, 0, overlap.usable))

    views, wanted = make_views(overlap=patchy), selection(view_selection=kind, temporal_gap_max=9, num_targets=2)
    drawn = [draw_training_episode(views, wanted, np.random.default_rng(seed)) for seed in range(40)]
    for item in drawn + evaluation_episodes(views, wanted)[0]:
        assert all(position % 5 != 1 for position in positions(views, item.contexts + item.targets))
    blind = replace(views.overlap, usable=np.zeros(VIEWS, np.int64))
    with pytest.raises(EpisodeError, match="0 usable images|has no two images"):
        draw_training_episode(make_views(overlap=lambda names: blind), wanted, np.random.default_rng(0))
