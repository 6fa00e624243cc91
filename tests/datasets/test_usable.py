import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from src.datasets.usable import BadFrame, SceneDropped, Tally, check_frame, check_scene, usable_frames
from src.scenes.pixels import BadPixels
from tests.helpers.frames import camera, changed, make_frames


def pose(rotation=np.eye(3), centre=(1, 2, 3)):
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation, centre
    return c2w


def sheared(amount):
    rotation = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    rotation[0] *= 1 + amount
    return rotation


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"c2w": pose(centre=(np.nan, 0, 0))}, "nonfinite_pose"),
        ({"c2w": pose(np.full((3, 3), np.inf))}, "nonfinite_pose"),
        ({"K": camera(fx=np.nan)}, "nonfinite_intrinsics"),
        ({"K": camera(cy=np.inf)}, "nonfinite_intrinsics"),
        ({"c2w": pose(sheared(1e-3))}, "bad_rotation"),
        ({"c2w": pose(np.diag([1.0, 1, -1]))}, "bad_rotation"),
        ({"c2w": pose(np.zeros((3, 3)))}, "bad_rotation"),
        ({"K": camera(fx=0.0)}, "bad_focal"),
        ({"K": camera(fy=-50.0)}, "bad_focal"),
        ({"K": camera(fx=500.0)}, "bad_focal"),
        ({"K": camera(fy=1.0)}, "bad_focal"),
        ({"K": camera(cx=7.0)}, "pp_off_centre"),
        ({"image": np.zeros((32, 40, 3), np.uint8)}, "redacted"),
    ],
)
def test_unusable_photographs_are_refused_with_their_reason(change, reason):
    with pytest.raises(BadFrame) as error:
        check_frame(changed(make_frames(1)[0], **change), Tally())
    assert error.value.reason == reason


def test_a_matrix_that_is_no_pose_stops_everything():
    c2w = pose()
    c2w[3] = 0, 0, 1, 0
    with pytest.raises(ValueError, match="camera-to-world") as error:
        check_frame(changed(make_frames(1)[0], c2w=c2w), Tally())
    assert not isinstance(error.value, BadFrame)


def test_almost_rotations_become_the_nearest_rotation():
    tally, wanted = Tally(), Rotation.from_matrix(sheared(3e-4)).as_matrix()  # scipy orthogonalises too
    fixed = check_frame(changed(make_frames(1)[0], c2w=pose(sheared(3e-4))), tally).c2w
    np.testing.assert_allclose(fixed[:3, :3] @ fixed[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(fixed[:3, :3], wanted, atol=2e-7)
    assert tally.counts == {"rotation_fixed": 1} and fixed[:3, 3].tolist() == [1, 2, 3]
    check_frame(changed(make_frames(1)[0], c2w=pose(sheared(3e-7))), tally)
    assert tally.counts == {"rotation_fixed": 1}  # repaired, but not worth a word


def test_good_frames_pass_unchanged():
    frame, tally = make_frames(1)[0], Tally()
    found = check_frame(frame, tally)
    assert all(np.array_equal(getattr(found, key), value) for key, value in vars(frame).items())
    assert not tally.counts and not tally.skipped


def test_bad_depth_pixels_are_zeroed_and_counted():
    depth = np.full((32, 40), 2, np.float16)
    depth[0, :5] = np.nan, np.inf, -np.inf, -1, 0
    tally = Tally()
    found = check_frame(changed(make_frames(1)[0], depth=depth, flags=None), tally)
    assert found.depth[0, :6].tolist() == [0, 0, 0, 0, 0, 2] and tally.counts == {"depth_pixels_zeroed": 4}
    assert np.isnan(depth[0, 0])  # the argument is left alone


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"depth": None}, "depth_missing"),
        ({"depth": np.zeros((32, 40), np.uint16)}, "depth_all_zero"),
        ({"flags": np.ones((32, 40), np.uint8)}, "depth_all_zero"),
    ],
)
def test_photographs_without_depth_are_kept_and_counted(change, word):
    tally = Tally()
    assert check_frame(changed(make_frames(1)[0], **change), tally).depth is None
    assert tally.counts == {word: 1}


def test_empty_masks_are_counted():
    tally = Tally()
    check_frame(changed(make_frames(1)[0], fg=np.zeros((32, 40), np.uint8)), tally)
    assert tally.counts == {"mask_empty": 1}


def test_usable_frames_tally_the_others():
    good, bad = make_frames(3), changed(make_frames(4)[3], K=camera(fx=-1.0))
    tally = Tally()
    assert list(f.name for f in usable_frames(iter([*good[:2], bad, good[2]]), tally)) == [f.name for f in good]
    assert tally.skipped == {"bad_focal": ["frame003"]} and tally.total_skipped == 1
    with pytest.raises(ValueError, match="frame003 is unusable .bad_focal.*on_bad_frame to skip"):
        list(usable_frames([bad], Tally("error")))
    with pytest.raises(ValueError, match="choose one of skip, error"):
        Tally("ignore")


def test_frames_come_out_in_capture_order():
    frames, tally = make_frames(12), Tally()
    found = check_scene(frames[6:] + frames[:6], tally, 10)
    assert [f.frame_number for f in found] == [f.frame_number for f in frames] and tally.counts == {"reordered": 1}
    assert check_scene(frames, tally := Tally(), 10) == frames and not tally.counts


def test_doubles_are_skipped_and_named():
    frames, tally = make_frames(13), Tally()
    frames[5] = changed(frames[4], name="twin", frame_number=45)  # equal pixels under another name
    frames[8] = changed(frames[7])  # one record twice
    found = check_scene(frames, tally, 10)
    assert tally.skipped == {"duplicate_image": ["twin"], "duplicate_record": ["frame007"]}
    assert len(found) == 11 and tally.total_skipped + len(found) == 13


@pytest.mark.parametrize("key", ["name", "frame_number"])
def test_one_label_for_two_pictures_is_an_error(key):
    frames = make_frames(12)
    frames[3] = changed(frames[3], **{key: getattr(frames[2], key)})
    with pytest.raises(ValueError, match="listed twice with different pictures"):
        check_scene(frames, Tally(), 10)


def test_equal_poses_are_kept_and_counted():
    frames, tally = make_frames(12), Tally()
    frames[3] = changed(frames[3], c2w=frames[2].c2w)
    assert len(check_scene(frames, tally, 10)) == 12 and tally.counts == {"identical_poses": 1}


@pytest.mark.parametrize("centre", [(2e5, 0, 0), (0, 900, 0)])
def test_stray_cameras_are_skipped_and_many_of_them_drop_the_scene(centre):
    frames, tally = make_frames(12), Tally()
    frames[3] = changed(frames[3], c2w=pose(centre=centre))
    assert len(check_scene(frames, tally, 10)) == 11 and tally.skipped == {"pose_outlier": ["frame003"]}
    frames[4] = changed(frames[4], c2w=pose(centre=centre))
    with pytest.raises(SceneDropped) as error:
        check_scene(frames, Tally(), 10)
    assert error.value.reason == "pose_outlier"


@pytest.mark.parametrize("count", [0, 9])
def test_scenes_with_few_photographs_are_dropped(count):
    with pytest.raises(SceneDropped) as error:
        check_scene(make_frames(count), Tally(), 10)
    assert error.value.reason == "too_few_frames"


def test_undecodable_pixels_inside_an_iterable_are_the_readers_to_tally():
    def frames():
        yield make_frames(1)[0]
        raise BadPixels("bad_image", "half a file")

    with pytest.raises(BadPixels):
        list(usable_frames(frames(), Tally()))
