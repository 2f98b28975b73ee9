"""What is asked of the generator: the size of a benchmark, and how hard its photographs are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

VERSION = 3  # of the drawing code: raise it when pictures change, so that old folders are not taken for new ones

# --- how hard the photographs are: every number that makes retrieval easier or harder stands here -------------------

LIGHT_ODDS = {"sun": 0.40, "haze": 0.12, "cloud": 0.21, "golden": 0.11, "dusk": 0.08, "night": 0.08}
SPAN = (0.42, 2.2)  # width of the frame at the building, in building sizes; log-uniform; below 1 only part is seen
AZIMUTH = 30.0  # degrees from the front's normal, one sigma
AZIMUTH_LIMIT = 62.0
FIELD_OF_VIEW = (38.0, 66.0)  # degrees
NEAREST = 9.0  # metres from the front
ROLL = 1.4  # degrees, one sigma
TREES = 1.6  # mean number before the building
PEOPLE = 2.4
CARS = 1.2
LAMPS = 0.6
NEIGHBOUR = 0.62  # chance of neighbours on each side
SUPERSAMPLE = 1.35  # rendered pixels for each pixel of the picture, in each direction

QUERY_LIGHT_ODDS = {"sun": 0.48, "haze": 0.16, "cloud": 0.26, "golden": 0.10}
QUERY_SPAN = (0.95, 1.5)
QUERY_AZIMUTH_LIMIT = 40.0

# --- what is easy, hard and junk: thresholds on measured quantities ---------------------------------------------------

JUNK_SEEN = 0.28  # less than this share of the landmark's silhouette is visible: junk
JUNK_SCALE = 0.07  # the visible landmark covers less than this share of the picture: junk
EASY_SEEN = 0.60  # at least this share of the silhouette is visible …
EASY_SCALE = 0.14  # … it covers at least this share of the picture …
EASY_OCCLUDED = 0.20  # … and at most this share of what lies in the frame is hidden: easy; all else is hard
QUERY_SEEN = 0.75  # a query shows at least this share,
QUERY_SCALE = 0.15  # at least this large,
QUERY_OCCLUDED = 0.22  # at most this much hidden
QUERY_TRIES = 20


LEAST = {"seed": 0, "landmarks": 1, "size": 32, "queries_per_landmark": 1, "fixed_views": 1}
LEAST |= {"same_style": 0, "same_building": 0, "distractors": 0}


@dataclass(frozen=True)
class SyntheticSpec:
    """A benchmark to draw. `name` and `seed` decide every landmark; equal specs give equal bytes.

    `views`: the smallest and largest number of database views of a landmark, drawn log-uniformly; `fixed_views`: this
    number for every landmark instead. `same_style`: views, for each landmark, of another building in the same style;
    `same_building`: of the same building in another style. `distractors`: views of unrelated buildings and streets.
    `held_out_styles`: styles may come from families that training never draws.
    """

    name: str
    seed: int
    landmarks: int = 300
    size: int = 224
    views: tuple[int, int] = (3, 40)
    queries_per_landmark: int = 1
    same_style: int = 2
    same_building: int = 2
    distractors: int = 600
    held_out_styles: bool = True
    fixed_views: int | None = None

    def __post_init__(self):
        for key, least in LEAST.items():
            value = getattr(self, key)
            if key == "fixed_views" and value is None:
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"SyntheticSpec {self.name!r}: {key} is {value!r}; a whole number >= {least} is wanted"
                )
        try:
            low, high = (int(count) for count in self.views)
        except (TypeError, ValueError):
            low, high = 0, 0
        if not 1 <= low <= high:
            raise ValueError(
                f"SyntheticSpec {self.name!r}: views is {self.views!r}; 1 <= smallest <= largest is wanted"
            )
        object.__setattr__(self, "views", (low, high))

    def digest(self, task: str) -> str:
        """The identity of what this spec draws for a task ("benchmark", "training ordinary 20", …): 16 hex digits."""
        record = json.dumps({"version": VERSION, "task": task, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(record.encode()).hexdigest()[:16]
