import pytest

from src.backbones.spelling import names_like
from src.backbones.timm_models import names


def test_spellings_of_one_name_are_equal_and_others_are_not():
    known = ["dinov2", "croco", "vit_base_patch32_clip_224.openai", "vit_large_patch14_clip_224.openai"]
    for word in ("DINOv2", "DINO-v2", "Dino_V2", "dinov2"):
        assert names_like(word, known)[0] == "dinov2"
    for word in ("ViT-B/32", "vitb32", "ViT_B_32", "vit_base_patch32"):
        assert names_like(word, known, 0.4)[0] == "vit_base_patch32_clip_224.openai"
    assert names_like("nothing like it", known) == []


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("dinov3_vits16", "vit_small_patch16_dinov3"), ("ViT-B/16", "vit_base_patch16"), ("ResNet-50", "resnet50")],
)
def test_the_nearest_names_of_timm_are_of_that_network(word, wanted):
    assert wanted in names_like(word, names(), 0.4)[0]
