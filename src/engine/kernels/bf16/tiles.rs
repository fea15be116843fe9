//! The tile units (Intel AMX).
//!
//! Owns: whether they are there, their configuration, the product of one block. Must not know: matrices.
//! Invariant: tile registers are used only between configuring and releasing them, within one call.

use super::Parts;
use super::block::{Block, steps};
use super::pack::Line;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// True where the CPU has these units and the kernel lets this process use them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let bit = |register: u32, at: u32| register >> at & 1 == 1;
        let (features, more) = (__cpuid_count(7, 0), __cpuid_count(7, 1));
        bit(features.edx, 22)
            && bit(features.edx, 24)
            && bit(more.eax, 5)
            && super::pairs::available()
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

    /// The product of two panels of one part: 32 rows of the left side, 32 columns of the right one.
    ///
    /// # Panics
    /// Where the panels are not of one depth.
    #[expect(
        clippy::unused_self,
        reason = "that it is there says that the registers are configured"
    )]
    pub(super) fn multiply(&self, left: &[Line], right: &[Line], block: &mut Block) {
        let steps = steps(left, right, Parts::One);
        #[expect(unsafe_code, reason = "instructions without intrinsics")]
        // SAFETY: the tiles are configured while `self` lives. Each step reads 2,048 bytes of either panel, which have
        // as many steps; a block is 4,096 bytes. Nobody else uses tile registers.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
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

    /// The same of panels of two parts.
    ///
    /// # Panics
    /// Where the panels are not of one depth.
    #[expect(
        clippy::unused_self,
        reason = "that it is there says that the registers are configured"
    )]
    pub(super) fn multiply_split(&self, left: &[Line], right: &[Line], block: &mut Block) {
        let steps = steps(left, right, Parts::Two);
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
