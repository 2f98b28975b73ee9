"""Learned key points and a learned matcher, through kornia: ALIKED or DISK, matched by LightGlue; an optional extra.

Not of the paper's references: what people use today in the place of SIFT and the ratio test. Sources: Tyszkiewicz et
al., DISK, NeurIPS 2020; Zhao et al., ALIKED, IEEE TIM 2023; Lindenberger et al., LightGlue, ICCV 2023.
The weights are not part of this project: kornia fetches them into torch's hub folder, or finds there what you laid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ssr_lib.decode import ImageError, load_image
from ssr_lib.heads import check_choice
from ssr_lib.images import crop
from ssr_lib.local import LocalFeatures
from ssr_lib.local.matching import explained

Described = tuple[LocalFeatures, tuple[int, int]]  # and width and height of the picture


class Matcher:
    """`kind` "aliked" or "disk", with at most `count` points a picture; `weights`: "hub", or "none" for random ones.

    Raises `ValueError` where kornia is missing, with the command that brings it.
    """

    def __init__(self, kind: str = "aliked", *, count: int = 1000, weights: str = "hub"):
        check_choice("kind", kind, ("aliked", "disk"))
        check_choice("weights", weights, ("hub", "none"))
        try:
            from kornia import feature  # seconds: only where it is asked for
        except ImportError as error:
            raise ValueError(f"kornia is missing ({error}); `pip install 'ssr-lib[local]'` brings it") from None
        self.kind, self.count = kind, count
        part = feature.ALIKED if kind == "aliked" else feature.DISK
        options = {"max_num_keypoints": count} if kind == "aliked" else {}
        if weights == "hub":
            self.detector, self.matcher = part.from_pretrained(**options), feature.LightGlue(kind)
        else:
            self.detector, self.matcher = part(**options), feature.LightGlue(None, input_dim=128)
        self.detector.eval()
        self.matcher.eval()

    @torch.inference_mode()
    def extract(self, file: Path | str, box=None) -> Described:
        """The features of a picture, or of its part in `box`, the strongest first, and its width and height."""
        image = load_image(file)
        try:
            image = image if box is None else crop(image, box)
        except ImageError as error:
            raise ImageError(f"{file}: {error}") from error
        x = torch.from_numpy(np.ascontiguousarray(image)).movedim(2, 0)[None] / 255  # (1, 3, H, W)
        if self.kind == "aliked":
            found = self.detector(x)[0]
        else:
            found = self.detector(x, n=self.count, pad_if_not_divisible=True)[0]
        scores = found.keypoint_scores if self.kind == "aliked" else found.detection_scores
        order = scores.argsort(descending=True, stable=True)[: self.count]
        parts = [part[order].float().numpy() for part in (found.keypoints, found.descriptors, scores)]
        return LocalFeatures(*parts), (image.shape[1], image.shape[0])

    @torch.inference_mode()
    def matches(self, query: Described, image: Described) -> np.ndarray:
        """Ids (m, 2) of the features that LightGlue matches."""
        asked = {}
        for name, (features, size) in {"image0": query, "image1": image}.items():
            if len(features) < 2:
                return np.zeros((0, 2), np.int64)
            asked[name] = {"keypoints": torch.from_numpy(features.points)[None], "image_size": torch.tensor([size])}
            asked[name]["descriptors"] = torch.from_numpy(features.descriptors)[None]
        there = self.matcher(asked)["matches0"][0].numpy()  # (n,), −1 for none
        here = np.flatnonzero(there >= 0)
        return np.stack([here, there[here]], axis=1)

    def count_inliers(self, query: Described, image: Described, *, error: float = 5.0) -> int:
        """Matches that one homography explains within `error` pixels, as `local.sift.count_inliers`."""
        pairs = self.matches(query, image)
        points = query[0].points[pairs[:, 0]], image[0].points[pairs[:, 1]]
        return int(explained(*points, "homography", error).sum())
