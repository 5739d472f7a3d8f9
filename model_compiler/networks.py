"""A plan's torch networks: built, filled with weights, told apart, kept."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError, about
from model_compiler.imports import called
from model_compiler.learning.train import seeded
from model_compiler.plan import Net

if TYPE_CHECKING:
    import torch

_FILE = "net.pt"


def build(source: Net, seed: int, sample: Floats, *, role: str = "") -> torch.nn.Module:
    """The network with its weights, in eval mode; without weights with its first ones, which the seed decides.

    `sample`: (n, ...) float32; lazy layers take their shapes from it. Raises CompileError for what is no network, and
    for weights that are not its own.
    """
    import torch

    with seeded(seed):
        net = called(source.name, source.build)
        if not isinstance(net, torch.nn.Module):
            raise CompileError(f"{source.name} gave {type(net).__name__}, not a torch.nn.Module.")
        if source.weights is not None:
            with about(f"{role}.weights"):
                _fill(net, source.weights, source.name)
        if any(torch.nn.parameter.is_lazy(each) for each in (*net.parameters(), *net.buffers())):
            with torch.no_grad():  # not in inference mode: what is made there cannot be trained
                called(f"{source.name} on inputs {list(sample.shape)}", net.eval(), torch.from_numpy(sample))
    return net.eval()


def _fill(net: torch.nn.Module, weights: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(weights)
        net.load_state_dict(given)
    except (OSError, SafetensorError) as error:
        raise CompileError(f"{weights} is no safetensors file: {error}. Save it with safetensors.torch.") from error
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise CompileError(f"{weights} does not fit {name}: {told}. Give the weights of this network.") from error
    broken = [key for key, values in given.items() if not values.isfinite().all()]
    if broken:
        raise CompileError(f"{weights}: {broken[0]} holds NaN or infinity. Save the weights again.")


def digest_of_net(net: torch.nn.Module, code: str = "") -> str:
    """Hex SHA-256 of the form, of every weight and buffer, and of `code`, where there is some."""
    import torch

    sha256 = hashlib.sha256((repr(net) + code).encode())
    for name, values in net.state_dict().items():
        sha256.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        sha256.update(values.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def save_net(net: torch.nn.Module, directory: Path) -> None:
    """The whole module, since pruning changes its form; read back only from the user's own stages.

    Raises CompileError for a network whose class cannot be found again by its name.
    """
    import torch

    data = io.BytesIO()
    try:
        torch.save(net, data)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise CompileError(
            f"{type(net).__name__} cannot be kept: {error}. Define its classes at the top of their module."
        ) from error
    (directory / _FILE).write_bytes(data.getbuffer())


def saved_net(directory: Path) -> torch.nn.Module:
    """What `save_net` wrote, in eval mode."""
    import torch

    net = torch.load(directory / _FILE, weights_only=False)
    assert isinstance(net, torch.nn.Module)  # `save_net` wrote it
    return net.eval()
