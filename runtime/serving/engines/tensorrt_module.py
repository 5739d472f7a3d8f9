"""NVIDIA's Python modules: found, given their libraries, and imported when they are first needed."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from contracts.engines import Kind
from runtime.serving.engines.tensorrt_errors import NotInstalled

_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_INSTALL = {
    "tensorrt": "On JetPack: apt-get install python3-libnvinfer; elsewhere: pip install tensorrt, for this CUDA",
    "tensorrt-rtx": "pip install --no-deps onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0 "
    "tensorrt-rtx-cu12-bindings==1.7.1.116",
}
_RTX_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
_RTX_LIBRARIES = ("libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*")

Import = Callable[[str], Any]


class Installed(NamedTuple):
    """One runtime of this process. `version` is what the module calls itself, such as `10.3.0` or `1.7.1.116`."""

    kind: Kind
    module: Any
    version: str


def load(kind: Kind, *, import_module: Import = importlib.import_module) -> Installed:
    """Imports the runtime. Raises NotInstalled, saying how to get it."""
    if kind == "tensorrt-rtx":
        _preload_rtx()
    failures: list[str] = []
    for name in _MODULES[kind]:
        module = _try(import_module, name, failures)
        if module is not None:
            return Installed(kind, module, str(module.__version__))
    raise NotInstalled(f"{kind} cannot be imported ({'; '.join(failures)}). {_INSTALL[kind]}.")


def _try(import_module: Import, name: str, failures: list[str]) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        failures.append(f"{name}: {error}")
        return None


def _preload_rtx() -> None:
    """The execution provider's wheel carries the libraries under names that the bindings do not look for.

    Once loaded, the loader finds them by their SONAME, without links and without LD_LIBRARY_PATH.
    """
    found = importlib.util.find_spec(_RTX_PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for pattern in _RTX_LIBRARIES:
            for library in sorted(Path(folder).glob(pattern)):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
