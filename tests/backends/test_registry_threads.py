"""Backends are looked up and registered by many threads at once."""

import threading

import numpy as np

from lsmooth.backends import backend_of, register_backend
from lsmooth.backends.numpy import NumpyBackend


def test_concurrent_look_ups_and_registrations():
    """Each look-up meets a class that was not seen before, and the table changes under it."""
    failures, stop = [], threading.Event()

    def registers():
        while not stop.is_set():
            backend = NumpyBackend()
            backend.name = "of a thread"
            backend.types = (type("Array", (), {}),)
            register_backend(backend)

    def looks_up():
        try:
            for _ in range(3000):
                array = type("Array", (np.ndarray,), {})
                array.__module__ = "somewhere"
                assert backend_of(x=np.zeros(2).view(array)).name in ("numpy", "of a thread")
        except BaseException as error:
            failures.append(error)

    others = [threading.Thread(target=registers, daemon=True) for _ in range(2)]
    threads = [threading.Thread(target=looks_up) for _ in range(4)]
    for thread in (*others, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    from lsmooth.backends import registry

    del registry._loaded["of a thread"]
    for cls in [cls for cls, found in registry._backend_of_type.items() if found and found.name == "of a thread"]:
        del registry._backend_of_type[cls]
    assert not failures
