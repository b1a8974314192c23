"""Guest memory as the host sees it: in place, within bounds, alive as long as anyone looks."""

import ctypes
import gc
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from guest_wat import GuestFiles, guest

from edge.contracts import abi
from edge.errors import GuestError
from edge.wasm.guest import Guest

pytest_plugins = ["guest_fixtures"]

Instance = Callable[..., Guest]
PEEK = '(func (export "decide") (param i32) (result i32) (i32.load (local.get 0)))'


def test_view_is_the_guests_own_memory(instance: Instance) -> None:
    peeking = instance(guest(decide=PEEK))
    address = peeking.alloc(16)
    view = peeking.view(address, (2, 2), np.int32)
    view[1, 1] = 42
    assert peeking.call("decide", address + 12) == 42
    assert view.ctypes.data == peeking.pointer(address, 16)
    assert view.flags.writeable
    assert view.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8", "int32", "int64"])
def test_allocation_is_aligned_for_every_tensor_type(instance: Instance, dtype: str) -> None:
    roomy = instance(guest())
    roomy.alloc(3, 1)
    view = roomy.view(roomy.alloc(24 * 8), (2, 3, 4), dtype)
    assert view.ctypes.data % abi.TENSOR_ALIGNMENT == 0
    view[...] = 7
    assert view.sum() == 7 * 24


def test_struct_is_mapped_in_place(instance: Instance) -> None:
    peeking = instance(guest(decide=PEEK))
    address = peeking.alloc(ctypes.sizeof(abi.Image), 8)
    image = peeking.map(abi.Image, address)
    image.height = 480
    assert peeking.call("decide", address + abi.Image.height.offset) == 480  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "nbytes"),
    [(-1, 1), (4194304, 1), (4194303, 2), (0, 4194305), (1 << 32, 1), (8, -1)],
)
def test_address_outside_memory_is_refused(instance: Instance, address: int, nbytes: int) -> None:
    bounded = instance(guest())
    with pytest.raises(GuestError, match="do not lie inside its 4194304 bytes"):
        bounded.pointer(address, nbytes)
    with pytest.raises(GuestError, match="do not lie inside"):
        bounded.view(address, (nbytes,), np.uint8)


def test_whole_memory_can_be_viewed(instance: Instance) -> None:
    bounded = instance(guest())
    assert bounded.view(0, (4194304,), np.uint8).nbytes == bounded.memory_bytes


def test_views_and_structs_keep_the_store_and_nothing_else_does(instance: Instance) -> None:
    bounded = instance(guest())
    store = weakref.ref(bounded._store)
    view = bounded.view(4096, (8,), np.float32)[2:4].reshape(1, 2)
    nested = bounded.map(abi.PreprocessCall, 8192).frame
    del bounded
    gc.collect()
    assert store() is not None
    del view
    gc.collect()
    assert store() is not None
    del nested
    gc.collect()
    assert store() is None


def test_view_outlives_guest_module_and_engine(files: GuestFiles, tmp_path: Path) -> None:
    """In a process of its own: a dangling view would end it."""
    written = files.write(guest())
    program = f"""
        import gc, pathlib
        import numpy as np
        from edge.contracts import abi
        from edge.wasm.engine import GuestEngine

        engine = GuestEngine(pathlib.Path({str(tmp_path / "cache")!r}))
        module = engine.load(pathlib.Path({str(written.path)!r}), {written.sha256!r}, 8)
        guest = module.instantiate(2000)
        view = guest.view(0, (guest.memory_bytes,), np.uint8)
        call = guest.map(abi.DecideCall, 65536)
        engine.close()
        del guest, module, engine
        gc.collect()
        view[:] = 1
        call.score = 0.5
        assert view.sum() > 4_000_000
        print("alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


def test_view_without_its_store_would_have_crashed(files: GuestFiles, tmp_path: Path) -> None:
    """The control of the test above: memory does go away with its Store."""
    written = files.write(guest())
    program = f"""
        import ctypes, gc, pathlib
        import numpy as np
        from edge.wasm.engine import GuestEngine

        engine = GuestEngine(pathlib.Path({str(tmp_path / "cache")!r}))
        module = engine.load(pathlib.Path({str(written.path)!r}), {written.sha256!r}, 8)
        guest = module.instantiate(2000)
        host = guest.pointer(0, guest.memory_bytes)
        del guest, module, engine
        gc.collect()
        ctypes.memset(host, 1, 4194304)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode < 0
