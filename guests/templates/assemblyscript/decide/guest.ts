// NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
// guests/ABI.md explains every call.
import * as edge from "edge";

export { edge_abi, edge_alloc, edge_error } from "edge";

let limit: u32 = 1;
let series: u32 = 3;
let rejectsInARow: u32 = 0; // all that is remembered, so all that is saved

export function edge_configure(document: usize, bytes: u32): i32 {
  const parameters = new edge.Parameters(document, bytes);
  limit = parameters.whole("limit", 1, 1, edge.MAX_DEFECTS);
  series = parameters.whole("series", 3, 1, 1000000);
  return parameters.close(); // refuses what was not asked for
}

export function decide(call: edge.DecideCall): i32 {
  const bad = call.defect_count >= limit;
  if (!bad) rejectsInARow = 0;
  else if (rejectsInARow < u32.MAX_VALUE) rejectsInARow++;
  call.verdict = bad ? edge.VERDICT_REJECT : edge.VERDICT_PASS;
  call.score = call.defect_count > 0 ? call.defects(0).score : 0;
  call.action_count = 0;
  edge.setReason(call, !bad ? "ok" : rejectsInARow >= series ? "series" : "defect");
  return edge.OK;
}

// A state begins with its version: it may meet another build of this guest.
export function edge_state_save(blob: usize, capacity: u32): i32 {
  if (capacity < 8) return edge.fail(edge.ERROR_MEMORY, "the state takes 8 bytes");
  store<u32>(blob, 1);
  store<u32>(blob, rejectsInARow, 4);
  return 8;
}

export function edge_state_restore(blob: usize, bytes: u32): i32 {
  if (bytes != 8 || load<u32>(blob) != 1) return edge.fail(edge.ERROR_INPUT, "the state is not of version 1");
  rejectsInARow = load<u32>(blob, 4);
  return edge.OK;
}
