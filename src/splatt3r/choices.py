"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

FUSION_MODES = ("concat", "add", "weighted_sum", "channel_weights", "gated", "cross_attention", "bottleneck", "film")
CAMERAS = ("unposed", "posed")  # of the contexts
FUSION_SITES = ("depth", "head", "encoder")  # `depth`: posed alone
STRATEGIES = {  # what each trains besides the Gaussian head and the adapter
    "feature_extraction": {"freeze_encoder": True, "freeze_decoder": True},
    "fusion_finetune": {"freeze_encoder": True, "freeze_decoder": False},
    "full_finetune": {"freeze_encoder": False, "freeze_decoder": False},
}
SH_DEGREES = (0, 1, 2, 3)
OPTIMIZERS = ("adam", "adamw")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
