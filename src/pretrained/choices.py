"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

LPIPS_TRUNKS = ("vgg", "alex", "squeeze")
DINOV2_WIDTHS = {"dinov2_vits14": 384, "dinov2_vitb14": 768, "dinov2_vitl14": 1024, "dinov2_vitg14": 1536}
DINOV2_WIDTHS |= {f"{name}_reg": width for name, width in DINOV2_WIDTHS.items()}
