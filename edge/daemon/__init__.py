"""The supervisor: it owns sockets, disk, timers and signals, and keeps every deadline.

It imports neither Wasm nor ONNX Runtime nor OpenCV nor NumPy: whatever a guest, a model or a codec
does, it does in a worker process, and this one answers in time without it.
"""
