// NAME: the frame, stretched to the model's input by the nearest pixel, times `scale`.
// Input: float32 [1, 1 or 3, height, width]; colours as planes red, green, blue. guests/ABI.md
// explains every call.
package main

import "guest/edge"

var scale float32

//go:wasmexport edge_configure
func configure(document, bytes uint32) int32 {
	parameters := edge.Open(document, bytes)
	scale = float32(parameters.Number("scale", 1.0/255, 1e-6, 1e6))
	return parameters.Close() // refuses what was not asked for
}

//go:wasmexport preprocess
func preprocess(call *edge.PreprocessCall) int32 {
	frame := &call.Frame
	if frame.DataAddress == 0 || frame.Width == 0 || frame.Height == 0 || frame.Format == edge.FormatNone {
		return edge.Fail(edge.ErrorInput, "there is no frame")
	}
	channels := uint32(3)
	if frame.Format == edge.FormatGray8 {
		channels = 1
	}
	inputs := call.Inputs()
	if len(inputs) != 1 || inputs[0].Dtype != edge.DtypeFloat32 || inputs[0].Rank != 4 ||
		inputs[0].Dims[0] != 1 || inputs[0].Dims[1] != channels {
		return edge.Fail(edge.ErrorInput, "expected one float32 input [1, channels of the frame, height, width]")
	}
	height, width, out := inputs[0].Dims[2], inputs[0].Dims[3], inputs[0].Floats()
	for channel := range channels {
		from := channel
		if frame.Format == edge.FormatBGR8 {
			from = 2 - channel
		}
		for y := range height {
			row := frame.Row(nearest(y, frame.Height, height), channels)
			for x := range width {
				out[x] = float32(row[nearest(x, frame.Width, width)*channels+from]) * scale
			}
			out = out[width:]
		}
	}
	call.Transform = edge.Transform{
		ScaleX: float32(frame.Width) / float32(width), ScaleY: float32(frame.Height) / float32(height),
	}
	return edge.OK
}

// The place of an input pixel in the frame, on one axis.
func nearest(place, ofFrame, ofInput uint32) uint32 {
	return uint32(uint64(place) * uint64(ofFrame) / uint64(ofInput))
}

func main() {}
