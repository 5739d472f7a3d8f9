"""From an ONNX file to a TensorRT engine, with whichever version is installed.

Nothing is left out in silence: what the installed version lacks is refused before the build, what it was told is read
back, and a build that gives nothing is an error with NVIDIA's own words.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from contracts.engines import EngineRecord, Machine, numbers
from contracts.manifest import digest_of
from runtime.serving.engines import timing_cache
from runtime.serving.engines.tensorrt_errors import BuildFailed, ModelRefused, OptionRefused
from runtime.serving.engines.tensorrt_module import Installed
from runtime.serving.engines.tensorrt_options import BuildOptions
from runtime.serving.engines.tensorrt_paths import (
    check_options,
    network_flags,
    precision_flags,
    refit_flag,
    require,
)

log = logging.getLogger(__name__)

_TOLD_ERRORS = 5


class Built(msgspec.Struct, frozen=True):
    """An engine and what it is valid for. `timings` is b"" where the runtime keeps none; `notes` are for the reader."""

    engine: bytes
    record: EngineRecord
    timings: bytes
    took_s: float
    notes: tuple[str, ...] = ()


def build(
    onnx: Path,
    options: BuildOptions,
    machine: Machine,
    *,
    installed: Installed,
    timings: bytes = b"",
    clock: Callable[[], float] = time.monotonic,
) -> Built:
    """Blocks for seconds to an hour, and takes memory as it needs: nodes run it through `tensorrt_build`.

    Raises OptionRefused, ModelRefused with the node and the reason, BuildFailed.
    """
    started_s = clock()
    _check_machine(machine, installed, options)
    check_options(installed, options)
    told = Listener.of(installed.module)
    builder = installed.module.Builder(told)
    _check_board(builder, options)
    network = _parse(installed, builder, onnx, told)
    config = _configure(installed, builder, network, options)
    stale = timing_cache.attach(config, installed.kind, timings)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildFailed(f"{_name(installed)} built nothing from {onnx.name}: {told.words()}")
    engine = bytes(serialized)
    return Built(
        engine=engine,
        record=record_of(engine, onnx, options, machine),
        timings=timing_cache.detach(config, installed.kind),
        took_s=clock() - started_s,
        notes=tuple(filter(None, (stale, *told.warnings))),
    )


def record_of(engine: bytes, onnx: Path, options: BuildOptions, machine: Machine) -> EngineRecord:
    return EngineRecord(
        onnx=digest_of(onnx.read_bytes()),
        engine=digest_of(engine),
        bytes=len(engine),
        options=options.digest,
        precision=options.precision,
        machine=machine,
        profile=options.profile,
        version_compatible=options.version_compatible,
        hardware=options.hardware,
        weight_stripped=options.weight_stripped,
        dla_core=options.dla_core,
        compute_capabilities=options.compute_capabilities,
    )


class Listener:
    """What NVIDIA's libraries say. `of` makes one of the kind that a module takes."""

    errors: list[str]
    warnings: list[str]

    @staticmethod
    def of(module: Any) -> Any:
        class Told(module.ILogger, Listener):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)
                self.errors, self.warnings = [], []

            def log(self, severity: Any, message: str) -> None:
                level = str(severity).rpartition(".")[2]
                if level in ("ERROR", "INTERNAL_ERROR"):
                    self.errors.append(message)
                elif level == "WARNING" and message not in self.warnings:
                    self.warnings.append(message)
                log.log(_LEVELS.get(level, logging.DEBUG), "%s", message)

        return Told()

    def words(self) -> str:
        """The last errors in one line."""
        return "; ".join(" ".join(error.split()) for error in self.errors[-_TOLD_ERRORS:]) or "it does not say why"


_LEVELS = {"ERROR": logging.INFO, "INTERNAL_ERROR": logging.INFO, "WARNING": logging.INFO}


def _check_machine(machine: Machine, installed: Installed, options: BuildOptions) -> None:
    """The record must speak of the runtime that builds. A fingerprint may know the build number where a module does
    not."""
    here, there = numbers(installed.version), numbers(machine.version)
    shared = min(len(here), len(there))
    if machine.kind != installed.kind or shared < 3 or here[:shared] != there[:shared]:
        raise OptionRefused(
            f"This machine is taken for one with {machine.kind} {machine.version or 'nowhere'}, but {_name(installed)} "
            f"is installed. Start the program again, so that it looks anew."
        )
    if options.hardware != "none" and machine.jetpack:
        raise OptionRefused("TensorRT has no hardware compatibility on JetPack. Build on a board of the same kind.")


