import numpy as np
import torch

from src.geometry.surface import cell_medians, cell_normals, normals

K = torch.tensor([[50.0, 0, 16], [0, 50, 16], [0, 0, 1]])


def test_medians_of_cells_are_numpys_lower_ones():
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 8, 12, generator=generator) + 0.5
    depth[torch.rand(2, 8, 12, generator=generator) < 0.5] = 0
    depth[0, :4, :3] = 0
    found = cell_medians(depth, 2, 4)
    for b in range(2):
        for r in range(2):
            for c in range(4):
                cell = depth[b, 4 * r : 4 * r + 4, 3 * c : 3 * c + 3].numpy()
                known = np.sort(cell[cell > 0])
                wanted = known[(len(known) - 1) // 2] if len(known) else np.nan
                np.testing.assert_equal(found[b, r, c].item(), np.float32(wanted).item())


def test_normals_of_a_plane_are_its_own_and_face_the_camera():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, -1.0]), dim=0)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    rays = torch.stack([(x - 16) / 50, (y - 16) / 50, torch.ones(32, 32)], -1)
    depth = (-2 / (rays @ normal))[None]  # points p with p . normal = -2
    found = normals(depth, K[None])[0]
    assert torch.allclose(found[:, 1:-1, 1:-1], normal[:, None, None].expand(3, 30, 30), atol=1e-4)
    assert (found[:, 0] == 0).all() and (normals(depth * 0, K[None]) == 0).all()
    cells = cell_normals(depth, K[None], 2, 2)[0]
    assert torch.allclose(cells[:, 0, 0], normal * (15 * 15) / (16 * 16), atol=1e-4)
