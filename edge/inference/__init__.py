"""The ONNX host: the only room that knows ONNX Runtime.

A model is screened before the engine sees its bytes, loaded on the provider that was asked for, and
run on memory that belongs to somebody else. One engine thread in one worker uses it.
"""
