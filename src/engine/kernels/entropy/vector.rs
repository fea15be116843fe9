//! Rows of lanes with AVX-512: sixteen states a register.
//!
//! Owns: the same walk as `lanes`, for whole rows whose words are all there. Must not know: tables' meaning beyond the
//! formulas of `rans` and `huffman`.
//! Invariant: the same bytes as plain Rust. What is not worth a wide row (the ends of a chunk) is left to it.

use super::lanes::{LANES, Reader, Writer};
use super::{groups, huffman, rans};
use std::arch::x86_64::{
    __m512i, __mmask16, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi16, _mm256_loadu_si256,
    _mm256_permutexvar_epi16, _mm256_set_epi16, _mm256_set1_epi16, _mm256_storeu_si256, _mm512_add_epi32,
    _mm512_and_si512, _mm512_cmpgt_epu32_mask, _mm512_cmplt_epu32_mask, _mm512_cvtepi32_epi8,
    _mm512_cvtepi32_epi16, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_i32gather_epi32,
    _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_mask_srli_epi32, _mm512_maskz_compress_epi32,
    _mm512_maskz_expand_epi32, _mm512_mul_epu32, _mm512_mullo_epi32, _mm512_or_si512,
    _mm512_permutex2var_epi32, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_srlv_epi32,
    _mm512_storeu_si512, _mm512_sub_epi32, _mm512_test_epi32_mask,
};

/// Registers of a row.
const GROUPS: usize = LANES / 16;

/// Whether the CPU has what the functions below are compiled for.
fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

