import torch

from src.renders.episode_file import Rendered
from tests.helpers.fabricated import write_results


def test_pictures_are_found_by_method_and_alignment(tmp_path):
    write_results(tmp_path, scenes_per_family=1)
    rendered = Rendered.read(tmp_path / "data/renders/rooms__0__wide.safetensors")
    assert rendered.resolution == (40, 32)
    assert rendered.names == {"episode": "rooms__0__wide", "scene": "rooms__0", "category": "rooms", "bin": "wide"}
    raw, aligned = rendered.picture("render", "raw"), rendered.picture("render", "aligned")
    assert raw.shape == (2, 3, 32, 40) and raw.dtype == torch.float32 and not torch.equal(raw, aligned)
    assert torch.equal(aligned, rendered.tensors["render_aligned"].float())
    assert torch.equal(rendered.picture("copy_nearest", "raw"), rendered.picture("copy_nearest", "aligned"))
