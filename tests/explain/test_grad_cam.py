"""Grad-CAM against class activation maps worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iekd.explain.grad_cam import grad_cam
from iekd.explain.network import NetworkOrHalf, parts_of


def test_with_a_linear_head_it_is_the_class_activation_map(networks, noise):
    """There the gradient of the class's score is the head's weight, spread over the pixels of the last stage."""
    student, images = networks[-1], noise(4)
    with torch.no_grad():
        features = student.forward(student.pixels(images))
    k = features.logits.argmax(1)
    last = features.stages[-1]
    weighted = student.model.classifier.weight[k][:, :, None, None] * last / last[0, 0].numel()
    found = grad_cam(parts_of([student]), images)
    assert [maps.half for maps in found] == ["", "inheritance", "exploration"]
    split = student.card.inheritance_channels[-1]
    others = [c for c in range(64) if c not in split]
    for maps, channels in zip(found, (list(range(64)), list(split), others), strict=True):
        cam = F.relu(weighted[:, channels].sum(1, keepdim=True))
        expected = F.interpolate(cam, size=(16, 16), mode="bilinear", align_corners=False)[:, 0].numpy()
        assert expected.max() > 0
        assert maps.maps == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert maps.explained == tuple(student.card.class_names[i] for i in k)


def test_a_network_that_looks_at_a_patch_lights_it_up(patch):
    network, images, corners = patch
    (found,) = grad_cam([NetworkOrHalf(network)], images)
    for map_, (y, x) in zip(found.maps, corners, strict=True):
        row, column = np.unravel_index(map_.argmax(), map_.shape)
        assert y - 1 <= row < y + 4
        assert x - 1 <= column < x + 4