pub(super) fn put_rans(code: &rans::Encoder, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    if !available() {
        return symbols.len();
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: the CPU has the features the function is compiled for: it was asked just above.
    unsafe {
        put_rans_rows(code, writer, symbols)
    }
}

pub(super) fn put_huffman(code: &huffman::Encoder, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    if !available() {
        return symbols.len();
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: as above.
    unsafe {
        put_huffman_rows(code, writer, symbols)
    }
}

pub(super) fn take_rans(code: &rans::Decoder, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
    if !available() {
        return 0;
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: as above.
    unsafe {
        if code.size <= rans::FEW {
            take_few_rows(code, reader, symbols)
        } else {
            take_rans_rows(code, reader, symbols)
        }
    }
}

pub(super) fn take_huffman(code: &huffman::Decoder, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
    if !available() {
        return 0;
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: as above.
    unsafe {
        take_huffman_rows(code, reader, symbols)
    }
}

pub(super) fn put_groups(code: &groups::Encoder, writer: &mut Writer<'_>, symbols: &[u16]) -> usize {
    if !available() {
        return symbols.len();
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: as above.
    unsafe {
        put_groups_rows(code, writer, symbols)
    }
}

pub(super) fn take_groups(code: &groups::Decoder, reader: &mut Reader<'_>, symbols: &mut [u16]) -> usize {
    if !available() {
        return 0;
    }
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: as above.
    unsafe {
        take_groups_rows(code, reader, symbols)
    }
}

/// Reads sixteen words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn words(from: &[[u8; 2]; 16]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the 32 bytes of the array, at any alignment.
    let loaded = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
    _mm512_cvtepu16_epi32(loaded)
}

/// Sixteen bytes, one in each number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn widened(from: &[u8; 16]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the 16 bytes of the array, at any alignment.
    let loaded = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    _mm512_cvtepu8_epi32(loaded)
}

/// The lowest byte of each number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn narrowed(from: __m512i, into: &mut [u8; 16]) {
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes the 16 bytes of the array, at any alignment.
    unsafe {
        _mm_storeu_si128(into.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(from));
    }
}

/// Sixteen groups, one in each number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn widened_groups(from: &[u16; 16]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the 32 bytes of the array, at any alignment.
    let loaded = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
    _mm512_cvtepu16_epi32(loaded)
}

/// The lower half of each number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn narrowed_groups(from: __m512i, into: &mut [u16; 16]) {
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes the 32 bytes of the array, at any alignment.
    unsafe {
        _mm256_storeu_si256(into.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(from));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn numbers(from: &[u32; 16]) -> __m512i {
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: it reads the 64 bytes of the array, at any alignment.
    unsafe {
        _mm512_loadu_si512(from.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn stored(from: __m512i, into: &mut [u32; 16]) {
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: it writes the 64 bytes of the array, at any alignment.
    unsafe {
        _mm512_storeu_si512(into.as_mut_ptr().cast(), from);
    }
}

/// Entries of a table by byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn looked_up(table: &[u32; 256], at: __m512i) -> __m512i {
    let at = _mm512_and_si512(at, _mm512_set1_epi32(255));
    #[expect(unsafe_code, reason = "a gather through a pointer")]
    // SAFETY: every index is below 256, so that each of the reads is inside of the table.
    unsafe {
        _mm512_i32gather_epi32::<4>(at, table.as_ptr().cast())
    }
}

/// The rank of each slot, below 2¹⁴.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn ranked(code: &rans::Decoder, slots: __m512i) -> __m512i {
    let slots = _mm512_and_si512(slots, _mm512_set1_epi32(rans::TOTAL as i32 - 1));
    #[expect(unsafe_code, reason = "a gather through a pointer")]
    // SAFETY: every index is below 2¹⁴; four bytes from there on are inside of the table, which has three more.
    let found = unsafe { _mm512_i32gather_epi32::<1>(slots, code.ranks.as_ptr().cast()) };
    _mm512_and_si512(found, _mm512_set1_epi32(255))
}

/// The entry of the lowest twelve bits of each state.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn entries(code: &huffman::Decoder, states: __m512i) -> __m512i {
    let at = _mm512_and_si512(states, _mm512_set1_epi32(huffman::ENTRIES as i32 - 1));
    #[expect(unsafe_code, reason = "a gather through a pointer")]
    // SAFETY: every index is below 2¹²; two entries from there on are inside of the table, which has one more.
    unsafe {
        _mm512_i32gather_epi32::<2>(at, code.entries.as_ptr().cast())
    }
}

/// The entry of the lowest bits of each state, as many as the code takes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn group_entries(code: &groups::Decoder, states: __m512i) -> __m512i {
    let mask = code.mask.min(groups::ENTRIES as u32 - 1);
    let at = _mm512_and_si512(states, _mm512_set1_epi32(mask as i32));
    #[expect(unsafe_code, reason = "a gather through a pointer")]
    // SAFETY: every index is below 2¹⁵; two entries from there on are inside of the table, which has one more.
    unsafe {
        _mm512_i32gather_epi32::<2>(at, code.entries.as_ptr().cast())
    }
}

/// The codes of groups.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn group_codes(code: &groups::Encoder, at: __m512i) -> __m512i {
    let at = _mm512_and_si512(at, _mm512_set1_epi32(groups::MOST as i32 - 1));
    #[expect(unsafe_code, reason = "a gather through a pointer")]
    // SAFETY: every index is below 2¹², so that each of the reads is inside of the table.
    unsafe {
        _mm512_i32gather_epi32::<4>(at, code.codes.as_ptr().cast())
    }
}

/// What is left of states after a symbol of these steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn reduced(states: __m512i, slots: __m512i, steps: __m512i) -> __m512i {
    let low = _mm512_set1_epi32(rans::TOTAL as i32 - 1);
    let frequencies = _mm512_add_epi32(_mm512_srli_epi32::<{ rans::BITS }>(steps), _mm512_set1_epi32(1));
    let times = _mm512_mullo_epi32(frequencies, _mm512_srli_epi32::<{ rans::BITS }>(states));
    _mm512_add_epi32(times, _mm512_sub_epi32(slots, _mm512_and_si512(steps, low)))
}

