//! What a Rust guest imports: the ABI's structs, its parameters, an error text.
//!
//! `no_std`, and without allocation: the host allocates at set-up only and gives nothing back, so
//! a bump allocator over what the linker left free is all it takes.
#![no_std]

pub mod abi;
mod parameters;

use core::cell::Cell;
use core::fmt::Write;
pub use parameters::Parameters;

/// A variable of the guest. A guest has one thread and one call at a time.
pub struct Global<T: Copy>(Cell<T>);

unsafe impl<T: Copy> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    pub fn get(&self) -> T {
        self.0.get()
    }

    pub fn set(&self, value: T) {
        self.0.set(value)
    }
}

/// What the host laid at an address, for the length of a call; empty where there is nothing.
pub(crate) unsafe fn slice<T>(at: *mut T, count: usize) -> &'static mut [T] {
    if at.is_null() {
        return &mut [];
    }
    core::slice::from_raw_parts_mut(at, count)
}

impl abi::Image {
    /// A row of pixels, `width` times the format's channels; no row where there is no image.
    pub fn row(&self, y: u32, channels: u32) -> &'static [u8] {
        let begin = self.data.wrapping_add(y as usize * self.stride as usize);
        let count = (self.width * channels) as usize;
        if self.data.is_null() || y >= self.height {
            return &[];
        }
        unsafe { slice(begin, count) }
    }
}

impl abi::Tensor {
    /// Whether it is float32 of this shape; 0 stands for any length.
    pub fn is_floats(&self, shape: &[u32]) -> bool {
        let fits = |(&wanted, &found)| wanted == 0 || wanted == found;
        self.dtype == abi::DTYPE_FLOAT32
            && self.rank as usize == shape.len()
            && shape.iter().zip(&self.dims).all(fits)
    }

    /// Its elements; empty where it is of another type.
    pub fn floats(&self) -> &'static mut [f32] {
        let count = if self.dtype == abi::DTYPE_FLOAT32 {
            self.bytes / 4
        } else {
            0
        };
        unsafe { slice(self.data.cast(), count as usize) }
    }
}

/// A reason as the decision holds it: at most 31 bytes, then zeros.
pub fn reason(code: &str) -> [u8; abi::REASON_BYTES as usize] {
    let mut text = [0; abi::REASON_BYTES as usize];
    let count = code.len().min(text.len() - 1);
    text[..count].copy_from_slice(&code.as_bytes()[..count]);
    text
}

// --- the error text --------------------------------------------------------------------------

const TEXT_BYTES: usize = abi::MAX_ERROR_BYTES as usize + 1;
static TEXT: Global<[u8; TEXT_BYTES]> = Global::new([0; TEXT_BYTES]);

struct Sentence {
    text: [u8; TEXT_BYTES],
    length: usize,
}

impl Write for Sentence {
    fn write_str(&mut self, part: &str) -> core::fmt::Result {
        for &byte in part.as_bytes() {
            if self.length < TEXT_BYTES - 1 {
                self.text[self.length] = byte.max(b' ');
                self.length += 1;
            }
        }
        Ok(())
    }
}

/// Sets the error text, cut at its end.
pub(crate) fn say(sentence: core::fmt::Arguments) {
    let mut said = Sentence {
        text: [0; TEXT_BYTES],
        length: 0,
    };
    let _ = said.write_fmt(sentence);
    TEXT.set(said.text);
}

/// Sets the error text and returns the code: `return edge::fail(...)`.
pub fn fail(code: i32, sentence: &str) -> i32 {
    say(format_args!("{sentence}"));
    code
}

#[no_mangle]
extern "C" fn edge_error() -> *const u8 {
    TEXT.0.as_ptr().cast()
}

// --- the runtime -----------------------------------------------------------------------------

#[no_mangle]
extern "C" fn edge_abi() -> u32 {
    abi::ABI_MAJOR << 16 // no later addition is needed
}

extern "C" {
    static __heap_base: u8; // set by the linker: first byte behind stack and globals
}
static HEAP_NEXT: Global<u32> = Global::new(0);

#[no_mangle]
extern "C" fn edge_alloc(bytes: u32, alignment: u32) -> u32 {
    if !alignment.is_power_of_two() || alignment > 4096 {
        return 0;
    }
    let heap = &raw const __heap_base as u32;
    let next = u64::from(HEAP_NEXT.get().max(heap));
    let begin = next.next_multiple_of(u64::from(alignment));
    let end = begin + u64::from(bytes);
    if end > core::arch::wasm32::memory_size(0) as u64 * 65536 {
        return 0;
    }
    HEAP_NEXT.set(end as u32);
    begin as u32
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
