// NAME: the frame, stretched to the model's input by the nearest pixel, times `scale`.
// Input: float32 [1, 1 or 3, height, width]; colours as planes red, green, blue. guests/ABI.md
// explains every call.
import * as edge from "edge";

export { edge_abi, edge_alloc, edge_error } from "edge";

const SHAPE: StaticArray<i32> = [1, -1, -1, -1];
let scale: f32 = 0;

export function edge_configure(document: usize, bytes: u32): i32 {
  const parameters = new edge.Parameters(document, bytes);
  scale = <f32>parameters.number("scale", 1.0 / 255, 1e-6, 1e6);
  return parameters.close(); // refuses what was not asked for
}

export function preprocess(call: edge.PreprocessCall): i32 {
  const frame = call.frame;
  if (frame.data == 0 || frame.width == 0 || frame.height == 0 || frame.format == edge.FORMAT_NONE)
    return edge.fail(edge.ERROR_INPUT, "there is no frame");
  const channels: u32 = frame.format == edge.FORMAT_GRAY8 ? 1 : 3;
  if (call.input_count != 1 || !edge.isFloats(call.inputs(0), SHAPE) || call.inputs(0).dims(1) != channels)
    return edge.fail(edge.ERROR_INPUT, "expected one float32 input [1, channels of the frame, height, width]");
  const input = call.inputs(0), height = input.dims(2), width = input.dims(3);
  let out: usize = input.data;
  for (let channel: u32 = 0; channel < channels; channel++) {
    const from = frame.format == edge.FORMAT_BGR8 ? 2 - channel : channel;
    for (let y: u32 = 0; y < height; y++) {
      const row = nearest(y, frame.height, height);
      for (let x: u32 = 0; x < width; x++, out += 4) {
        const at = nearest(x, frame.width, width) * channels + from;
        store<f32>(out, <f32>edge.pixel(frame, row, at) * scale);
      }
    }
  }
  const transform = call.transform;
  transform.scale_x = <f32>frame.width / <f32>width;
  transform.scale_y = <f32>frame.height / <f32>height;
  transform.offset_x = transform.offset_y = 0;
  return edge.OK;
}

/** The place of an input pixel in the frame, on one axis. */
function nearest(place: u32, ofFrame: u32, ofInput: u32): u32 {
  return <u32>((<u64>place * ofFrame) / ofInput);
}
