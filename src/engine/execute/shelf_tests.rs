//! What is put on the shelf comes back.

use super::*;
use crate::kernels::nf4;
use crate::tensor::{DType, MemoryRows};
use crate::weight::{Affine, Corrected, Granularity, LowRank};

#[test]
fn what_is_put_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::at(folder.path());
    let affine = Affine {
        rows: 2,
        cols: 4,
        n_bits: 3,
        symmetric: false,
        granularity: Granularity::Group(2),
        scale_dtype: DType::BF16,
        codes: vec![0, 1, 2, 3, 10, 5, 6, 7],
        scales: vec![0.1, -0.2, 3.0, f32::MIN_POSITIVE],
        zeros: vec![1, 2, 3, 4],
        g_idx: vec![1, 0, 0, 1],
    };
    shelf.put(1, 7, &Weight::Affine(affine.clone())).unwrap();
    let Weight::Affine(back) = shelf.get(1, 7).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(
        (back.codes, back.scales, back.zeros, back.g_idx),
        (affine.codes, affine.scales, affine.zeros, affine.g_idx)
    );
    assert_eq!((back.granularity, back.n_bits), (Granularity::Group(2), 3));
    assert!(shelf.get(0, 7).is_err());
    let path = folder.path().join("weights/1-7");
    let cut = std::fs::read(&path).unwrap();
    std::fs::write(&path, &cut[..cut.len() - 1]).unwrap();
    assert!(shelf.get(1, 7).is_err());
}

#[test]
fn scales_come_back_each_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::at(folder.path());
    shelf.put_scale(1, 2, Scale::Input, 0.25).unwrap();
    shelf.put_scale(1, 2, Scale::Cache, 3.5).unwrap();
    assert_eq!(shelf.scale(1, 2, Scale::Input).unwrap(), 0.25);
    assert_eq!(shelf.scale(1, 2, Scale::Cache).unwrap(), 3.5);
    assert!(shelf.scale(0, 2, Scale::Input).is_err());
}

#[test]
fn squares_come_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::at(folder.path());
    let squares = InputSquares {
        sums: vec![1.0, 2.0, 0.5, 4.0],
        counts: vec![3.0, 0.0],
    };
    shelf.put_squares(0, 3, &squares).unwrap();
    assert_eq!(shelf.squares(0, 3).unwrap(), squares);
    std::fs::write(folder.path().join("weights/0-3-squares"), [9; 9]).unwrap();
    assert!(shelf.squares(0, 3).is_err() && shelf.squares(1, 3).is_err());
}

#[test]
fn codes_and_the_product_beside_them_come_back_together() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::at(folder.path());
    let values: Vec<f32> = (0..6 * 80).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let input = MemoryRows {
        values: &values,
        cols: 80,
    };
    let plain = nf4::quantize(&input, 64, DType::BF16).unwrap();
    for base in [plain.clone(), nf4::nest(plain)] {
        let product = LowRank {
            rows: 6,
            cols: 80,
            rank: 2,
            dtype: DType::BF16,
            left: values[..12].to_vec(),
            right: values[12..12 + 160].to_vec(),
        };
        let weight = Weight::Corrected(Corrected { base, product });
        shelf.put(0, 3, &weight).unwrap();
        let back = shelf.get(0, 3).unwrap();
        // Every field at once, floats by their shortest spelling, which is exact.
        assert_eq!(format!("{back:?}"), format!("{weight:?}"));

        let path = folder.path().join("weights/0-3");
        let mut more = std::fs::read(&path).unwrap();
        more.push(0);
        std::fs::write(&path, more).unwrap();
        assert!(shelf.get(0, 3).is_err());
    }
}
