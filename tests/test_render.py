from dataclasses import replace

from src.episodes.episodes import Episode
from src.render import bins, to_export


def episode(scene: str, category: str, id: str) -> Episode:
    return replace(EPISODE, id=id, scene=scene, category=category)


EPISODE = Episode("", "", ("0", "1"), ("2",), "wide", None, "gap", "", False, "")


def test_families_take_turns_and_a_scene_is_exported_once():
    episodes = [
        episode("o0", "objects", "o0a"),
        episode("o0", "objects", "o0b"),
        episode("o1", "objects", "o1a"),
        episode("o2", "objects", "o2a"),
        episode("r0", "rooms", "r0a"),
        episode("r0", "rooms", "r0b"),
    ]
    assert to_export(episodes, 2) == {"o0a", "r0a"} and to_export(episodes, 3) == {"o0a", "r0a", "o1a"}
    assert to_export(episodes, 9) == {"o0a", "o1a", "o2a", "r0a"} and to_export(episodes, 0) == set()


def test_overlap_measured_in_two_ways_is_never_in_one_bin():
    depth, frustum = replace(EPISODE, overlap_source="depth"), replace(EPISODE, bin="close", overlap_source="frustum")
    assert bins([depth, depth]) == ["wide", "wide"] and bins([frustum]) == ["close"]
    assert bins([depth, frustum]) == ["wide_depth", "close_frustum"]
