// NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
// guests/ABI.md explains every call.
package main

import (
	"encoding/binary"
	"guest/edge"
)

var (
	limit, series uint32
	rejectsInARow uint32 // all that is remembered, so all that is saved
)

//go:wasmexport edge_configure
func configure(document, bytes uint32) int32 {
	parameters := edge.Open(document, bytes)
	limit = parameters.Whole("limit", 1, 1, edge.MaxDefects)
	series = parameters.Whole("series", 3, 1, 1000000)
	return parameters.Close() // refuses what was not asked for
}

//go:wasmexport decide
func decide(call *edge.DecideCall) int32 {
	call.Verdict, call.Score, call.ActionCount = edge.VerdictPass, 0, 0
	call.SetReason("ok")
	if defects := call.Defects(); len(defects) > 0 {
		call.Score = defects[0].Score
	}
	if call.DefectCount < limit {
		rejectsInARow = 0
		return edge.OK
	}
	if rejectsInARow < 1<<32-1 {
		rejectsInARow++
	}
	call.Verdict = edge.VerdictReject
	call.SetReason("defect")
	if rejectsInARow >= series {
		call.SetReason("series")
	}
	return edge.OK
}

// A state begins with its version: it may meet another build of this guest.
//
//go:wasmexport edge_state_save
func save(address, capacity uint32) int32 {
	if capacity < 8 {
		return edge.Fail(edge.ErrorMemory, "the state takes 8 bytes")
	}
	state := edge.Bytes(address, 8)
	binary.LittleEndian.PutUint32(state, 1)
	binary.LittleEndian.PutUint32(state[4:], rejectsInARow)
	return 8
}

//go:wasmexport edge_state_restore
func restore(address, bytes uint32) int32 {
	state := edge.Bytes(address, bytes)
	if len(state) != 8 || binary.LittleEndian.Uint32(state) != 1 {
		return edge.Fail(edge.ErrorInput, "the state is not of version 1")
	}
	rejectsInARow = binary.LittleEndian.Uint32(state[4:])
	return edge.OK
}

func main() {}
