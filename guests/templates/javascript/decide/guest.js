// NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
// guests/SCRIPTS.md explains records and answers. Nothing of a system is here: no clock, file, console.
import { exported } from "./edge_script.js";

let limit, series;
let rejectsInARow = 0; // all that is remembered, so all that is saved

export const { policy, state } = exported({
  configure(parameters, names) {
    limit = parameters.whole("limit", 1, 1, 300);
    series = parameters.whole("series", 3, 1, 1000000);
  },

  // Judge one frame; its findings come strongest first.
  decide({ defects }) {
    let reason = "ok";
    if (defects.length < limit) {
      rejectsInARow = 0;
    } else {
      rejectsInARow += 1;
      reason = rejectsInARow >= series ? "series" : "defect";
    }
    return {
      verdict: reason === "ok" ? "pass" : "reject",
      score: defects.length ? defects[0].score : 0,
      reason,
    };
  },

  // A state begins with its version: it may meet another build of this policy.
  save() {
    return { version: 1, rejectsInARow };
  },

  restore(saved) {
    if (saved?.version !== 1) throw "the state is not of version 1";
    rejectsInARow = saved.rejectsInARow;
  },
});
