"""Neural codes: what the classifier of the pretrained network says of a picture, compressed by PCA.

Source: Babenko et al., Neural codes for image retrieval, ECCV 2014, the sections on pretrained and on compressed
codes: reference [3] of the paper. Differs from it: classifiers of today have one layer where AlexNet had three, so that
the code is its 1,000 outputs before the softmax, a linear map of the mean of `project(last)`; what goes into that layer
is `spoc` without the centre prior. The classifier is not trained again on landmarks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import create_model
from ssr_lib.pooling import spoc
from ssr_lib.whitening import fit_pca

BATCHES = 64  # from which the PCA is computed, at most


class Head(nn.Module):
    """L2(PCA(L2(classifier(mean over places of `project(last)`)))), times the root of the width.

    `backbone`, `pretrained`: of the network whose classifier it is, as for `backbones.create_model`. `dims`: directions
    that the PCA keeps. The last factor gives the feature the size of a GeM, for which learning rates were chosen.
    Start: the pretrained classifier, and the PCA of training pictures; neither is trained. Before `fit` the PCA keeps
    the first classes. Raises `ValueError` for a map with other channels than the classifier takes.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        seed: int = 0,
        backbone: str = "tf_efficientnet_lite0",
        pretrained: str = "package",
        dims: int = 512,
    ):
        super().__init__()
        classifier = create_model(backbone, pretrained, seed).get_classifier()
        self.backbone = backbone
        classes = classifier.out_features
        self.width = min(dims, classes)
        self.register_buffer("weight", classifier.weight.detach().clone())  # buffers, for they are not trained
        self.register_buffer("bias", classifier.bias.detach().clone())
        self.register_buffer("mean", torch.zeros(classes))
        self.register_buffer("projection", torch.eye(self.width, classes))

    def forward(self, mid: Tensor | None, last: Tensor, project: nn.Module) -> Tensor:
        codes = (self.codes(project(last)) - self.mean) @ self.projection.T  # (B, D)
        return math.sqrt(self.width) * F.normalize(codes, dim=1)

    def codes(self, x: Tensor) -> Tensor:
        """L2-normalised outputs of the classifier, (B, C, H, W) → (B, classes)."""
        if x.shape[1] != self.weight.shape[1]:
            told = f"takes {self.weight.shape[1]} features and the map has {x.shape[1]} channels"
            raise ValueError(
                f"the classifier of {self.backbone!r} {told}; that of the network's own backbone is wanted"
            )
        return F.normalize(F.linear(spoc(x), self.weight, self.bias), dim=1)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor | None, Tensor, nn.Module]]) -> None:
        """Fit the PCA, without whitening, to the codes of the pictures in the first `BATCHES` batches."""
        codes = [self.codes(project(last)) for _, last, project in islice(batches, BATCHES)]
        pca = fit_pca(torch.cat(codes).cpu().numpy())
        rows = F.normalize(torch.from_numpy(pca.projection[: self.width]), dim=1)  # of length 1: turned, not whitened
        self.mean.copy_(torch.from_numpy(pca.mean))
        self.projection.zero_()[: len(rows)] = rows.to(self.projection)
