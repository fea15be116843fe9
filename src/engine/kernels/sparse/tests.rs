//! Every layout gives back what it was made of, is as long as reckoned, and is what compressed-tensors makes.

use super::*;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Rows of values of which about a share is +0; every 16th of the others is −0.
fn matrices() -> impl Strategy<Value = (Vec<u8>, usize, usize)> {
    let shape = (
        1usize..7,
        1usize..40,
        prop::sample::select(vec![1usize, 2, 4]),
        0u8..=100,
    );
    shape.prop_flat_map(|(rows, cols, width, zeros)| {
        let value = (any::<u32>(), 0u8..100).prop_map(move |(bits, at)| {
            let high = 0x80 << (8 * (width - 1));
            let bits = match (at < zeros, bits % 16) {
                (true, _) => 0,
                (_, 0) => high,
                _ => bits | 1,
            };
            bits.to_le_bytes()[..width].to_vec()
        });
        prop::collection::vec(value, rows * cols).prop_map(move |values| (values.concat(), width, cols))
    })
}

/// The same with no more than `keep` values in each run.
fn thinned(dense: &[u8], width: usize, cols: usize, (keep, of): (usize, usize)) -> (Vec<u8>, usize) {
    let cols = cols.next_multiple_of(of);
    let rows = dense.len().div_ceil(cols * width);
    let mut dense = dense.to_vec();
    dense.resize(rows * cols * width, 0);
    for run in dense.chunks_mut(of * width) {
        let mut kept = 0;
        for value in run.chunks_mut(width) {
            kept += usize::from(value.iter().any(|b| *b != 0));
            if kept > keep {
                value.fill(0);
            }
        }
    }
    (dense, cols)
}

fn matrix(dense: &[u8], width: usize, cols: usize) -> Matrix {
    Matrix {
        rows: dense.len() / (cols * width),
        cols,
        nonzero: mask::count(&mask::nonzero(dense, width, cols)),
        width,
    }
}

proptest! {
    #[test]
    fn what_a_mask_keeps_comes_back((dense, width, cols) in matrices(), more in 0usize..50) {
        let mut kept = mask::nonzero(&dense, width, cols);
        let matrix = matrix(&dense, width, cols);
        let size = Layout::Bitmask.bytes(&matrix).unwrap();
        let offsets = mask::row_offsets(&kept, cols);
        let values = mask::gather(&dense, width, cols, &kept);
        prop_assert_eq!(size, (kept.len() + values.len() + 8 * offsets.len()) as u64);
        let fits = matrix.nonzero + more <= matrix.rows * cols;
        prop_assert_eq!(mask::fill(&mut kept, cols, matrix.nonzero + more), fits);
        let values = mask::gather(&dense, width, cols, &kept);
        let mut back = vec![0; dense.len()];
        mask::scatter(&values, width, cols, &kept, &mut back).unwrap();
        prop_assert_eq!(&back, &dense);
        if more > 0 && fits {
            prop_assert!(!mask::fill(&mut kept, cols, matrix.nonzero));
        }
    }

    #[test]
    fn runs_come_back(
        (dense, width, cols) in matrices(), pattern in prop::sample::select(vec![(2, 4), (1, 2), (4, 8), (1, 4), (3, 5)])
    ) {
        let (dense, cols) = thinned(&dense, width, cols, pattern);
        let runs = runs::encode(&dense, width, cols, pattern).unwrap();
        let mut back = vec![0; dense.len()];
        runs::decode(&runs, width, cols, pattern, &mut back).unwrap();
        prop_assert_eq!(&back, &dense);
        let (keep, of) = pattern;
        let size = Layout::Runs { keep, of }.bytes(&matrix(&dense, width, cols));
        prop_assert_eq!(size, Some((runs.values.len() + runs.indices.len()) as u64));
    }

    #[test]
    fn compressed_rows_come_back((dense, width, cols) in matrices()) {
        let csr = csr::encode(&dense, width, cols);
        let mut back = vec![0; dense.len()];
        csr::decode(&csr, width, cols, &mut back).unwrap();
        prop_assert_eq!(&back, &dense);
        let bytes = csr.row_offsets.len() + csr.columns.len() + csr.values.len();
        prop_assert_eq!(Layout::Csr.bytes(&matrix(&dense, width, cols)), Some(bytes as u64));
    }

    #[test]
    fn no_layout_is_smaller_than_the_smallest((dense, width, cols) in matrices()) {
        let matrix = matrix(&dense, width, cols);
        let (layout, least) = smallest(&matrix, Some((2, 4)));
        prop_assert_eq!(layout.bytes(&matrix), Some(least));
        for other in [Layout::Dense, Layout::Runs { keep: 2, of: 4 }, Layout::Bitmask, Layout::Csr] {
            prop_assert!(other.bytes(&matrix).is_none_or(|bytes| bytes >= least));
        }
    }

    /// Whatever was changed, it is decoded or refused, and never outside of the matrix.
    #[test]
    fn damage_is_refused_or_decoded(
        (dense, width, cols) in matrices(), at in any::<prop::sample::Index>(), by in 1u8.., cut in 0usize..9
    ) {
        let spoil = |part: &mut Vec<u8>| {
            if !part.is_empty() {
                let at = at.index(part.len());
                part[at] = part[at].wrapping_add(by);
                part.truncate(part.len() - cut.min(part.len()));
            }
        };
        let mut back = vec![0; dense.len()];
        for part in 0..3 {
            let mut csr = csr::encode(&dense, width, cols);
            spoil([&mut csr.row_offsets, &mut csr.columns, &mut csr.values][part]);
            let _either = csr::decode(&csr, width, cols, &mut back);
        }
        let mut kept = mask::nonzero(&dense, width, cols);
        let values = mask::gather(&dense, width, cols, &kept);
        spoil(&mut kept);
        let _either = mask::scatter(&values, width, cols, &kept, &mut back);
        let (dense, cols) = thinned(&dense, width, cols, (3, 5));
        let mut runs = runs::encode(&dense, width, cols, (3, 5)).unwrap();
        spoil(&mut runs.indices);
        let _either = runs::decode(&runs, width, cols, (3, 5), &mut vec![0; dense.len()]);
    }
}

