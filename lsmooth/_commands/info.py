"""``lsmooth info``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform

from rich.table import Table

from lsmooth import __version__
from lsmooth._commands._console import console
from lsmooth.backends import installed_backends
from lsmooth.study.config import BACKENDS

# The packages of each framework.
_PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "tensorflow": ("tensorflow", "keras")}

# For each feature, the extra that installs it, and the packages that it imports.
_FEATURES = {
    "pictures (lsmooth.plots)": ("plots", ("matplotlib",)),
    "lsmooth study": ("study", ("jinja2", "matplotlib", "sklearn")),
    "lsmooth calibrate": ("calibrate", ("jinja2", "matplotlib", "scipy", "pyarrow", "safetensors", "ml_dtypes")),
    "lsmooth.integrations.sklearn": ("sklearn", ("sklearn",)),
}


def info() -> None:
    """Print versions, devices, and which backends are installed."""
    table = Table(title=f"lsmooth {__version__}, Python {platform.python_version()}", title_justify="left")
    for heading in ("backend", "installed", "devices", "lsmooth study"):
        table.add_column(heading, overflow="fold")
    installed = installed_backends()
    for name in dict.fromkeys(("numpy", *BACKENDS, *installed)):
        if name not in installed:
            table.add_row(name, _to_install([], name), "", "")
            continue
        packages = _PACKAGES.get(name, (name,))
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        trains = _to_install(missing, name) if missing else "yes" if name in BACKENDS else ""
        table.add_row(
            name,
            ", ".join(f"{package} {version}" for package, version in versions.items() if version),
            _devices(name),
            trains,
        )
    console.print(table)
    features = Table(title="Extras", title_justify="left")
    for heading in ("for", "installed"):
        features.add_column(heading, overflow="fold")
    for feature, (extra, packages) in _FEATURES.items():
        missing = [package for package in packages if _version(package) is None]
        features.add_row(feature, _to_install(missing, extra) if missing else "yes")
    console.print(features)


def _to_install(missing: list[str], extra: str) -> str:
    needs = f"needs {', '.join(missing)}" if missing else "no"
    return f"{needs}: pip install 'lsmooth\\[{extra}]'"


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    for distribution in importlib.metadata.packages_distributions().get(package, [package]):
        return importlib.metadata.version(distribution)
    return None


def _devices(name: str) -> str:
    """The devices of a framework, which is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if name == "torch":
        import torch

        cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return ", ".join(["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])])
    if name == "jax":
        import jax

        return ", ".join(str(device) for device in jax.devices())
    if name == "tensorflow":
        import tensorflow as tf

        return ", ".join(device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices())
    return "cpu" if name == "numpy" else ""
