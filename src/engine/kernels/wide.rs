//! Wider instructions where the CPU has them.
//!
//! Owns: the one place that promises a CPU feature to the compiler. Must not know: what the functions compute.
//! Invariant: every variant gives the same bits. Rust never fuses a multiplication with an addition by itself,
//! and vectors do per lane what scalars do, so the variants differ in speed only.

/// Declares a function that is compiled for AVX-512, for AVX2 and for the baseline, and picked at run time.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn baseline($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
                fn avx512($($arg: $ty),*) {
                    baseline($($arg),*);
                }
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($arg: $ty),*) {
                    baseline($($arg),*);
                }
                if std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    #[expect(unsafe_code, reason = "a function with target features is called")]
                    // SAFETY: the CPU has the features the function is compiled for: it was asked just above.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
                    #[expect(unsafe_code, reason = "a function with target features is called")]
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            baseline($($arg),*);
        }
    };
}

pub(crate) use wide;
