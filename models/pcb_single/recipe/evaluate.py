"""Judges an ONNX file of the detector without a reference, by the evaluation of `pcb`.

`python -m models.pcb_single.recipe.evaluate --data ../shared/data \
    --model models/pcb_single/model.int8.onnx`
"""

from models.pcb.recipe.evaluate import main

if __name__ == "__main__":
    main()
