import io
import json
import math

import pytest

from src.datasets.co3d.annotations import entries_of, frame_annotation, read_category, sequence_annotation
from src.datasets.json_node import Node
from tests.helpers.co3d_miniature import write, write_jgz

FRAME = {
    "sequence_name": "1_2_3",
    "frame_number": 7,
    "image": {"path": "a/1_2_3/images/frame000008.jpg", "size": [64, 48]},
}
VIEWPOINT = {
    "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "T": [0, 0, 1.5],
    "focal_length": [2, 2.5],
    "principal_point": [0, 0.1],
}


def parsed(**changes):
    return frame_annotation(Node("f", "", FRAME | changes))


def test_everything_that_may_be_absent_may_be():
    for nothing in ({}, dict.fromkeys(("depth", "mask", "viewpoint", "meta", "frame_timestamp"))):
        frame = parsed(**nothing)
        assert (frame.number, frame.size, frame.depth, frame.mask, frame.R, frame.kind) == (7, [64, 48], *[None] * 4)
        assert math.isnan(frame.timestamp)
    about = sequence_annotation(Node("f", "", {"sequence_name": "x", "point_cloud": {"quality_score": None}}))
    assert (about.quality, about.pointcloud) == (None, None)


def test_a_camera_without_a_format_has_the_documented_one():
    assert parsed(viewpoint=VIEWPOINT).format == "ndc_norm_image_bounds"
    assert parsed(viewpoint=VIEWPOINT | {"intrinsics_format": "ndc_isotropic"}).format == "ndc_isotropic"
    assert parsed(viewpoint=VIEWPOINT).T == [0, 0, 1.5]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("dev_known", ("dev", "known")),
        ("test_unseen", ("test", "unseen")),
        ("train_known", ("train", "known")),
        ("other", (None, None)),
        ("dev", ("dev", None)),
        (None, (None, None)),
    ],
)
def test_frame_types(text, meaning):
    frame = parsed(meta={"frame_type": text})
    assert (frame.frame_set, frame.kind) == meaning


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequence_name": None}, "f at /: the entry sequence_name is missing"),
        ({"frame_number": 1.5}, "f at /frame_number: found float"),
        ({"frame_number": True}, "f at /frame_number: found bool"),
        ({"image": {"path": "../x", "size": [1, 1]}}, "f at /image/path: found '../x'"),
        ({"depth": {"path": "d.png"}}, "f at /depth: the entry scale_adjustment is missing"),
        ({"mask": []}, "f at /mask: found list"),
        ({"viewpoint": VIEWPOINT | {"T": [1, "2", 3]}}, "f at /viewpoint/T/1: found str"),
        ({"viewpoint": VIEWPOINT | {"intrinsics_format": "pixel"}}, "f at /viewpoint/intrinsics_format: found 'pixel'"),
        ({"meta": {"frame_type": 3}}, "f at /meta/frame_type: found int"),
    ],
)
def test_mistakes_are_found_where_they_are(changes, words):
    with pytest.raises(ValueError, match=words):
        parsed(**changes)


@pytest.mark.parametrize("chunk", [1, 7, 100, 10**6])
@pytest.mark.parametrize("content", [[], [{}], [{"a": "[,]{"}, {"b": [1, 2]}, {"c": 'é\\"'}], ["x", None, [2]]])
def test_a_list_is_decoded_entry_by_entry(monkeypatch, content, chunk):
    monkeypatch.setattr("src.datasets.co3d.annotations.CHUNK_CHARACTERS", chunk)
    for text in (json.dumps(content), f" \n{json.dumps(content, indent=2, ensure_ascii=False)}\t\n"):
        assert list(entries_of(io.StringIO(text))) == content


@pytest.mark.parametrize("text", ["", "{}", "[", "[{}", "[{},", "[{},]", "[{} {}]", "[{}]]", "[{}] x", "[,{}]", "null"])
def test_what_is_no_whole_list_is_refused(text):
    with pytest.raises(ValueError, match="no whole list"):
        list(entries_of(io.StringIO(text)))


def test_sequences_may_be_mixed_in_a_file(tmp_path):
    order = [("x", 0), ("y", 0), ("x", 1), ("x", 2), ("y", 1)]
    write_jgz(
        tmp_path / "a/frame_annotations.jgz",
        [FRAME | {"sequence_name": name, "frame_number": number} for name, number in order],
    )
    write_jgz(tmp_path / "a/sequence_annotations.jgz", [])
    frames = read_category(tmp_path, "a", {}).frames
    found = {name: [frame.number for frame in packed] for name, packed in frames.items()}
    assert found == {"x": [0, 1, 2], "y": [0, 1]}
    assert len(frames["x"]) == 3 and {frame.sequence for frame in frames["y"]} == {"y"}


def test_a_category_is_read_whole(tmp_path):
    write_jgz(tmp_path / "a/frame_annotations.jgz", [FRAME, FRAME | {"frame_number": 8}])
    write_jgz(tmp_path / "a/sequence_annotations.jgz", [{"sequence_name": "1_2_3", "viewpoint_quality_score": 2}])
    lists = {"train": [["1_2_3", 7, "a/x.jpg"]], "test": [], "extra": "ignored"}
    write(tmp_path / "a/set_lists/set_lists_manyview_dev_0.json", json.dumps(lists).encode())
    category = read_category(tmp_path, "a", {})
    assert [frame.number for frame in category.frames["1_2_3"]] == [7, 8]
    assert category.sequences["1_2_3"].quality == 2
    assert category.lists == [("manyview_dev_0", "train", [("1_2_3", 7, "a/x.jpg")]), ("manyview_dev_0", "test", [])]
