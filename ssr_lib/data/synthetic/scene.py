"""A view: camera, light, and a street around the landmark, composed into one photograph and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from . import foliage, spec, street
from .building import FRONT, RIGHT, Block, Face, build, plane_face
from .camera import Camera
from .facade import Surface
from .light import Light, draw_light, paint_sky
from .materials import cover
from .noise import ASSETS
from .photo import Photo, develop, draw_photo
from .render import Canvas, draw_blocks, draw_face, solid_of
from .structures import Structure, draw_structure
from .styles import draw_style

SUPERSAMPLE = 1.45  # rendered pixels for each final one, in each direction
GROUND_PPM = 14


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


def neighbourhood(rng: np.random.Generator, count: int = 20) -> list[list[Block]]:
    """Buildings that are no landmark's, to stand beside and behind landmarks."""
    pool = []
    for _ in range(count):
        structure = draw_structure(rng)
        mass = replace(structure.masses[0], left=0.0, front=0.0, porch=None)
        pool.append(build(Structure((mass,)), draw_style(rng), rng, landmark=False))
    return pool


def draw_camera(rng: np.random.Generator, structure: Structure, size: int, *, query: bool = False) -> Camera:
    """A place in the street from which some of the building is seen. Depends on the structure alone, not the style."""
    width, height = structure.width, structure.height * 1.15
    low, high = (0.95, 1.7) if query else spec.SPAN
    span = np.exp(rng.uniform(np.log(low), np.log(high)))
    limit = 40.0 if query else spec.AZIMUTH_LIMIT
    azimuth = np.radians(np.clip(rng.normal(0, spec.AZIMUTH), -limit, limit))
    field = np.radians(rng.uniform(38, 68))
    extent = max(width * np.cos(azimuth) + 6 * abs(np.sin(azimuth)), height * 1.05)
    distance = max(9.0, span * extent / (2 * np.tan(field / 2)) + 0.25 * width * abs(np.sin(azimuth)))
    field = 2 * np.arctan(span * extent / (2 * distance)) if distance == 9.0 else field
    free = max(0.0, 1.0 - 0.75 * span)  # how far the aim may stray from the middle when only a part is seen
    stray = 0.06 * max(span, 1.0) + free
    target = np.array(
        [
            width * (0.5 + rng.uniform(-0.5, 0.5) * stray),
            height * (0.47 + rng.uniform(-0.42, 0.42) * stray),
            0.0,
        ]
    )
    tall = rng.uniform(1.5, 1.8) if rng.random() < 0.78 else rng.uniform(2.5, 9.0)
    centre = np.array([target[0] + distance * np.sin(azimuth), tall, max(7.0, distance * np.cos(azimuth))])
    roll = np.radians(rng.normal(0, spec.ROLL))
    return Camera.look_at(centre, target, size / 2 / np.tan(field / 2), size, float(roll))


def _beside(rng, structure: Structure, pool: list[list[Block]]) -> tuple[list[Block], list[Block]]:
    """Neighbours to the left (left to right) and to the right of the landmark."""
    sides: list[list[Block]] = [[], []]
    for side in (0, 1):
        if rng.random() > spec.NEIGHBOUR:
            continue
        gap = rng.choice([0.0, 0.0, rng.uniform(1, 9)])
        edge = (0.0 - gap) if side == 0 else structure.width + gap
        back = rng.uniform(-4, 0.5)
        for _ in range(3):
            block = pool[rng.integers(len(pool))][0]
            width = block.right - block.left
            left = edge - width if side == 0 else edge
            sides[side].append(moved(block, left - block.left, back))
            edge = left if side == 0 else left + width
    return sides[0][::-1], sides[1]


def moved(block: Block, dx: float, dz: float) -> Block:
    """The block shifted along the street and in depth."""
    by = np.array([dx, 0.0, dz])
    faces = tuple(replace(f, points=f.points + by, origin=f.origin + by) for f in block.faces)
    return replace(
        block, left=block.left + dx, right=block.right + dx, front=block.front + dz, back=block.back + dz, faces=faces
    )


