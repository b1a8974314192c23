"""How the segmenter of magnetic tiles is trained, exported, quantised and judged.

Rules: only `network`, `train` and `export` import torch. Every command takes the data folder as an
argument and is seeded. Nothing here is imported by the runtime.
"""
