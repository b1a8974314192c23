"""NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.

guests/SCRIPTS.md explains records and answers. Nothing of a system is here: no clock, file, print.
"""

import edge_script


class Limit(edge_script.Policy):
    """The policy; made when the component is built."""

    rejects_in_a_row = 0  # all that is remembered, so all that is saved

    def configure(self, parameters, names):
        """Read the parameters; what is not asked for is refused."""
        self.limit = parameters.whole("limit", 1, 1, 300)
        self.series = parameters.whole("series", 3, 1, 1_000_000)

    def decide(self, record):
        """Judge one frame; its findings come strongest first."""
        defects = record["defects"]
        reason = "ok"
        if len(defects) < self.limit:
            self.rejects_in_a_row = 0
        else:
            self.rejects_in_a_row += 1
            reason = "series" if self.rejects_in_a_row >= self.series else "defect"
        return {
            "verdict": "pass" if reason == "ok" else "reject",
            "score": defects[0]["score"] if defects else 0,
            "reason": reason,
        }

    def save(self):
        """A state begins with its version: it may meet another build of this policy."""
        return {"version": 1, "rejects_in_a_row": self.rejects_in_a_row}

    def restore(self, state):
        """Go on where a forerunner stopped."""
        if not isinstance(state, dict) or state.get("version") != 1:
            raise edge_script.Refused("the state is not of version 1")
        self.rejects_in_a_row = int(state["rejects_in_a_row"])


Policy, State = edge_script.export(Limit())
