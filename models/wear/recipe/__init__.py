"""How the wear score of ball screws is fitted, exported and judged.

Rules: only `network` and `fit` import torch. Every command takes the data folder as an
argument and is seeded. Nothing here is imported by the runtime.
"""
