"""Colours of patch latents: the same latent, the same colour; the axes are those of the largest spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm.evaluation.patch_pca import patch_colours


def test_colours_are_the_principal_components() -> None:
    latents = torch.randn(5, 16, 8) * torch.tensor([0.1, 9.0, 0.1, 3.0, 0.1, 1.0, 0.1, 0.1])
    truth, other = patch_colours(latents, latents[:2])
    assert truth.shape == (5, 4, 4, 3)
    np.testing.assert_array_equal(truth[:2], other)
    assert 0 == truth.min() < truth.max() == 1
    for colour, channel in enumerate((1, 3, 5)):
        found = np.corrcoef(truth[..., colour].ravel(), latents[..., channel].flatten().numpy())[0, 1]
        assert found > 0.95  # and not reversed: the axis points where its largest entry is positive


def test_patches_lie_row_by_row() -> None:
    latents = torch.zeros(1, 9, 4)
    latents[0, 5, 0] = 1.0  # row 1, column 2
    truth, _ = patch_colours(latents, latents)
    assert np.argwhere(truth[0, ..., 0] > 0.5).tolist() == [[1, 2]]


def test_few_channels_and_odd_numbers_of_patches() -> None:
    truth, _ = patch_colours(torch.randn(2, 4, 2), torch.randn(1, 4, 2))
    assert truth.shape == (2, 2, 2, 3)
    assert not truth[..., 2].any()
    with pytest.raises(ValueError, match="no square"):
        patch_colours(torch.randn(2, 5, 2), torch.randn(2, 5, 2))
