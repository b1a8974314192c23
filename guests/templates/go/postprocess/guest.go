// NAME: rows of a detector that has its NMS in the graph become findings.
// Output: float32 [1, rows, 6] of x0, y0, x1, y1, score, label. guests/ABI.md explains every call.
package main

import "guest/edge"

var leastScore float32

//go:wasmexport edge_configure
func configure(document, bytes uint32) int32 {
	parameters := edge.Open(document, bytes)
	leastScore = float32(parameters.Number("score", 0.5, 0, 1))
	return parameters.Close() // refuses what was not asked for
}

//go:wasmexport postprocess
func postprocess(call *edge.PostprocessCall) int32 {
	outputs := call.Outputs()
	if len(outputs) != 1 || outputs[0].Dtype != edge.DtypeFloat32 || outputs[0].Rank != 3 ||
		outputs[0].Dims[0] != 1 || outputs[0].Dims[2] != 6 {
		return edge.Fail(edge.ErrorInput, "expected one float32 output [1, rows, 6]")
	}
	t, defects, count := call.Transform, call.Defects(), 0
	for rows := outputs[0].Floats(); len(rows) >= 6; rows = rows[6:] {
		row := rows[:6]
		// Dropping what is not a number would pass the part.
		sum := row[0] + row[1] + row[2] + row[3] + row[4] + row[5]
		if sum-sum != 0 {
			return edge.Fail(edge.ErrorInput, "an output is not finite")
		}
		if row[4] < leastScore {
			continue
		}
		if row[5] < 0 || row[5] > 1000000 {
			return edge.Fail(edge.ErrorInput, "a label is out of range")
		}
		count = insert(defects, count, edge.Defect{
			X0: (row[0] - t.OffsetX) * t.ScaleX, Y0: (row[1] - t.OffsetY) * t.ScaleY,
			X1: (row[2] - t.OffsetX) * t.ScaleX, Y1: (row[3] - t.OffsetY) * t.ScaleY,
			Score: row[4], Label: int32(row[5]),
		})
	}
	return int32(count)
}

// Strongest first; when there is no room, the weakest goes.
func insert(defects []edge.Defect, count int, found edge.Defect) int {
	place := count
	for place > 0 && defects[place-1].Score < found.Score {
		place--
	}
	if place == len(defects) {
		return count
	}
	kept := min(count, len(defects)-1)
	copy(defects[place+1:kept+1], defects[place:kept])
	defects[place] = found
	return kept + 1
}

func main() {}
