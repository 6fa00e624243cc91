import base64
import io

import numpy as np
import pytest
from PIL import Image

from src.page.strip import data_uri


@pytest.mark.parametrize(("size", "shown"), [((40, 32), (40, 32)), ((800, 400), (384, 192))])
def test_pictures_are_embedded_and_large_ones_made_smaller(size, shown):
    picture = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    head, data = data_uri(picture).split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/webp;base64" and image.size == shown
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 60)).max() < 12
