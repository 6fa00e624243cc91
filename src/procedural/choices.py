"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

SCENE_FAMILIES = ("objects", "rooms")
