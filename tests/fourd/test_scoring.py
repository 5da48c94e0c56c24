import numpy as np
import pytest
import torch

from fourd.scoring import SurfaceMismatch, score_surface_tracks, score_tracks, score_views
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


def test_a_surface_with_other_vertices_is_scored_as_the_same_motion() -> None:
    vertices, faces, _ = bending_bar.bar()
    rest = torch.as_tensor(vertices)
    truth = np.stack([bending_bar.bent(rest, frame).numpy() for frame in range(bending_bar.NUM_FRAMES)])
    # Each triangle of the object is a quarter of one of the truth, and its vertices stand in another order.
    middles = vertices[faces].mean(axis=1)
    centre = len(vertices) + np.arange(len(faces))
    finer = np.concatenate([np.stack([faces[:, a], faces[:, b], centre], axis=1) for a, b in ((0, 1), (1, 2), (2, 0))])
    order = np.random.default_rng(0).permutation(len(vertices) + len(faces))
    object_rest = np.concatenate([vertices, middles])[order]
    object_faces = np.argsort(order)[finer]
    moved = torch.as_tensor(object_rest)
    tracks = np.stack([bending_bar.bent(moved, frame).numpy() for frame in range(bending_bar.NUM_FRAMES)])
    exact = score_surface_tracks(tracks, object_faces, object_rest, truth, faces)
    assert exact.mean_error < 1e-9
    assert exact.num_vertices == len(vertices)
    off = tracks + np.array([0.0, 0.03, 0.0])
    assert score_surface_tracks(off, object_faces, object_rest, truth, faces).mean_error == pytest.approx(
        0.03 / exact.radius
    )
    # And where the object is the coarser one, truth's vertices lie within its faces.
    fine_truth = np.concatenate([truth, truth[:, faces].mean(axis=2)], axis=1)
    coarse = score_surface_tracks(truth, faces, vertices, fine_truth, finer)
    assert coarse.num_vertices == len(vertices) + len(faces)
    assert coarse.mean_error < 1e-9


def test_another_object_is_not_scored() -> None:
    vertices, faces, _ = bending_bar.bar()
    truth = np.stack([vertices, vertices])
    with pytest.raises(SurfaceMismatch, match=r"1\.\d% of the radius off its surface; make the object anew"):
        score_surface_tracks(truth, faces, vertices + np.array([0.0, 0.0, 0.01]), truth, faces)
    with pytest.raises(ValueError, match="without faces"):
        score_surface_tracks(truth, faces[:0], vertices, truth, faces)
