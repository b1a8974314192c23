"""What all recipes share: data folders, the deployed frame path, training, export, int8, cards.

Rules: only `layers`, `training` and `exporting` import torch. A recipe of a model imports this room
and `edge`; nothing here knows one model, and nothing here is imported by the runtime.
"""
