//! NAME: the frame, stretched to the model's input by the nearest pixel, times `scale`.
//! Input: float32 [1, 1 or 3, height, width]; colours as planes red, green, blue. guests/ABI.md
//! explains every call.
#![no_std]

use edge::{abi, fail, Global, Parameters};

static SCALE: Global<f32> = Global::new(1.0 / 255.0);

#[no_mangle]
unsafe extern "C" fn edge_configure(document: *const u8, bytes: usize) -> i32 {
    let mut parameters = Parameters::open(document, bytes);
    SCALE.set(parameters.number("scale", 1.0 / 255.0, 1e-6, 1e6) as f32);
    parameters.close() // refuses what was not asked for
}

#[no_mangle]
extern "C" fn preprocess(call: &mut abi::PreprocessCall) -> i32 {
    let frame = call.frame;
    if frame.data.is_null()
        || frame.width == 0
        || frame.height == 0
        || frame.format == abi::FORMAT_NONE
    {
        return fail(abi::ERROR_INPUT, "there is no frame");
    }
    let channels = if frame.format == abi::FORMAT_GRAY8 {
        1
    } else {
        3
    };
    let input = match call.inputs() {
        [one] if one.is_floats(&[1, channels, 0, 0]) => one,
        _ => {
            return fail(
                abi::ERROR_INPUT,
                "expected one float32 input [1, channels of the frame, height, width]",
            )
        }
    };
    let (height, width) = (input.dims[2], input.dims[3]);
    let scale = SCALE.get();
    let planes = input.floats().chunks_exact_mut((height * width) as usize);
    for (channel, plane) in (0..channels).zip(planes) {
        let from = if frame.format == abi::FORMAT_BGR8 {
            2 - channel
        } else {
            channel
        };
        for (y, line) in (0..height).zip(plane.chunks_exact_mut(width as usize)) {
            let row = frame.row(nearest(y, frame.height, height), channels);
            for (x, out) in (0..width).zip(line) {
                let at = nearest(x, frame.width, width) * channels + from;
                *out = f32::from(row[at as usize]) * scale;
            }
        }
    }
    call.transform = abi::Transform {
        scale_x: frame.width as f32 / width as f32,
        scale_y: frame.height as f32 / height as f32,
        offset_x: 0.0,
        offset_y: 0.0,
    };
    abi::OK
}

/// The place of an input pixel in the frame, on one axis.
fn nearest(place: u32, of_frame: u32, of_input: u32) -> u32 {
    (u64::from(place) * u64::from(of_frame) / u64::from(of_input)) as u32
}
