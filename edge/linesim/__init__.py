"""A line that exists only in numbers: bare boards, their defects, and the camera that scans them.

The pictures look like the binarised scans of the DeepPCB data set (Tang et al., arXiv 1902.06197),
on which `models/pcb` is trained: black copper on white laminate, 640 x 640 pixels. No picture of
that set is contained or traced. Truth comes from the drawing itself, never from the picture.

Everything is a function of its seed: all chance comes from NumPy's PCG64 as integers, and all
drawing is integer arithmetic, so that a seed means the same board on every machine.
"""

from edge.linesim.board import SIDE, Board
from edge.linesim.defects import KINDS, Box
from edge.linesim.line import Part, boards_of, line, render_part
from edge.linesim.scan import Camera, encode_jpeg

__all__ = [
    "KINDS",
    "SIDE",
    "Board",
    "Box",
    "Camera",
    "Part",
    "boards_of",
    "encode_jpeg",
    "line",
    "render_part",
]
