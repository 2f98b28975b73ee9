"""Local features and their geometric verification, with OpenCV: SIFT, the ratio test, RANSAC homographies."""

from __future__ import annotations

import io
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from ssr_lib.decode import ImageError, load_image
from ssr_lib.files import digest, write_atomic
from ssr_lib.images import crop
from ssr_lib.store import picture_key

Features = tuple[np.ndarray, np.ndarray]  # places (n, 2) float32 in pixels, SIFT descriptors (n, 128) uint8


def extract_features(file: Path | str, *, box=None, longest: int = 512, count: int = 1000) -> Features:
    """The `count` strongest SIFT features of a picture (with all as strong as the last), cropped to `box`, shrunk to at
    most `longest` pixels a side.

    Raises `ImageError` naming a picture that cannot be read, is not where `box` is, or is too narrow to be shrunk.
    """
    image = load_image(file)
    try:
        image = image if box is None else crop(image, box)
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from error
    height, width = image.shape[:2]
    factor = min(1.0, longest / max(height, width))
    if round(factor * min(height, width)) < 1:
        raise ImageError(f"{file}: of {width} x {height} px none is left at {longest} px a side; leave the picture out")
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT_create(nfeatures=count).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
    return np.float32([point.pt for point in points]), descriptors.astype(np.uint8)


def count_inliers(query: Features, image: Features, *, ratio: float = 0.8, error: float = 5.0) -> int:
    """Matches that one homography explains within `error` pixels; 0 where too few pass the ratio test (Lowe 2004)."""
    if len(query[0]) < 4 or len(image[0]) < 4:  # a homography has 8 unknowns
        return 0
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(*(part[1].astype(np.float32) for part in (query, image)), k=2)
    matches = [best for best, second in pairs if best.distance < ratio * second.distance]
    if len(matches) < 4:
        return 0
    here = np.float32([query[0][match.queryIdx] for match in matches])
    there = np.float32([image[0][match.trainIdx] for match in matches])
    inliers = cv2.findHomography(here, there, cv2.RANSAC, error)[1]
    return 0 if inliers is None else int(inliers.sum())


def load_or_extract(
    file: Path | str, cache: Path | str | None, *, box=None, longest: int = 512, count: int = 1000
) -> tuple[Features, float]:
    """Features and the seconds their extraction took, from the cache folder or extracted now and stored there.

    A stored file's name tells the picture, its size and times, and the settings.
    """
    box = None if box is None else [float(side) for side in box]
    if cache is not None:
        path = Path(cache) / f"{digest([picture_key(file, box), longest, count, cv2.__version__])[:32]}.npz"
        try:
            with np.load(path) as stored:
                return (stored["points"], stored["descriptors"]), float(stored["seconds"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"{path} is damaged ({error}); {file} is looked at again", stacklevel=2)
    start = time.perf_counter()
    features = extract_features(file, box=box, longest=longest, count=count)
    seconds = time.perf_counter() - start
    if cache is not None:
        buffer = io.BytesIO()
        np.savez(buffer, points=features[0], descriptors=features[1], seconds=seconds)
        write_atomic(path, buffer.getvalue())
    return features, seconds