def _check_board(builder: Any, options: BuildOptions) -> None:
    """With a DLA core that is not there, the builder would build for the GPU and say nothing."""
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if options.dla_core is not None and options.dla_core >= cores:
        raise OptionRefused(
            f"DLA core {options.dla_core} was asked for, and this board has {cores}. Leave dla_core out."
        )


def _parse(installed: Installed, builder: Any, onnx: Path, told: Any) -> Any:
    network = builder.create_network(network_flags(installed))
    parser = installed.module.OnnxParser(network, told)
    if not parser.parse_from_file(str(onnx)):
        errors = [_said(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelRefused(
            f"{_name(installed)} does not take {onnx.name}: {'; '.join(errors[:_TOLD_ERRORS]) or told.words()}. "
            f"Export the model without this, or quantize it with the compiler's TensorRT form."
        )
    return network


def _said(error: Any) -> str:
    """One error of the parser: the node, its operator, and the reason without the parser's own source lines."""
    reason = " ".join(str(error.desc()).split())
    name, operator, number = error.node_name(), error.node_operator(), error.node()
    where = f"node {name!r} ({operator}, number {number})" if number >= 0 else "the file"
    return f"{where}: {str(error.code()).rpartition('.')[2]}: {reason}"


def _configure(installed: Installed, builder: Any, network: Any, options: BuildOptions) -> Any:
    module = installed.module
    config = builder.create_builder_config()
    pool = require(installed, "MemoryPoolType", "WORKSPACE", "workspace_bytes is set")
    config.set_memory_pool_limit(pool, options.workspace_bytes)
    for name in _flags(installed, options):
        _set_flag(installed, config, name)
    if options.hardware != "none":
        level = getattr(module.HardwareCompatibilityLevel, options.hardware.upper())
        config.hardware_compatibility_level = level
        _expect(installed, "hardware", config.hardware_compatibility_level == level)
    if options.dla_core is not None:
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = options.dla_core
        _expect(installed, "dla_core", config.DLA_core == options.dla_core)
    _set_capabilities(installed, config, options.compute_capabilities)
    _set_profile(installed, builder, network, config, options)
    return config


def _flags(installed: Installed, options: BuildOptions) -> list[str]:
    flags = list(precision_flags(installed, options.precision))
    if options.version_compatible:
        flags.append("VERSION_COMPATIBLE")
    if options.weight_stripped:
        flags += ["STRIP_PLAN", refit_flag(installed.kind)]
    if options.dla_core is not None:
        flags.append("GPU_FALLBACK")
    return flags


def _set_flag(installed: Installed, config: Any, name: str) -> None:
    flag = require(installed, "BuilderFlag", name, "the build needs it")
    config.set_flag(flag)
    _expect(installed, f"BuilderFlag.{name}", config.get_flag(flag))


def _set_capabilities(installed: Installed, config: Any, capabilities: tuple[int, ...]) -> None:
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, sm in enumerate(capabilities):
        value = require(installed, "ComputeCapability", f"SM{sm}", "compute_capabilities names it")
        _expect(installed, f"compute capability {sm}", config.set_compute_capability(value, index))


def _set_profile(installed: Installed, builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    inputs = {network.get_input(at).name: network.get_input(at).shape for at in range(network.num_inputs)}
    named = {shapes.name: shapes for shapes in options.profile}
    if set(inputs) != set(named):
        raise OptionRefused(f"The profile names {sorted(named)}, and the model's inputs are {sorted(inputs)}.")
    if all(-1 not in tuple(shape) for shape in inputs.values()):
        return
    profile = builder.create_optimization_profile()
    for name, shapes in named.items():
        profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    _expect(installed, "profile", config.add_optimization_profile(profile) >= 0)


def _expect(installed: Installed, what: str, followed: bool) -> None:
    if not followed:
        raise OptionRefused(f"{_name(installed)} did not take {what}. Leave it out, or install another version.")


def _name(installed: Installed) -> str:
    return f"{installed.kind} {installed.version}"
