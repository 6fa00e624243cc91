import numpy as np
import torch
from scipy.ndimage import map_coordinates
from skimage.data import stereo_motorcycle

from src.geometry.visibility import loss_mask
from src.inference.motorcycle import camera_matrices, carried_depth, depth_of_disparity, motorcycle


def test_depth_is_the_formula_s():
    """By hand: 994.978 pixels times 0.193001 m is 192.0317; over 30 + 31.086, and over 100 + 31.086."""
    depth = depth_of_disparity(np.array([[30.0, 100.0, np.inf, np.nan]]))
    np.testing.assert_allclose(depth, [[3.143629, 1.464929, 0, 0]], rtol=1e-6)
    whole = depth_of_disparity(stereo_motorcycle()[2])
    assert abs((whole > 0).mean() - 0.927) < 0.001 and whole.min() == 0 and 1 < np.median(whole[whole > 0]) < 5


def test_places_are_where_the_right_photograph_shows_them():
    """A pixel's point, seen by the right camera, lies the disparity further left; and looks the same there."""
    left, right, disparity = stereo_motorcycle()
    K, depth = camera_matrices(), depth_of_disparity(disparity)
    rows, columns = np.nonzero(depth[::7, ::7] > 0)
    rows, columns = 7 * rows, 7 * columns
    d, z = disparity[rows, columns], depth[rows, columns]
    x = (columns + 0.5 - K[0, 0, 2]) / K[0, 0, 0] * z - 0.193001
    seen = K[1, 0, 0] * x / z + K[1, 0, 2]
    np.testing.assert_allclose(seen, columns + 0.5 - d, atol=1e-3)
    inside = seen > 0
    there, here = right.mean(-1), left.mean(-1)[rows, columns]
    apart = {
        shift: np.median(np.abs(map_coordinates(there, (rows, seen - 0.5 + shift)) - here)[inside]) for shift in (0, 8)
    }
    assert apart[0] < 5 < apart[8]


def test_the_right_photograph_s_depth_is_the_nearest_that_falls_on_a_pixel():
    depth = np.array([[0.0, 5.0, 2.0, 5.0, 9.0]])
    disparity = np.array([[np.inf, 1.0, 2.0, 1.0, 5.0]])
    assert carried_depth(depth, disparity).tolist() == [[2.0, 0.0, 5.0, 0.0, 0.0]]


def test_cameras_follow_the_cut_to_the_digit():
    """By hand, of the left photograph at 128 x 128: box 0..622, 10..500, resized to 162 x 128, cut from column 17. A point
    that it shows at (411.193, 254.877) is then shown at (411.193 * 162 / 622 - 17, (254.877 - 10) * 128 / 490)."""
    views = motorcycle((128, 128))
    assert views.images.shape == (2, 3, 128, 128) and views.valid.all()
    point = torch.tensor([100 / 994.978, 0.0, 1.0]) * 2.5
    pixel = views.K[0] @ point / point[2]
    torch.testing.assert_close(pixel[:2], torch.tensor([90.09529, 63.96787]), rtol=0, atol=1e-4)
    assert views.c2w[0].equal(torch.eye(4)) and views.c2w[1, 0, 3].item() == np.float32(0.193001)


def test_the_cut_photographs_show_each_other_s_places():
    """Each pixel of the left one, carried by its depth and both cameras, has the right one's colour."""
    views = motorcycle((160, 112))
    K, depth = views.K.double().numpy(), views.depth[0].double().numpy()
    seen = loss_mask(
        *(each[:1] for each in (views.depth, views.K, views.c2w)), views.depth[1:], views.K[1:], views.c2w[1:]
    )
    rows, columns = np.nonzero(seen[0].numpy())
    z = depth[rows, columns]
    x = (columns + 0.5 - K[0, 0, 2]) / K[0, 0, 0] * z - 0.193001
    y = (rows + 0.5 - K[0, 1, 2]) / K[0, 1, 1] * z
    u, v = K[1, 0, 0] * x / z + K[1, 0, 2] - 0.5, K[1, 1, 1] * y / z + K[1, 1, 2] - 0.5
    left, right = (each.mean(0).numpy() for each in views.images)
    apart = {
        shift: np.median(np.abs(map_coordinates(right, (v, u + shift), order=1) - left[rows, columns]))
        for shift in (0, 4)
    }
    assert len(rows) > 0.5 * seen[0].numel() and apart[0] < 0.03 < apart[4]
