"""How the second model of the board cascade is trained, exported, quantised and judged.

Rules: only `network`, `train` and `export` import torch. Every command takes the data folder as an
argument and is seeded. Training reads DeepPCB's training pairs alone, through the committed
detector of `models/pcb` and the runtime's own crops. Nothing here is imported by the runtime.
"""
