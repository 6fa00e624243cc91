"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

MASKS = ("strict", "splatt3r")  # which target pixels count, see `loss_mask`
