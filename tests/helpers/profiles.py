"""Colour profiles that the tests write, and what their colours are in sRGB by the formula."""

import struct

import numpy as np

GAMMA = 563 / 256  # u8Fixed8Number nearest to 2.2
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])  # to XYZ, D50


def icc_profile(name: str, to_xyz: np.ndarray = DISPLAY_P3) -> bytes:
    """A matrix profile (ICC.1:2001, version 2): primaries as columns of to_xyz (3, 3), one gamma for all channels."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    words = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), to_xyz.T)}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + body


def in_srgb_by_formula(pixels: np.ndarray, to_xyz: np.ndarray = DISPLAY_P3) -> np.ndarray:
    """(..., 3) in [0, 255] of that profile -> sRGB in [0, 255]   (IEC 61966-2-1), float64."""
    linear = (pixels / 255.0) ** GAMMA @ to_xyz.T @ np.linalg.inv(SRGB).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
