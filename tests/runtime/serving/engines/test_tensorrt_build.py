from __future__ import annotations

import asyncio
import os
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest

from contracts.engines import Machine, Shapes
from contracts.errors import FoothillError
from contracts.manifest import digest_of
from runtime.serving.engines.tensorrt_build import BOUNDS, Bounds, BuiltFile, build_apart, resident_bytes
from runtime.serving.engines.tensorrt_errors import BuildFailed
from runtime.serving.engines.tensorrt_options import BuildOptions
from tests.edge_node.workbench import until

ROOT = Path(__file__).parents[4]
HERE = Machine("tensorrt", "10.3.0.30", "linux", "aarch64", "jetson-orin-nano", gpu="Orin", sm=87, sm_count=8)
INT8 = BuildOptions("int8", (Shapes("image", (1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)),))


class Stage:
    """A module `tensorrt` for the child to import, and a room to build in."""

    def __init__(self, directory: Path) -> None:
        self.modules = directory / "modules"
        self.room = directory / "room"
        self.onnx = directory / "trt.s8.onnx"
        self.timings = directory / "timings"
        self.modules.mkdir()
        self.room.mkdir()
        self.onnx.write_bytes(b"a network")
        self.plays("")

    def plays(self, more: str) -> None:
        """TensorRT 10.3.0, then `more` lines of Python in the same module."""
        head = """
            from tests.runtime.serving.fake_tensorrt import Fake, ParserError
            fake = Fake("10.3.0")
            globals().update(vars(fake), Builder=fake.Builder, OnnxParser=fake.OnnxParser)
            """
        (self.modules / "tensorrt.py").write_text(dedent(head) + dedent(more))

    async def build(self, *, bounds: Bounds = BOUNDS, timings: Path | None = None) -> BuiltFile:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (self.modules, ROOT))))
        return await build_apart(
            self.onnx, INT8, HERE, self.room, timings=timings, bounds=bounds, environment=environment
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_an_engine_comes_out_of_a_process_of_its_own(stage: Stage) -> None:
    stage.timings.write_bytes(b"own")
    built = await stage.build(timings=stage.timings)
    assert built.record.engine == digest_of(built.engine.read_bytes())
    assert built.record.machine == HERE
    assert msgspec.json.decode(built.engine.read_bytes())["flags"] == ["INT8", "FP16"]
    assert built.timings is not None
    assert built.timings.read_bytes() == b"own+measured"


async def test_what_the_builder_refuses_is_refused_here_with_the_same_code_and_words(stage: Stage) -> None:
    stage.plays("fake.refuses.append(ParserError(7, 'conv', 'Conv', 'no such thing'))")
    with pytest.raises(FoothillError) as refused:
        await stage.build()
    assert refused.value.code == "bad_bundle"
    assert "node 'conv' (Conv, number 7): INVALID_NODE: no such thing" in refused.value.message


async def test_a_missing_runtime_is_refused_with_the_way_to_get_it(stage: Stage) -> None:
    (stage.modules / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    with pytest.raises(FoothillError, match=r"libnvinfer\.so\.10.*apt-get install"):
        await stage.build()


@pytest.mark.parametrize(
    ("death", "says"),
    [
        ("import os; print('CUDA error: 700', flush=True); os.kill(os.getpid(), 11)", "SIGSEGV.*CUDA error: 700"),
        ("import os; os._exit(3)", "status 3.*nothing"),
        ("raise RuntimeError('torn library')", "status 1.*torn library"),
    ],
)
async def test_a_builder_that_dies_is_an_error_and_no_more(stage: Stage, death: str, says: str) -> None:
    stage.plays(f"def Builder(log):\n    {death}")
    with pytest.raises(BuildFailed, match=says):
        await stage.build()


async def test_a_builder_that_eats_the_memory_is_ended(stage: Stage) -> None:
    stage.plays("def Builder(log):\n    import time\n    much = bytearray(300 << 20)\n    time.sleep(60)")
    with pytest.raises(BuildFailed, match=r"MiB of memory, and 250 MiB are allowed"):
        await stage.build(bounds=Bounds(memory_bytes=250 << 20))


async def test_a_builder_that_does_not_end_is_ended(stage: Stage) -> None:
    stage.plays("def Builder(log):\n    import time\n    time.sleep(60)")
    with pytest.raises(BuildFailed, match=r"more than 1 s"):
        await stage.build(bounds=Bounds(seconds=1.0))


async def test_a_build_that_nobody_waits_for_is_ended(stage: Stage) -> None:
    stage.plays(
        """
        def Builder(log):
            import os, time
            open("pid", "w").write(str(os.getpid()))
            time.sleep(60)
        import os
        os.chdir(os.path.dirname(os.path.dirname(__file__)))
        """
    )
    note = stage.room.parent / "pid"
    building = asyncio.create_task(stage.build())
    await until(lambda: note.exists() and bool(note.read_text()))
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert resident_bytes(int(note.read_text())) == 0


async def test_the_builder_steps_back_behind_serving(stage: Stage) -> None:
    stage.plays(
        """
        import os
        mine = os.nice(0), open("/proc/self/oom_score_adj").read().strip()
        fake.refuses.append(ParserError(0, "", "", f"nice {mine[0]}, out of memory {mine[1]}"))
        """
    )
    with pytest.raises(FoothillError, match=f"nice {os.nice(0) + 10}, out of memory 1000"):
        await stage.build()
