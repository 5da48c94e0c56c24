import numpy as np
import pytest

from fourd.scoring import score_tracks, score_views
from tests.fourd import bending_bar

FACES = np.array([[0, 1, 2]])


def test_tracks_are_measured_in_radii_and_without_frame_0() -> None:
    truth = np.zeros((3, 4, 3))
    truth[:, 0, 0], truth[:, 1, 0], truth[:, 2, 0] = -2.0, 2.0, 0.0
    truth[1:] += [0.0, 0.5, 0.0]
    found = truth.copy()
    found[1, 0, 2] += 0.2  # a tenth of the radius of 2
    found[2, 1, 2] += 0.03
    found[:, 3] += 100.0  # in no face
    scores = score_tracks(found, truth, FACES)
    assert scores.radius == pytest.approx(2.0)
    assert scores.num_vertices == 3
    assert scores.mean_error == pytest.approx((0.1 + 0.015) / 6)
    assert scores.share_near == pytest.approx(5 / 6)
    assert scores.still_error == pytest.approx(0.25)
    with pytest.raises(ValueError, match="cannot be scored"):
        score_tracks(found[:, :3], truth, FACES)


def test_the_true_motion_scores_best() -> None:
    video = bending_bar.video(2)
    perfect = score_views(bending_bar.true_model(), video)
    assert perfect.psnr_db > 45
    assert perfect.ssim > 0.995
    assert perfect.mask_iou == pytest.approx(1.0, abs=0.01)
    assert perfect.num_pictures == 8
    coarse = score_views(bending_bar.true_model(300), video)
    assert coarse.psnr_db < perfect.psnr_db - 5
    assert coarse.object_psnr_db < coarse.psnr_db
