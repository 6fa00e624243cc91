"""What every rasteriser here agrees on: the rules of gsplat 1.5 for what a footprint is and when it counts."""

TILE = 16  # pixels a side; footprints are dealt to tiles
BLUR = 0.3  # px^2, low-pass filter: added to the diagonal of the 2D covariance
MIN_ALPHA = 1 / 255  # weaker contributions to a pixel are dropped
MAX_ALPHA = 0.999  # stronger ones are cut, so that some light always passes
MIN_TRANSMITTANCE = 1e-4  # a footprint that would leave less light is not drawn, and ends its pixel
