// Allocation and the error text: what every guest has to export. The host allocates at set-up only
// and gives nothing back; what the guest itself allocates (strings, arrays) lies in the same heap
// and stays, so allocate none once frames come.

import { ABI_MAJOR, DecideCall, DTYPE_FLOAT32, Image, MAX_ERROR_BYTES, REASON_BYTES, Tensor } from "./abi";

const errorText = memory.data(256); // MAX_ERROR_BYTES and its end

export function edge_abi(): u32 {
  return ABI_MAJOR << 16; // no later addition is needed
}

export function edge_alloc(bytes: u32, alignment: u32): usize {
  if (alignment == 0 || alignment > 4096 || (alignment & (alignment - 1)) != 0) return 0;
  const top = <u64>heap.alloc(0); // where the heap ends now
  const wanted = <u64>bytes + alignment;
  if (top + wanted + 4096 > <u64>memory.size() << 16) return 0;
  return (heap.alloc(<usize>wanted) + alignment - 1) & ~(<usize>alignment - 1);
}

export function edge_error(): usize {
  return errorText;
}

/** Sets the error text, cut at its end, and returns the code: `return fail(...)`. */
export function fail(code: i32, sentence: string): i32 {
  const length = min<i32>(sentence.length, MAX_ERROR_BYTES);
  for (let i = 0; i < length; i++) {
    const letter = sentence.charCodeAt(i);
    store<u8>(errorText + i, letter < 0x20 || letter > 0x7e ? 0x3f : letter);
  }
  store<u8>(errorText + length, 0);
  return code;
}

/** Writes a decision's reason: at most 31 letters, then zeros. */
export function setReason(call: DecideCall, code: string): void {
  for (let i: u32 = 0; i < REASON_BYTES; i++) {
    const letter = i < <u32>code.length && i + 1 < REASON_BYTES ? code.charCodeAt(i) : 0;
    call.set_reason(i, <u8>letter);
  }
}

/** Whether it is float32 of this shape; -1 stands for any length. */
export function isFloats(tensor: Tensor, shape: StaticArray<i32>): bool {
  if (tensor.dtype != DTYPE_FLOAT32 || tensor.rank != <u32>shape.length) return false;
  for (let axis = 0; axis < shape.length; axis++) {
    if (shape[axis] >= 0 && tensor.dims(axis) != <u32>shape[axis]) return false;
  }
  return true;
}

/** One byte of an image; `at` counts from the begin of row `y`. */
// @ts-ignore: decorator
@inline
export function pixel(image: Image, y: u32, at: u32): u8 {
  return load<u8>(<usize>image.data + <usize>y * image.stride + at);
}
