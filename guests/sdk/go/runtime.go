package edge

import (
	"runtime/debug"
	"unsafe"
)

// What the host laid at an address, in place; empty where there is nothing.
func at[T any](address, count uint32) []T {
	if address == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(uintptr(address))), count)
}

// Bytes gives what the host laid at an address, in place.
func Bytes(address, count uint32) []byte { return at[byte](address, count) }

// Row gives a row of pixels: Width times the format's channels.
func (image *Image) Row(y, channels uint32) []byte {
	return at[byte](image.DataAddress+y*image.Stride, image.Width*channels)
}

// Floats gives the elements, in place; none where the tensor is of another type.
func (tensor *Tensor) Floats() []float32 {
	if tensor.Dtype != DtypeFloat32 {
		return nil
	}
	return at[float32](tensor.DataAddress, tensor.Bytes/4)
}

// SetReason writes a code of at most 31 bytes.
func (call *DecideCall) SetReason(code string) {
	call.Reason = [ReasonBytes]byte{}
	copy(call.Reason[:ReasonBytes-1], code)
}

// --- the error text --------------------------------------------------------------------------

var errorText [MaxErrorBytes + 1]byte

// Fail sets the error text, cut at its end, and returns the code: `return edge.Fail(...)`.
func Fail(code int32, sentence string) int32 {
	length := copy(errorText[:MaxErrorBytes], sentence)
	for index, letter := range errorText[:length] {
		errorText[index] = max(letter, ' ')
	}
	errorText[length] = 0
	return code
}

//go:wasmexport edge_error
func edgeError() unsafe.Pointer { return unsafe.Pointer(&errorText) }

// --- the runtime -----------------------------------------------------------------------------

//go:wasmexport edge_abi
func edgeABI() uint32 { return ABIMajor << 16 } // no later addition is needed

// The part of memory that Go keeps for its own heap; the rest is laid aside for the host.
const ownBytes = 8 << 20

var (
	arena []byte
	used  uint32
)

// Before anything else of the guest: no more than there is, whatever the collector would like.
func init() {
	if total := pages() << 16; total > ownBytes {
		debug.SetMemoryLimit(int64(total) - 1<<20)
		arena = make([]byte, total-ownBytes)
	}
}

//go:wasmexport edge_alloc
func edgeAlloc(bytes, alignment uint32) uint32 {
	if alignment == 0 || alignment > 4096 || alignment&(alignment-1) != 0 {
		return 0
	}
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(arena))))
	mask := uint64(alignment - 1)
	begin := (base + uint64(used) + mask) &^ mask
	end := begin + uint64(bytes) - base
	if end > uint64(len(arena)) {
		return 0
	}
	used = uint32(end)
	return uint32(begin)
}

// Pages of 64 KiB in the guest's memory, which never grows.
func pages() uint32
