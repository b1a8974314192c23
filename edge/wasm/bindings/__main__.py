"""`python -m edge.wasm.bindings`."""

import sys

from edge.wasm.bindings import main

sys.exit(main())
