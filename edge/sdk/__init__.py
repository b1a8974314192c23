"""Tools for people who write guests: look into a module, hold it to golden vectors, start one.

Rules of this room:

- A guest runs here as it runs in a worker: through `edge.wasm`, with its checks and its limits. No
  other way to call one exists, so what passes here is what the daemon will see.
- Nothing here runs in the daemon, and nothing here is needed to run a guest.
- What a file says wrongly is reported with the file, the key and what was expected.
"""