/// Takes rows while a row's words are there, however many it needs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn take_rows<Symbol>(
    reader: &mut Reader<'_>,
    symbols: &mut [Symbol],
    take: impl Fn(__m512i) -> (__m512i, __m512i),
    narrow: impl Fn(__m512i, &mut [Symbol; 16]),
) -> usize {
    let lower = _mm512_set1_epi32(super::lanes::LOWER as i32);
    let mut states = [_mm512_setzero_si512(); GROUPS];
    for (state, from) in states.iter_mut().zip(reader.states.as_chunks().0) {
        *state = numbers(from);
    }
    let (mut left, mut done) = (reader.words, 0);
    for row in symbols.as_chunks_mut::<LANES>().0 {
        if left.len() < LANES {
            break;
        }
        for (state, symbols) in states.iter_mut().zip(row.as_chunks_mut().0) {
            let Some(window) = left.first_chunk() else { break };
            let (taken, next) = take(*state);
            let refills = _mm512_cmplt_epu32_mask(next, lower);
            let fresh = _mm512_maskz_expand_epi32(refills, words(window));
            let wide = _mm512_or_si512(_mm512_slli_epi32::<16>(next), fresh);
            *state = _mm512_mask_mov_epi32(next, refills, wide);
            narrow(taken, symbols);
            left = &left[refills.count_ones() as usize..];
        }
        done += LANES;
    }
    for (state, into) in states.iter().zip(reader.states.as_chunks_mut().0) {
        stored(*state, into);
    }
    reader.words = left;
    done
}

/// Tables in registers: the steps of 32 ranks, and their symbols.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn take_few_rows(code: &rans::Decoder, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
    let tables = code.steps.as_chunks().0;
    let steps = [numbers(&tables[0]), numbers(&tables[1])];
    let mut pairs = [0; 16];
    for (pair, two) in pairs.iter_mut().zip(code.symbols.as_chunks::<2>().0) {
        *pair = u32::from(two[0]) | u32::from(two[1]) << 16;
    }
    let names = numbers(&pairs);
    let take = |states| {
        let slots = _mm512_and_si512(states, _mm512_set1_epi32(rans::TOTAL as i32 - 1));
        let ranks = ranked(code, slots);
        let next = reduced(
            states,
            slots,
            _mm512_permutex2var_epi32(steps[0], ranks, steps[1]),
        );
        (_mm512_permutexvar_epi16(ranks, names), next)
    };
    take_rows(reader, symbols, take, |from, into| narrowed(from, into))
}

