// NAME: rows of a detector that has its NMS in the graph become findings.
// Output: float32 [1, rows, 6] of x0, y0, x1, y1, score, label. guests/ABI.md explains every call.
import * as edge from "edge";

export { edge_abi, edge_alloc, edge_error } from "edge";

const SHAPE: StaticArray<i32> = [1, -1, 6];
let leastScore: f32 = 0.5;

export function edge_configure(document: usize, bytes: u32): i32 {
  const parameters = new edge.Parameters(document, bytes);
  leastScore = <f32>parameters.number("score", 0.5, 0, 1);
  return parameters.close(); // refuses what was not asked for
}

export function postprocess(call: edge.PostprocessCall): i32 {
  if (call.output_count != 1 || !edge.isFloats(call.outputs(0), SHAPE))
    return edge.fail(edge.ERROR_INPUT, "expected one float32 output [1, rows, 6]");
  const output = call.outputs(0);
  let count: u32 = 0;
  for (let i: u32 = 0, row: usize = output.data; i < output.dims(1); i++, row += 24) {
    const x0 = load<f32>(row), y0 = load<f32>(row, 4), x1 = load<f32>(row, 8), y1 = load<f32>(row, 12);
    const score = load<f32>(row, 16), label = load<f32>(row, 20);
    // Dropping what is not a number would pass the part.
    if (!isFinite(x0 + y0 + x1 + y1 + score + label)) return edge.fail(edge.ERROR_INPUT, "an output is not finite");
    if (score < leastScore) continue;
    if (label < 0 || label > 1000000) return edge.fail(edge.ERROR_INPUT, "a label is out of range");
    const place = makeRoom(call, count, score);
    if (place == call.defect_capacity) continue;
    const t = call.transform, found = call.defects(place);
    found.x0 = (x0 - t.offset_x) * t.scale_x;
    found.y0 = (y0 - t.offset_y) * t.scale_y;
    found.x1 = (x1 - t.offset_x) * t.scale_x;
    found.y1 = (y1 - t.offset_y) * t.scale_y;
    found.score = score;
    found.label = <i32>label;
    count = min(count + 1, call.defect_capacity);
  }
  return count;
}

/** The place of a finding, strongest first; the weaker ones move on, and the last may go. */
function makeRoom(call: edge.PostprocessCall, count: u32, score: f32): u32 {
  let place = count;
  while (place > 0 && call.defects(place - 1).score < score) place--;
  const last = min(count, call.defect_capacity - 1);
  if (place < last)
    memory.copy(
      changetype<usize>(call.defects(place + 1)),
      changetype<usize>(call.defects(place)),
      (last - place) * edge.Defect.BYTES,
    );
  return place;
}
