"""The board detector without a reference: what is its own beside `models.pcb.recipe`.

Rules: network, augmentation, training, export, int8 and evaluation are those of `pcb`, with one
plane. Nothing here imports torch, and nothing is imported by the runtime.
"""