def draw_view(
    seed: tuple[int, ...],
    structure: Structure,
    blocks: list[Block],
    pool: list[list[Block]],
    size: int,
    *,
    light_kind: str | None = None,
    query: bool = False,
) -> View:
    """Photograph a building. The seed decides camera, light, street and camera settings, each by its own generator, so
    that another style, another light (`light_kind`) or no building at all (`blocks` empty) leaves the rest as it is."""
    rngs = [np.random.default_rng(np.random.SeedSequence([*seed, k])) for k in range(6)]
    camera_rng, light_rng, street_rng, shade_rng, photo_rng, people_rng = rngs
    big = round(size * SUPERSAMPLE)
    camera = draw_camera(camera_rng, structure, big, query=query)
    kinds = list(spec.LIGHT_ODDS)
    kind = kinds[photo_rng.choice(len(kinds), p=list(spec.LIGHT_ODDS.values()))]
    if query and kind in ("night", "dusk"):
        kind = "cloud"
    kind = light_kind or kind
    light = draw_light(light_rng, kind)
    photo = draw_photo(photo_rng, kind)
    if query:
        photo = replace(photo, coarse=1.0, motion=(0.0, 0.0), grey=False)
    canvas = Canvas(paint_sky(light_rng, camera, light), np.zeros((big, big), np.uint8))
    left, right = _beside(street_rng, structure, pool)
    row = [*left, *blocks, *right]
    _background(canvas, camera, light, street_rng, shade_rng, pool)
    _ground(canvas, camera, light, street_rng, shade_rng, row)
    across = _opposite(street_rng, structure, light)
    draw_blocks(canvas, camera, row, light, shade_rng, across)
    whole, inside = silhouette(camera, blocks)
    _occluders(canvas, camera, light, people_rng, structure)
    seen = float(np.count_nonzero(canvas.landmark))
    image = develop(canvas.image, photo, size, shade_rng)
    box = None
    if seen:
        x, y, w, h = cv2.boundingRect(canvas.landmark)
        box = tuple(float(v) * size / big for v in (x, y, x + w, y + h))
    return View(
        image,
        seen=min(1.0, seen / max(whole, 1.0)),
        scale=seen / big**2,
        occluded=max(0.0, 1.0 - seen / max(inside, 1.0)),
        box=box,
        quality=photo.quality,
    )


def silhouette(camera: Camera, blocks: list[Block]) -> tuple[float, float]:
    """Pixels of the building's whole silhouette, nothing before it, and of the part inside the frame."""
    coarse = 4
    side = 3 * camera.size // coarse
    mask = np.zeros((side, side), np.uint8)
    for block in blocks:
        for face in block.faces:
            polygon = camera.project(face.points)
            if len(polygon) >= 3:
                points = np.clip((polygon + camera.size) / coarse, -9000, 9000)
                cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    third = side // 3
    inside = np.count_nonzero(mask[third : 2 * third, third : 2 * third])
    return float(np.count_nonzero(mask)) * coarse**2, float(inside) * coarse**2


def _background(canvas, camera, light, rng, shade_rng, pool) -> None:
    """Far behind: a row of houses or trees in the haze."""
    centre = camera.centre[0] - camera.rotation[2][0] / min(-0.2, camera.rotation[2][2]) * 60
    if rng.random() < 0.6:
        x = centre - 70
        blocks = []
        while x < centre + 70:
            block = pool[rng.integers(len(pool))][0]
            blocks.append(moved(block, x - block.left, -45.0))
            x += block.right - block.left + rng.choice([0.0, 0.0, 6.0])
        draw_blocks(canvas, camera, blocks, light, shade_rng)
    for _ in range(int(rng.integers(0, 9))):
        x = centre + rng.uniform(-60, 60)
        _tree(canvas, camera, light, rng, np.array([x, 0, rng.uniform(-44, -18)]), rng.uniform(7, 15))


GROUNDS = {
    "asphalt": (98, 98, 98),
    "paving": (168, 162, 150),
    "cobbles": (132, 126, 118),
    "grass": (84, 106, 52),
    "gravel": (176, 164, 142),
}
_ground_cache: dict = {}


def _ground_surface(material: str, variant: int) -> Surface:
    key = (material, variant)
    if key not in _ground_cache:
        rng = np.random.default_rng([ASSETS, 77, variant, sum(material.encode())])
        colour = tuple(int(c) for c in np.clip(np.array(GROUNDS[material]) * rng.uniform(0.85, 1.12), 0, 255))
        _ground_cache[key] = Surface(cover(rng, material, colour, (512, 512))[0])
    return _ground_cache[key]


