"""Names that params.yaml may choose from; here without torch, so that they are checked at once."""

ON_BAD_FRAME = ("skip", "error")
SCANNETPP_IMAGES = ("undistorted", "fisheye")
