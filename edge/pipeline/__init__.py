"""The frame path: decode, preprocess, infer, postprocess, decide.

Rules: no socket, no file, no clock but the stopwatch, no logging. A frame comes in as bytes and
leaves as a judgement or as a `FrameError`. Pixels and tensors lie in guest memory the whole way,
save where a program, which knows nothing of us, takes the place of guests (`finders`).
"""