def _ground(canvas, camera, light, rng, shade_rng, row) -> None:
    """Street, pavement, square or lawn, and the shadows on it."""
    kind = ("street", "street", "square", "lawn")[rng.integers(4)]
    first = {"street": "paving", "square": "paving", "lawn": "grass"}[kind]
    main = {"street": "asphalt", "square": ("paving", "cobbles", "gravel")[rng.integers(3)], "lawn": "grass"}[kind]
    strip = rng.uniform(2.5, 5.0)
    variant = int(rng.integers(4))
    x0, x1, far = camera.centre[0] - 160, camera.centre[0] + 160, -160.0
    near = camera.centre[2] + 2
    bands = [(far, -6.0, "grass" if kind == "lawn" else first), (-6.0, strip, first if kind != "lawn" else "gravel")]
    z = strip
    while z < near:  # bands in depth, so that each has its own resolution
        bands.append((z, min(near, z + max(6.0, (near - z) * 0.5)), main))
        z = bands[-1][1]
    for z0, z1, material in bands:
        points = np.array([(x0, 0, z1), (x1, 0, z1), (x1, 0, z0), (x0, 0, z0)], float)
        face = plane_face(points, RIGHT, _ground_surface(material, variant), GROUND_PPM)
        draw_face(canvas, camera, face, light, shade_rng, wrap=True)
    if kind == "street":
        stone = Surface(np.full((2, 2, 3), 150, np.uint8))
        for z0, z1 in ((strip, strip + 0.25),):
            draw_face(canvas, camera, _strip(x0, x1, z0, z1, stone), light, shade_rng)
        if rng.random() < 0.6:
            white = Surface(np.full((2, 2, 3), 205, np.uint8))
            for x in np.arange(x0 + 100, x1 - 100, 6.0):
                draw_face(canvas, camera, _strip(x, x + 3, strip + 3.6, strip + 3.75, white), light, shade_rng)
    _ground_shadow(canvas, camera, light, [solid_of(b) for b in row])


def _strip(x0, x1, z0, z1, surface) -> Face:
    return plane_face(np.array([(x0, 0, z1), (x1, 0, z1), (x1, 0, z0), (x0, 0, z0)], float), RIGHT, surface)


def _shadow_gain(light: Light) -> np.ndarray:
    """What remains of the light on the ground in shadow, in texture units."""
    full = light.sky + light.direct * max(light.towards[1], 0.0)
    return np.sqrt(light.sky / np.maximum(full, 1e-6))


def _ground_shadow(canvas, camera, light, solids) -> None:
    if light.direct.max() <= 0 or light.towards[1] <= 0.05:
        return
    mask = np.zeros(canvas.image.shape[:2], np.uint8)
    for solid in solids:
        on = solid - solid[:, 1:2] / light.towards[1] * light.towards
        hull = cv2.convexHull(on[:, [0, 2]].astype(np.float32))[:, 0]
        polygon = camera.project(np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], 1))
        if len(polygon) >= 3:
            cv2.fillPoly(mask, [np.round(np.clip(polygon, -9000, 9000)).astype(np.int32)], 255)
    if mask.any():
        mask = cv2.GaussianBlur(mask, (5, 5), 0)
        table = 255 - np.arange(256)[:, None] * (1 - _shadow_gain(light))
        gain = cv2.LUT(cv2.merge([mask] * 3), np.clip(table, 0, 255).astype(np.uint8)[None])
        cv2.multiply(canvas.image, gain, canvas.image, scale=1 / 255)


def _opposite(rng, structure: Structure, light: Light) -> tuple[np.ndarray, ...]:
    """Houses across the street, behind the camera, whose shadow may climb the front."""
    if rng.random() < 0.5:
        return ()
    z, solids, x = rng.uniform(16, 40), [], -30.0
    while x < structure.width + 30:
        width, height = rng.uniform(6, 16), rng.uniform(5, 16)
        solids.append(np.array([(a, b, c) for a in (x, x + width) for b in (0.0, height) for c in (z, z + 10)]))
        x += width + rng.choice([0.0, 5.0])
    return tuple(solids)


