"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

SCORED_SPLITS = ("test", "dev")  # what `evaluate` may score: results are of `test`, choices are made on `dev`
SPLITS = ("train", "val", *SCORED_SPLITS)
