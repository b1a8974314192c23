"""The guest host: untrusted Wasm modules, run in place, within a grant of memory and time.

The one door to wasmtime. Rules of this room:

- One engine thread in a worker process owns a `GuestEngine` and every guest of it. A guest that is
  called from another thread raises: a Store on two threads traps at random.
- A guest imports nothing, so no Python code ever runs inside a guest call; nor does a script, which
  is a component. Programs alone, which are existing wasi-nn commands, call eight functions of the
  host; these answer numbers and never raise (`edge.wasm.program`).
- Nothing is copied: frames, tensors and call structs lie in guest memory, and NumPy, ctypes and
  ONNX Runtime look at it there. Every view keeps its Store alive; no Store is closed by hand.
- Every address, length, count and number that a guest returns is checked before it is used.
- Compilation happens in a process of its own, with limits (`edge.wasm.compile`).
"""
