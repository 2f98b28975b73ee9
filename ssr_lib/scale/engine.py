"""Engines carry out pieces of work: one after the other, or on Ray Data (`pip install .[ray]`), imported when used."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence

from ssr_lib.files import one_line

Work = Callable[[int], object]  # the number of a piece of work → its result
Engine = Callable[[Work, Sequence[int]], Iterator[tuple[int, object]]]  # carries pieces out, in any order


def one_machine(work: Work, pieces: Sequence[int]) -> Iterator[tuple[int, object]]:
    """One piece after the other, here."""
    return ((piece, work(piece)) for piece in pieces)


class _Worker:
    def __init__(self, work: Work):
        self.work = work  # a copy of the actor's own: so is the network in it

    def __call__(self, batch: dict) -> dict:
        return {"piece": batch["item"], "result": [pickle.dumps(self.work(int(batch["item"][0])))]}


def on_ray(workers: int = 2, address: str = "local", **resources) -> Engine:
    """`map_batches` over the numbers of pieces by so many actors, each with `resources` of Ray's, such as `num_gpus=1`;
    on the cluster at `address`, "10.0.0.1:6379", by default on one that is started here, on 127.0.0.1."""

    def engine(work: Work, pieces: Sequence[int]) -> Iterator[tuple[int, object]]:
        if not pieces:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with one_line("Ray is wanted, `pip install .[ray]`"):
            import ray.data

        local = dict(num_cpus=workers, object_store_memory=2**28, _node_ip_address="127.0.0.1", include_dashboard=False)
        how = {"log_to_driver": False, "ignore_reinit_error": True, **(local if address == "local" else {})}
        try:
            ray.init(address, **how)
        except Exception:  # a busy machine may need longer than Ray waits, which is 30 seconds
            ray.shutdown()
            ray.init(address, **how)
        options = {"compute": ray.data.ActorPoolStrategy(size=workers), "num_cpus": 1, **resources}
        numbers = ray.data.from_items(list(pieces), override_num_blocks=len(pieces))
        for row in numbers.map_batches(_Worker, batch_size=1, fn_constructor_args=[work], **options).iter_rows():
            yield row["piece"], pickle.loads(row["result"])

    return engine
