"""The languages in which guests are written: one module each, and one table, `TABLE`.

To add one: a module with a `LANGUAGE`, a row here, `guests/templates/<name>/<role>/guest.<suffix>`
for each role that it serves, and a section of docs/guests.md. All templates of a role pass the
vectors in `guests/templates/vectors/<role>`.

A toolchain is a development tool: nothing that runs guests needs one. None of them may use the
network while it builds, and each gives the same bytes in any folder, save where the row says
otherwise (`reproducible`).
"""

from typing import Final

from edge.sdk.languages import assemblyscript, c, go, rust, script, zig
from edge.sdk.languages.language import BuildError, Language, Source, ToolchainMissingError

__all__ = ["TABLE", "BuildError", "Language", "Source", "ToolchainMissingError"]

TABLE: Final[dict[str, Language]] = {
    language.name: language
    for language in (
        c.LANGUAGE,
        zig.LANGUAGE,
        rust.LANGUAGE,
        go.LANGUAGE,
        assemblyscript.LANGUAGE,
        script.PYTHON,
        script.JAVASCRIPT,
    )
}
"""Name (`--lang`) → language, in the order in which people are shown them."""