fn refused<T>(result: crate::error::Result<T>) -> &'static str {
    result.err().map_or("nothing", |error| error.code)
}

#[test]
fn what_does_not_keep_its_pattern_is_refused() {
    let dense: Vec<u8> = [0u16, 1, 2, 3, 1, 0, 0, 0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let error = runs::encode(&dense, 2, 8, (2, 4)).unwrap_err();
    assert_eq!(error.code, "pattern_does_not_hold");
    assert!(error.message.starts_with("row 0, columns 0 to 3: "), "{error}");
    assert!(runs::encode(&dense, 2, 8, (4, 8)).is_ok());
    assert_eq!(refused(runs::encode(&dense, 2, 8, (2, 3))), "internal");
}

/// −0 is kept where there is room for it, and gives way to what is not zero.
#[test]
fn zeros_with_a_sign_come_last() {
    let dense = [0u8, 0x80, 0, 0x80, 1, 2, 0x80, 0];
    assert_eq!(mask::of_runs(&dense, 1, 4, (2, 4)).unwrap(), [0b1010, 0b0011]);
    assert_eq!(mask::nonzero(&dense, 1, 4), [0b1010, 0b0111]);
}

#[test]
fn indices_that_do_not_ascend_are_refused() {
    let right = runs::encode(&[0, 5, 0, 6], 1, 4, (2, 4)).unwrap();
    assert_eq!(right.indices, [0b1101]);
    let decoded = |indices: u8| {
        let runs = runs::Runs {
            indices: vec![indices],
            ..right.clone()
        };
        runs::decode(&runs, 1, 4, (2, 4), &mut [0; 4])
    };
    assert!(decoded(0b1000).is_ok());
    for twice_or_back in [0b0101, 0b0111] {
        assert_eq!(refused(decoded(twice_or_back)), "invalid_sparse_matrix");
    }
}

#[test]
fn compressed_rows_that_lie_are_refused() {
    let right = csr::encode(&[0, 5, 6, 0, 0, 7], 1, 3);
    assert_eq!(
        (&right.row_offsets[..], &right.columns[..]),
        (&[0, 2, 3][..], &[1, 2, 2][..])
    );
    let with = |offsets: [u8; 3], columns: [u8; 3]| {
        let csr = csr::Csr {
            row_offsets: offsets.to_vec(),
            columns: columns.to_vec(),
            ..right.clone()
        };
        refused(csr::decode(&csr, 1, 3, &mut [0; 6]))
    };
    assert_eq!(with([0, 1, 3], [1, 0, 2]), "nothing");
    for (offsets, columns) in [
        ([1, 2, 3], [1, 2, 2]),
        ([0, 3, 2], [1, 2, 2]),
        ([0, 2, 9], [1, 2, 2]),
        ([0, 2, 2], [1, 2, 2]),
        ([0, 2, 3], [2, 1, 2]),
        ([0, 2, 3], [1, 3, 2]),
    ] {
        assert_eq!(
            with(offsets, columns),
            "invalid_sparse_matrix",
            "{offsets:?} {columns:?}"
        );
    }
}

#[test]
fn bits_behind_a_row_are_refused() {
    let decoded = |mask: u8| mask::scatter(&[1, 2], 1, 3, &[mask], &mut [0; 3]);
    assert!(decoded(0b101).is_ok());
    for mask in [0b1001, 0b111] {
        assert_eq!(refused(decoded(mask)), "invalid_sparse_matrix");
    }
}

/// What is smallest depends on how many are left.
#[test]
fn the_smallest_layout_follows_the_share_of_zeros() {
    let of = |nonzero: usize, pattern| {
        let matrix = Matrix {
            rows: 1024,
            cols: 1024,
            nonzero: nonzero << 10,
            width: 2,
        };
        smallest(&matrix, pattern).0
    };
    let two_four = Layout::Runs { keep: 2, of: 4 };
    assert_eq!(of(1000, None), Layout::Dense);
    assert_eq!(of(512, None), Layout::Bitmask);
    assert_eq!(of(512, Some((2, 4))), two_four);
    assert_eq!(of(100, Some((2, 4))), Layout::Bitmask);
    assert_eq!(of(10, None), Layout::Csr);
}

/// Values of the golden file's matrices: two of four, at places and with bits that a formula gives.
fn golden(rows: usize, cols: usize, width: usize) -> Vec<u8> {
    const PAIRS: [[usize; 2]; 6] = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
    let mut dense = vec![0; rows * cols * width];
    for (at, run) in dense.chunks_exact_mut(4 * width).enumerate() {
        let (row, group) = (at * 4 / cols, at * 4 % cols / 4);
        for column in PAIRS[(5 * row + 3 * group + row * group % 7) % 6] {
            let bits = (0x3f80 + (31 * row + 17 * (4 * group + column)) % 128) as u16
                | (((row + column) % 2) << 15) as u16;
            let place = &mut run[column * width..(column + 1) * width];
            // Of f32 the upper half.
            place[width - 2..].copy_from_slice(&bits.to_le_bytes());
        }
    }
    dense
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _always = write!(text, "{byte:02x}");
    }
    text
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[test]
fn masks_values_and_indices_are_those_of_compressed_tensors() {
    let file: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let cases = file["matrices"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let number = |field: &str| case[field].as_u64().unwrap() as usize;
        let (rows, cols, width) = (number("rows"), number("cols"), number("width"));
        let dense = golden(rows, cols, width);
        assert_eq!(sha256(&dense), case["dense_sha256"], "{case}");
        let two_four = mask::of_runs(&dense, width, cols, (2, 4)).unwrap();
        let kept = mask::nonzero(&dense, width, cols);
        assert_eq!(two_four, kept);
        assert_eq!(sha256(&kept), case["bitmask_sha256"]);
        assert_eq!(hex(&kept[..mask::row_bytes(cols)]), case["bitmask_row0"]);
        let values = mask::gather(&dense, width, cols, &kept);
        assert_eq!(sha256(&values), case["compressed_sha256"]);
        let offsets: Vec<u8> = mask::row_offsets(&kept, cols)
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        assert_eq!(sha256(&offsets), case["row_offsets_sha256"]);
        let runs = runs::encode(&dense, width, cols, (2, 4)).unwrap();
        if let Some(indices) = case["indices_sha256"].as_str() {
            assert_eq!(sha256(&runs.indices), indices);
            assert_eq!(hex(&runs.indices[..8]), case["indices_row0"]);
        }
        let mut back = vec![0; dense.len()];
        mask::scatter(&runs.values, width, cols, &kept, &mut back).unwrap();
        assert_eq!(back, dense);
    }
}
