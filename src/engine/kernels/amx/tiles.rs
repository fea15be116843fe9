//! The tile units themselves.
//!
//! Owns: whether they are there, their configuration, the product of one block. Must not know: matrices.
//! Invariant: tile registers are used only between configuring and releasing them, within one call.

use super::pack::Line;
use crate::kernels::wide;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Rows and columns of a block, and how much of the inner dimension one step takes.
pub(super) const SIDE: usize = 32;
/// Lines of one step of a panel: two tiles of 16 lines with the larger parts, two with the smaller ones.
pub(super) const LINES: usize = 64;

/// True where the CPU has these units and the kernel lets this process use them.
pub(in crate::kernels) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let bit = |register: u32, at: u32| register >> at & 1 == 1;
        let (features, more) = (__cpuid_count(7, 0), __cpuid_count(7, 1));
        bit(features.edx, 22)
            && bit(features.edx, 24)
            && bit(more.eax, 5)
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
            && permitted()
    })
}

/// Asks the kernel for the registers, once for all threads of the process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
fn permitted() -> bool {
    let answer: i64;
    #[expect(unsafe_code, reason = "a system call that has no binding")]
    // SAFETY: the call takes two numbers and touches no memory of ours; it changes rcx and r11, as all do.
    unsafe {
        asm!(
            "syscall",
            inout("rax") 158i64 => answer,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Configured tile registers of this thread.
pub(super) struct Tiles(PhantomData<*const ()>);

/// Palette 1, and eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

const CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

impl Tiles {
    /// # Panics
    /// Where there are none.
    pub(super) fn configure() -> Self {
        assert!(available(), "no tile units");
        #[expect(unsafe_code, reason = "an instruction without an intrinsic")]
        // SAFETY: the CPU has the instruction, and the kernel lets us use the registers; it reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly));
        }
        Self(PhantomData)
    }

    /// The product of two panels: 32 rows of the left side, 32 columns of the right one.
    ///
    /// # Panics
    /// Where the panels are not of one depth.
    #[expect(
        clippy::unused_self,
        reason = "that it is there says that the registers are configured"
    )]
    pub(super) fn multiply(&self, left: &[Line], right: &[Line], block: &mut Block) {
        let steps = left.len() / LINES;
        assert!(
            steps > 0 && left.len() == steps * LINES && right.len() == left.len(),
            "depth of panels"
        );
        #[expect(unsafe_code, reason = "instructions without intrinsics")]
        // SAFETY: the tiles are configured while `self` lives. Each step reads 4,096 bytes of either panel, which have
        // as many steps; a block is 4,096 bytes. Nobody else uses tile registers.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                // The larger parts of the left side with the smaller ones of the right.
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{b} + {line} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The larger parts of both.
                "tileloadd tmm7, [{b} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{a} + {line} + 2048]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The smaller parts of the left side with the larger ones of the right.
                "tileloadd tmm5, [{a} + {line} + 3072]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 4096",
                "add {b}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {row}], tmm0",
                "tilestored [{c} + {row} + 64], tmm1",
                "tilestored [{c} + {row} + 2048], tmm2",
                "tilestored [{c} + {row} + 2112], tmm3",
                a = inout(reg) left.as_ptr() => _,
                b = inout(reg) right.as_ptr() => _,
                steps = inout(reg) steps => _,
                c = in(reg) block.values.as_mut_ptr(),
                line = in(reg) 64usize,
                row = in(reg) 128usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "an instruction without an intrinsic")]
        // SAFETY: the CPU has it, or there would be no value to drop.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// 32 by 32 results, of which `rows` are wanted.
#[repr(C, align(64))]
pub(super) struct Block {
    values: [f32; SIDE * SIDE],
    pub(super) rows: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            values: [0.0; SIDE * SIDE],
            rows: SIDE,
        }
    }
}

impl Block {
    /// Adds it to `out`, whose rows lie `stride` apart and of which `cols` columns are left.
    pub(super) fn add(&self, out: &mut [f32], stride: usize, cols: usize) {
        add_rows(&self.values, self.rows, out, stride, cols.min(SIDE));
    }

    /// Adds it to what [`Block::write`] has written there.
    pub(super) fn add_again(&self, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        add_again(&self.values, self.rows, out, stride, cols.min(SIDE));
    }

    /// Writes it there.
    pub(super) fn write(&self, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        write_rows(&self.values, self.rows, out, stride, cols.min(SIDE));
    }
}

wide! {
    fn write_rows(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                to.write(*from);
            }
        }
    }
}

wide! {
    fn add_rows(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [f32], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                *to += from;
            }
        }
    }
}

wide! {
    /// The same where numbers were written before, but not in all of `out`.
    fn add_again(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                #[expect(unsafe_code, reason = "numbers that were written through the same slice")]
                // SAFETY: who calls has written this rectangle.
                let before = unsafe { to.assume_init() };
                to.write(before + from);
            }
        }
    }
}
