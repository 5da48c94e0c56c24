"""Smaller pictures on an asset, for a machine that cannot hold them as they are."""

import bpy

LINEAR = "Linear Rec.709"


def shrink_pictures(limit_px: int) -> None:
    """Scale all pictures down to at most so many pixels a side, one after the other: a single one is decoded at a time.

    The small ones take the packed place of the large, so that whoever decodes them again gets the small ones.
    """
    for image in bpy.data.images:
        if image.library or image.source != "FILE":
            continue
        width, height = image.size  # which decodes it; 0 if that fails
        longest = max(width, height)
        if longest > limit_px:
            image.scale(max(1, width * limit_px // longest), max(1, height * limit_px // longest))
            image.pack()
            if image.is_float and not image.colorspace_settings.is_data:
                image.colorspace_settings.name = LINEAR  # in memory floats are, and so they are packed
        image.buffers_free()
