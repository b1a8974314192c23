"""How the board-defect detector is trained, exported, quantised and judged.

Rules: `data`, `augment`, `targets`, `detections`, `quantise`, `evaluate` and `card` import no torch;
only `network`, `train` and `export` do. Every command takes the data folder as an argument and is
seeded. Nothing here is imported by the runtime.
"""
