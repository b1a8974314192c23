//! NAME: rows of a detector that has its NMS in the graph become findings.
//! Output: float32 [1, rows, 6] of x0, y0, x1, y1, score, label. guests/ABI.md explains every call.
#![no_std]

use edge::{abi, fail, Global, Parameters};

static LEAST_SCORE: Global<f32> = Global::new(0.5);

#[no_mangle]
unsafe extern "C" fn edge_configure(document: *const u8, bytes: usize) -> i32 {
    let mut parameters = Parameters::open(document, bytes);
    LEAST_SCORE.set(parameters.number("score", 0.5, 0.0, 1.0) as f32);
    parameters.close() // refuses what was not asked for
}

#[no_mangle]
extern "C" fn postprocess(call: &mut abi::PostprocessCall) -> i32 {
    let output = match call.outputs() {
        [one] if one.is_floats(&[1, 0, 6]) => one,
        _ => return fail(abi::ERROR_INPUT, "expected one float32 output [1, rows, 6]"),
    };
    let (t, defects) = (call.transform, call.defects());
    let mut count = 0;
    for row in output.floats().chunks_exact(6) {
        // Dropping what is not a number would pass the part.
        if !row.iter().all(|value| value.is_finite()) {
            return fail(abi::ERROR_INPUT, "an output is not finite");
        }
        if row[4] < LEAST_SCORE.get() {
            continue;
        }
        if row[5] < 0.0 || row[5] > 1_000_000.0 {
            return fail(abi::ERROR_INPUT, "a label is out of range");
        }
        let found = abi::Defect {
            x0: (row[0] - t.offset_x) * t.scale_x,
            y0: (row[1] - t.offset_y) * t.scale_y,
            x1: (row[2] - t.offset_x) * t.scale_x,
            y1: (row[3] - t.offset_y) * t.scale_y,
            score: row[4],
            label: row[5] as i32,
        };
        count = insert(defects, count, found);
    }
    count as i32
}

/// Strongest first; when there is no room, the weakest goes.
fn insert(defects: &mut [abi::Defect], count: usize, found: abi::Defect) -> usize {
    let place = defects[..count].partition_point(|other| other.score >= found.score);
    if place == defects.len() {
        return count;
    }
    let kept = count.min(defects.len() - 1);
    defects.copy_within(place..kept, place + 1);
    defects[place] = found;
    kept + 1
}
