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

// Go keeps the first part of memory for itself: its own variables, and a heap that it collects. The
// rest is the host's.
const ownBytes = 8 << 20

// Where the heap must end. The runtime asks the system for more behind it, and is refused: the
// memory of a guest does not grow.
//
//go:linkname heapEnd runtime.blocMax
var heapEnd uintptr

var next uint64 // what the host is given next; 0: there is no room for it

func init() {
	heap := uint64(uintptr(unsafe.Pointer(new([16]byte))))
	if memoryBytes() <= ownBytes || heap > ownBytes-4<<20 {
		return
	}
	heapEnd, next = ownBytes, ownBytes
	debug.SetMemoryLimit(int64(ownBytes-heap) - 1<<20) // some is lost between its blocks
}

//go:wasmexport edge_alloc
func edgeAlloc(bytes, alignment uint32) uint32 {
	if next == 0 || alignment == 0 || alignment > 4096 || alignment&(alignment-1) != 0 {
		return 0
	}
	mask := uint64(alignment - 1)
	begin := (next + mask) &^ mask
	if begin+uint64(bytes) > memoryBytes() {
		return 0
	}
	next = begin + uint64(bytes)
	return uint32(begin)
}

func memoryBytes() uint64 { return uint64(pages()) << 16 }

// Pages of 64 KiB in the guest's memory, which never grows.
func pages() uint32
