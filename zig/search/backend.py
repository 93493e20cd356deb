"""Where candidates are scored: processes of this machine (loky), a cluster of Dask, or one of Ray; all by joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from zig.errors import UsageError
from zig.packages import importing

Name = Literal["loky", "dask", "ray"]
PATIENCE = "10s"  # until a scheduler has to answer


@contextmanager
def scoring_on(name: Name, address: str | None = None) -> Iterator[None]:
    """Let joblib use a back end.

    Args:
        name: `loky`, `dask` or `ray`.
        address: Of the scheduler of Dask, as `tcp://host:8786`, or the cluster of Ray, as `ray://host:10001`; without
            one, both use this machine.

    Raises:
        UsageError: The package is missing, nothing answers at the address, or there is one for loky.
    """
    with _CLUSTERS[name](address):
        import joblib  # type: ignore[import-untyped]  # noqa: PLC0415 - the extra `train` has it

        with joblib.parallel_config(backend=name):
            yield


def _loky(address: str | None) -> AbstractContextManager[Any]:
    if address is not None:
        raise UsageError(f"method.address is {address}, but loky uses this machine; choose the back end dask or ray")
    return nullcontext()


def _dask(address: str | None) -> AbstractContextManager[Any]:
    with importing("the back end dask", "distributed"):
        from distributed import Client  # noqa: PLC0415 - only this back end needs it
    if address is None:
        return Client(threads_per_worker=1, dashboard_address=None)  # type: ignore[no-untyped-call]
    try:
        return Client(address, timeout=PATIENCE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(f"method.address: no scheduler of Dask answers at {address}; start it, or mend it") from error


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    with importing("the back end ray"):
        import ray  # type: ignore[import-not-found]  # noqa: PLC0415 - only this back end needs it
        from ray.util.joblib import register_ray  # type: ignore[import-not-found]  # noqa: PLC0415
    try:
        ray.init(address=address)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        raise UsageError(f"method.address: no cluster of Ray answers at {address}; start it, or mend it") from error
    try:
        register_ray()
        yield
    finally:
        ray.shutdown()


_CLUSTERS: dict[Name, Callable[[str | None], AbstractContextManager[Any]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
}
