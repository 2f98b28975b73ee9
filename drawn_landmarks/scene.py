"""A view: camera, light and a street around the landmark, composed into one photograph and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from . import spec
from .building import Block
from .camera import Camera
from .chance import weighted
from .ground import draw_plan, draw_shadows, lay_ground
from .light import draw_light, paint_sky
from .photo import develop, draw_photo
from .placing import draw_things, stand_things
from .render import Canvas, Outline, draw_piece, lay_blocks, outline_blocks
from .structures import Structure
from .surroundings import Neighbourhood, beside, draw_background, draw_hills, opposite
from .viewpoint import draw_camera


@dataclass(frozen=True)
class View:
    """One photograph and what was measured in it."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    seen: float  # visible share of the landmark's whole silhouette, in the frame or not
    scale: float  # share of the picture it covers
    occluded: float  # share of it inside the frame that something hides
    box: tuple[float, float, float, float] | None  # around what is visible, pixels of the image
    quality: int  # JPEG quality to store it with


def difficulty(view: View) -> str:
    """easy, hard or junk, from what was measured."""
    if view.seen < spec.JUNK_SEEN or view.scale < spec.JUNK_SCALE:
        return "junk"
    clear = view.seen >= spec.EASY_SEEN and view.scale >= spec.EASY_SCALE and view.occluded <= spec.EASY_OCCLUDED
    return "easy" if clear else "hard"


def good_query(view: View) -> bool:
    """Whether the landmark is seen well enough for a query."""
    return view.seen >= spec.QUERY_SEEN and view.scale >= spec.QUERY_SCALE and view.occluded <= spec.QUERY_OCCLUDED


def well_framed(seed: tuple[int, ...], structure: Structure, blocks: list[Block], size: int) -> bool:
    """Whether the query view of this seed shows enough of the building if nothing stands before it."""
    rng = np.random.default_rng(np.random.SeedSequence([*seed, 0]))
    camera = draw_camera(rng, structure, round(size * spec.SUPERSAMPLE), query=True)
    whole, inside = silhouette(camera, outline_blocks(camera, blocks))
    return inside >= spec.QUERY_SEEN * whole and inside >= spec.QUERY_SCALE * camera.size**2


def draw_view(
    seed: tuple[int, ...],
    structure: Structure,
    blocks: list[Block],
    town: Neighbourhood,
    size: int,
    *,
    light_kind: str | None = None,
    query: bool = False,
) -> View:
    """Photograph a building. The seed decides camera, light, street and camera settings, each by its own generator, so
    that another style, another light (`light_kind`) or no building at all (`blocks` empty) leaves these as they are."""
    rngs = [np.random.default_rng(np.random.SeedSequence([*seed, k])) for k in range(7)]
    camera_rng, kind_rng, light_rng, sky_rng, street_rng, photo_rng, texture_rng = rngs
    big = round(size * spec.SUPERSAMPLE)
    camera = draw_camera(camera_rng, structure, big, query=query)
    odds = spec.QUERY_LIGHT_ODDS if query else spec.LIGHT_ODDS
    light = draw_light(light_rng, light_kind or weighted(kind_rng, odds))
    photo = draw_photo(photo_rng, light.kind)
    if query:
        photo = replace(photo, coarse=1.0, motion=(0.0, 0.0), grey=False, blur=min(photo.blur, 0.8))
    sky = paint_sky(sky_rng, camera, light)
    left, right = beside(street_rng, structure, town.blocks)
    shading, plan = opposite(street_rng, structure), draw_plan(street_rng)
    things = draw_things(street_rng, camera, structure, plan.strip if plan.kind == "street" else None)
    row = [*left, *blocks, *right]
    outlines = outline_blocks(camera, row)
    ground, walls = lay_ground(camera, plan), lay_blocks(camera, row, outlines, light, shading)
    canvas = Canvas(sky, [*ground, *walls])
    draw_hills(canvas, camera, light, street_rng)
    draw_background(canvas, camera, light, street_rng, town)
    for piece in ground:
        draw_piece(canvas, camera, piece, light, texture_rng)
    draw_shadows(canvas, camera, light, row, things)
    for piece in walls:
        draw_piece(canvas, camera, piece, light, texture_rng)
    canvas.mark_landmark()
    stand_things(canvas, camera, light, things)
    whole, inside = silhouette(camera, outlines[len(left) : len(left) + len(blocks)])
    return measure(develop(canvas.image, photo, size, texture_rng), canvas.landmark, whole, inside, photo.quality)


def measure(image: np.ndarray, landmark: np.ndarray, whole: float, inside: float, quality: int) -> View:
    """The view of an image in which `landmark` (uint8, larger than the image) marks what is seen of the building."""
    seen = float(cv2.countNonZero(landmark))
    side = len(landmark)
    box = None
    if seen:
        x, y, w, h = cv2.boundingRect(landmark)
        box = tuple(round(float(v) * len(image) / side, 1) for v in (x, y, x + w, y + h))
    hidden = max(0.0, 1.0 - seen / max(inside, 1.0)) if inside else 0.0
    return View(image, min(1.0, seen / max(whole, 1.0)), seen / side**2, hidden, box, quality)


def silhouette(camera: Camera, outlines: list[Outline]) -> tuple[float, float]:
    """Pixels of the building's whole silhouette, nothing before it, and of the part inside the frame."""
    coarse = 2
    third = camera.size // coarse  # the frame in the middle of a field three times as wide
    mask = np.zeros((3 * third, 3 * third), np.uint8)
    seen = []
    for outline in outlines:
        seen += [polygon for polygon, facing in zip(outline.polygons, outline.facing, strict=True) if facing > 0]
    if seen:
        points = (np.concatenate(seen) / coarse + third).clip(-9000, 9000)
        fixed = np.rint(points - 0.25).astype(np.int32)
        end = 0
        for polygon in seen:
            start, end = end, end + len(polygon)
            if len(polygon) >= 3:
                cv2.fillPoly(mask, [fixed[start:end]], 1)
    inside = cv2.countNonZero(mask[third : 2 * third, third : 2 * third])
    return float(cv2.countNonZero(mask)) * coarse**2, float(inside) * coarse**2