/// Tables in memory; there a rank is the symbol itself.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn take_rans_rows(code: &rans::Decoder, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
    let take = |states| {
        let slots = _mm512_and_si512(states, _mm512_set1_epi32(rans::TOTAL as i32 - 1));
        let ranks = ranked(code, slots);
        (ranks, reduced(states, slots, looked_up(&code.steps, ranks)))
    };
    take_rows(reader, symbols, take, |from, into| narrowed(from, into))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn take_huffman_rows(code: &huffman::Decoder, reader: &mut Reader<'_>, symbols: &mut [u8]) -> usize {
    let take = |states| {
        let found = entries(code, states);
        let lengths = _mm512_and_si512(_mm512_srli_epi32::<8>(found), _mm512_set1_epi32(15));
        (found, _mm512_srlv_epi32(states, lengths))
    };
    take_rows(reader, symbols, take, |from, into| narrowed(from, into))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn take_groups_rows(code: &groups::Decoder, reader: &mut Reader<'_>, symbols: &mut [u16]) -> usize {
    let take = |states| {
        let found = group_entries(code, states);
        let lengths = _mm512_and_si512(_mm512_srli_epi32::<12>(found), _mm512_set1_epi32(15));
        let taken = _mm512_and_si512(found, _mm512_set1_epi32(groups::MOST as i32 - 1));
        (taken, _mm512_srlv_epi32(states, lengths))
    };
    take_rows(reader, symbols, take, |from, into| narrowed_groups(from, into))
}

/// Puts rows from the last to the first while there is room for a row's words. `put` gives which states overflow, and
/// the states, made room in, with the symbols.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn put_rows<Symbol, Row>(
    writer: &mut Writer<'_>,
    symbols: &[Symbol],
    widen: impl Fn(&[Symbol; 16]) -> __m512i,
    find: impl Fn(__m512i, __m512i) -> (__mmask16, Row),
    put: impl Fn(__m512i, Row) -> __m512i,
) -> usize {
    let mut states = [_mm512_setzero_si512(); GROUPS];
    for (state, from) in states.iter_mut().zip(writer.states.as_chunks().0) {
        *state = numbers(from);
    }
    let mut left = symbols;
    while let Some((rest, row)) = left.split_last_chunk::<LANES>() {
        if writer.at < 2 * LANES {
            break;
        }
        for (state, symbols) in states.iter_mut().zip(row.as_chunks().0).rev() {
            let (overflows, found) = find(*state, widen(symbols));
            let words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(overflows, *state));
            let Some(front) = writer.bytes[..writer.at].last_chunk_mut::<32>() else {
                break;
            };
            // The words go to the end of the 32 bytes; what comes before them is written over later.
            let count = overflows.count_ones();
            let order = _mm256_add_epi16(
                _mm256_set_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                _mm256_set1_epi16(count as i16),
            );
            #[expect(unsafe_code, reason = "a store through a pointer")]
            // SAFETY: it writes the 32 bytes of the array, at any alignment.
            unsafe {
                _mm256_storeu_si256(front.as_mut_ptr().cast(), _mm256_permutexvar_epi16(order, words));
            }
            writer.at -= 2 * count as usize;
            let roomy = _mm512_mask_srli_epi32::<16>(*state, overflows, *state);
            *state = put(roomy, found);
        }
        left = rest;
    }
    for (state, into) in states.iter().zip(writer.states.as_chunks_mut().0) {
        stored(*state, into);
    }
    left.len()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn put_rans_rows(code: &rans::Encoder, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    let low = _mm512_set1_epi32(rans::TOTAL as i32 - 1);
    let find = |states, symbols| {
        let steps = looked_up(&code.steps, symbols);
        let inverses = looked_up(&code.inverses, symbols);
        let less = _mm512_and_si512(_mm512_srli_epi32::<{ rans::BITS }>(steps), low);
        let overflows = _mm512_cmpgt_epu32_mask(_mm512_srli_epi32::<{ 32 - rans::BITS }>(states), less);
        (overflows, (steps, inverses, less))
    };
    let put = |states, (steps, inverses, less)| {
        let more = _mm512_add_epi32(states, _mm512_set1_epi32(1));
        let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(more, inverses));
        let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(more), _mm512_srli_epi64::<32>(inverses));
        let products = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
        let quotients = _mm512_srlv_epi32(products, _mm512_srli_epi32::<{ 2 * rans::BITS }>(steps));
        let others = _mm512_mullo_epi32(quotients, _mm512_sub_epi32(low, less));
        _mm512_add_epi32(_mm512_add_epi32(states, _mm512_and_si512(steps, low)), others)
    };
    put_rows(writer, symbols, |from| widened(from), find, put)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn put_huffman_rows(code: &huffman::Encoder, writer: &mut Writer<'_>, symbols: &[u8]) -> usize {
    let find = |states, symbols| bits(states, looked_up(&code.codes, symbols));
    put_rows(
        writer,
        symbols,
        |from| widened(from),
        find,
        |states, row| pushed(states, row),
    )
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
fn put_groups_rows(code: &groups::Encoder, writer: &mut Writer<'_>, symbols: &[u16]) -> usize {
    let find = |states, symbols| bits(states, group_codes(code, symbols));
    put_rows(
        writer,
        symbols,
        |from| widened_groups(from),
        find,
        |states, row| pushed(states, row),
    )
}

/// Which states have no room for prefix codes, and these codes beside their lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn bits(states: __m512i, codes: __m512i) -> (__mmask16, (__m512i, __m512i)) {
    let lengths = _mm512_srli_epi32::<16>(codes);
    let above = _mm512_srlv_epi32(states, _mm512_sub_epi32(_mm512_set1_epi32(32), lengths));
    (_mm512_test_epi32_mask(above, above), (codes, lengths))
}

/// States with prefix codes pushed at their low ends.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn pushed(states: __m512i, (codes, lengths): (__m512i, __m512i)) -> __m512i {
    let low = _mm512_and_si512(codes, _mm512_set1_epi32(0xffff));
    _mm512_or_si512(_mm512_sllv_epi32(states, lengths), low)
}
