"""View-dependent colour as real spherical harmonics, degree 0 to 3, in the basis order of the 3DGS rasterisers.

Coefficient l^2 + l + m belongs to degree l and order m = -l..l, with the Condon-Shortley sign: degree 1 is -y, z, -x
(Sloan 2008, Stupid Spherical Harmonics Tricks, appendix A2; Kerbl et al. 2023).
"""

import math

import torch
from torch import Tensor

C0 = 0.28209479177387814  # Y_00 = 1 / (2 sqrt(pi))


def rgb_to_dc(rgb: Tensor) -> Tensor:
    """Degree-0 coefficient that shows colour `rgb` from every side: (rgb - 0.5) / C0."""
    return (rgb - 0.5) / C0


def dc_to_rgb(dc: Tensor) -> Tensor:
    """Colour of a degree-0 coefficient: 0.5 + C0 dc, not clamped."""
    return 0.5 + C0 * dc


def basis(directions: Tensor, degree: int) -> Tensor:
    """All real spherical harmonics up to `degree`.

    directions (..., 3)                 any non-zero length
    degree                              0 to 3
    returns    (..., (degree + 1)^2)
    raises     ValueError               for other degrees
    """
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"spherical harmonics of degree {degree} are not built; choose 0, 1, 2 or 3.")
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        c = math.sqrt(3 / (4 * math.pi))
        values += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = math.sqrt(15 / (4 * math.pi))
        values += [
            c * x * y,
            -c * y * z,
            math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
            -c * x * z,
            c / 2 * (x * x - y * y),
        ]
    if degree >= 3:
        c3, c2 = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        c1, c0 = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        values += [
            -c3 * y * (3 * x * x - y * y),
            c2 * x * y * z,
            -c1 * y * (5 * z * z - 1),
            c0 * z * (5 * z * z - 3),
            -c1 * x * (5 * z * z - 1),
            c2 / 2 * z * (x * x - y * y),
            -c3 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, -1)


def turned(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients of the same colours after the scene was turned: towards R d they are what they were towards d.

    sh        (..., N, d, 3)   of any degree; d = (degree + 1)^2
    rotation  (..., 3, 3)      R
    """
    if sh.shape[-2] == 1:
        return sh
    degree = math.isqrt(sh.shape[-2]) - 1
    generator = torch.Generator().manual_seed(0)
    # A turned function is in the same space: its values in enough directions, any in general position, determine it.
    directions = torch.randn(4 * sh.shape[-2], 3, generator=generator, dtype=torch.float64).to(sh.device)
    values = basis(directions @ rotation.double(), degree)  # rows R^T d  (..., M, d)
    matrix = torch.linalg.pinv(basis(directions, degree)) @ values  # (..., d, d)
    return matrix.to(sh.dtype)[..., None, :, :] @ sh


def colours(sh: Tensor, means: Tensor, camera_centres: Tensor) -> Tensor:
    """Colour of every Gaussian towards every camera, max(0, 0.5 + sum_k sh_k Y_k(direction)).

    The direction runs from the camera to the Gaussian's centre, in the frame of `means`.

    sh             (N, d, 3)  d = (degree + 1)^2
    means          (N, 3)
    camera_centres (V, 3)     same frame as means
    returns        (V, N, 3)  >= 0, not clamped above
    """
    if sh.shape[-2] == 1:  # the same from everywhere
        return dc_to_rgb(sh[:, 0]).clamp_min(0).expand(len(camera_centres), -1, -1)
    values = basis(means - camera_centres[:, None], math.isqrt(sh.shape[-2]) - 1)  # (V, N, d)
    return (0.5 + torch.einsum("vnd,ndc->vnc", values, sh)).clamp_min(0)