def _occluders(canvas, camera, light, rng, structure: Structure) -> None:
    """Trees, cars, lamps and people between camera and building, the farthest first."""
    depth = max(camera.centre[2], 6.0)
    things = []

    def place(low: float, high: float) -> np.ndarray:
        z = rng.uniform(low, high) * depth
        share = z / depth
        middle = structure.width / 2 * (1 - share) + camera.centre[0] * share
        return np.array([middle + rng.uniform(-0.75, 0.75) * (structure.width + 8) * (1 - 0.6 * share), 0.0, z])

    things += [("tree", place(0.12, 0.62)) for _ in range(rng.poisson(spec.TREES))]
    things += [("person", place(0.08, 0.8)) for _ in range(rng.poisson(spec.PEOPLE))]
    line = rng.uniform(0.15, 0.5)
    things += [("car", place(line, line + 0.02)) for _ in range(rng.poisson(spec.CARS))]
    things += [("lamp", place(0.2, 0.6)) for _ in range(rng.poisson(0.6))]
    for what, at in sorted(things, key=lambda thing: thing[1][2]):
        if what == "tree":
            _tree(canvas, camera, light, rng, at, rng.uniform(4.5, 12.0))
            continue
        picture, alpha = {
            "person": lambda: street.person(rng),
            "car": lambda: street.car(rng),
            "lamp": lambda: street.lamp(rng, light.lit > 0.1),
        }[what]()
        gain = np.sqrt(light.ambient(FRONT) + light.direct * max(0.25, light.towards[2]) * 0.8)
        picture = cv2.multiply(picture, (*np.minimum(gain, 1.15).tolist(), 0.0))
        _stand(canvas, camera, light, picture, alpha, at, picture.shape[0] / street.SCALE, what != "lamp")


def _tree(canvas, camera, light, rng, at, height: float) -> None:
    kind = foliage.KINDS[rng.integers(len(foliage.KINDS))]
    sprite = foliage.tree(kind, int(rng.integers(foliage.SPECIMENS)))
    if kind == "bush":
        height *= 0.3
    if (light.towards[0] > 0) != (rng.random() < 0.1):
        sprite = sprite[:, ::-1]
    strength = light.ambient(np.array([0, 0.6, 0.8])) + light.direct * 0.7
    if light.kind == "night":
        strength = light.ambient(FRONT) + light.direct * 0.25
    picture, alpha = foliage.paint_tree(np.ascontiguousarray(sprite), foliage.draw_tint(rng), np.sqrt(strength))
    _stand(canvas, camera, light, picture, alpha, at, height, True)


def _stand(canvas, camera, light, picture, alpha, at, height: float, shadow: bool) -> None:
    """Put an upright picture of `height` metres on the ground at `at`, facing the camera."""
    seen = camera.to_camera(at[None])[0]
    if seen[2] < 1.5:
        return
    foot = camera.to_image(seen[None])[0]
    pixels = camera.focal / seen[2] * height
    factor = pixels / picture.shape[0]
    if pixels < 1.5:
        return
    if factor < 0.5:
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        picture, alpha = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (picture, alpha))
        factor = 1.0
    h, w = picture.shape[:2]
    left, top = foot[0] - w * factor / 2, foot[1] - h * factor
    if shadow:
        _contact(canvas, light, foot, w * factor * 0.36)
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    x1, y1 = min(camera.size, int(np.ceil(left + w * factor))), min(camera.size, int(np.ceil(foot[1])))
    if x1 <= x0 or y1 <= y0:
        return
    matrix = np.array([[factor, 0, left - x0], [0, factor, top - y0]])
    shape = (x1 - x0, y1 - y0)
    colour = cv2.warpAffine(picture, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(alpha, matrix, shape, flags=cv2.INTER_LINEAR)
    fade = 1 - np.exp(-seen[2] / light.visibility)
    if fade > 0.02:
        colour = cv2.addWeighted(colour, 1 - fade, np.full_like(colour, light.haze.astype(np.uint8)), fade, 0)
    there = canvas.image[y0:y1, x0:x1]
    three = cv2.merge([opacity] * 3)
    there[:] = cv2.add(cv2.multiply(colour, three, scale=1 / 255), cv2.multiply(there, 255 - three, scale=1 / 255))
    canvas.landmark[y0:y1, x0:x1][opacity > 110] = 0


def _contact(canvas, light, foot, radius: float) -> None:
    """The soft shadow under what stands on the ground."""
    wide, flat = max(2, round(radius)), max(1, round(radius * 0.22))
    x, y = round(foot[0]), round(foot[1])
    size = canvas.image.shape[0]
    x0, x1, y0, y1 = max(0, x - 2 * wide), min(size, x + 2 * wide), max(0, y - 3 * flat), min(size, y + 3 * flat)
    if x1 <= x0 or y1 <= y0:
        return
    ys, xs = np.mgrid[y0:y1, x0:x1]
    falloff = np.exp(-(((xs - x) / wide) ** 2 + ((ys - y) / flat) ** 2))
    gain = (255 * (1 - 0.55 * falloff)).astype(np.uint8)
    there = canvas.image[y0:y1, x0:x1]
    there[:] = cv2.multiply(there, cv2.merge([gain] * 3), scale=1 / 255)
