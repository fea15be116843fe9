//! Codebooks of short vectors: which entry a vector of levels is, or which entries are near it.
//!
//! Owns: the tables behind a codebook, made once when a type is first written. Must not know: blocks, scales.
//! Invariant: an entry's neighbours are those at the nearest few distances, nearest first and then in the codebook's
//! order; of two that fit equally well the earlier is taken. The reference's bytes depend on that order.
#![expect(
    clippy::needless_range_loop,
    clippy::needless_bitwise_bool,
    reason = "loops over lanes are written so that they vectorise"
)]

/// A codebook of vectors of `D` digits, its neighbours looked through `W` at a time.
pub(super) struct Lattice<const D: usize, const W: usize> {
    /// Levels of each entry: digit `d` is level `2d + 1`.
    levels: Vec<[u8; D]>,
    /// For each vector of digits, the first digit changing fastest.
    points: Vec<Point>,
    batches: Vec<Batch<D, W>>,
    base: usize,
}

#[derive(Clone, Copy)]
enum Point {
    /// It is this entry.
    Entry(u16),
    /// Its neighbours are these batches.
    Near { first: u32, count: u32 },
}

/// `W` neighbours, element by element. The last batch of a point is filled up with its first neighbour.
struct Batch<const D: usize, const W: usize> {
    levels: [[u8; W]; D],
    entries: [u16; W],
}

/// What a codebook makes of a vector.
#[derive(Clone, Copy)]
pub(super) struct Match {
    pub entry: u16,
    /// The rounded vector is an entry itself.
    pub exact: bool,
}

impl<const D: usize, const W: usize> Lattice<D, W> {
    /// `entries` in digits of `bits` bits, below `base`; neighbours at the nearest `distances` different distances.
    pub(super) fn new(entries: &[u16], bits: usize, base: usize, distances: usize) -> Self {
        let digits: Vec<[u8; D]> = entries
            .iter()
            .map(|entry| std::array::from_fn(|i| (entry >> (bits * i)) as u8 & ((1 << bits) - 1)))
            .collect();
        let mut lattice = Self {
            levels: digits.iter().map(|entry| entry.map(|d| 2 * d + 1)).collect(),
            points: Vec::new(),
            batches: Vec::new(),
            base,
        };
        for index in 0..base.pow(D as u32) {
            let point = std::array::from_fn(|i| (index / base.pow(i as u32) % base) as u8);
            let near = nearest_entries(&digits, &point, distances);
            let exact = near.first().filter(|entry| digits[usize::from(**entry)] == point);
            let point = match exact {
                Some(entry) => Point::Entry(*entry),
                None => lattice.add_batches(&near),
            };
            lattice.points.push(point);
        }
        lattice
    }

    fn add_batches(&mut self, near: &[u16]) -> Point {
        let first = self.batches.len();
        for part in near.chunks(W) {
            let entries = std::array::from_fn(|l| part.get(l).copied().unwrap_or(near[0]));
            let levels =
                std::array::from_fn(|i| std::array::from_fn(|l| self.levels[usize::from(entries[l])][i]));
            self.batches.push(Batch { levels, entries });
        }
        Point::Near {
            first: first as u32,
            count: (self.batches.len() - first) as u32,
        }
    }

    /// Levels of an entry.
    #[inline(always)]
    pub(super) fn levels(&self, entry: u16) -> &[u8; D] {
        &self.levels[usize::from(entry)]
    }

    /// The entry that rounded `digits` are, or the one of least weighted distance from `x / step`.
    #[inline(always)]
    pub(super) fn find(&self, digits: &[u8; D], x: &[f32; D], w: &[f32; D], step: f32) -> Match {
        let mut index = 0;
        for i in (0..D).rev() {
            index = index * self.base + usize::from(digits[i]);
        }
        match self.points[index] {
            Point::Entry(entry) => Match { entry, exact: true },
            Point::Near { first, count } => Match {
                entry: nearest(&self.batches[first as usize..][..count as usize], x, w, step),
                exact: false,
            },
        }
    }
}

/// The entries at the nearest few distances from a vector, in the order they are to be looked through.
fn nearest_entries<const D: usize>(digits: &[[u8; D]], point: &[u8; D], distances: usize) -> Vec<u16> {
    let squares: Vec<u16> = digits
        .iter()
        .map(|entry| {
            let parts = entry
                .iter()
                .zip(point)
                .map(|(a, b)| u16::from(a.abs_diff(*b)).pow(2));
            parts.sum()
        })
        .collect();
    let (mut near, mut last) = (Vec::new(), None);
    for _ in 0..distances {
        let next = squares
            .iter()
            .copied()
            .filter(|d| last.is_none_or(|last| *d > last))
            .min();
        let Some(next) = next else { break };
        let at = squares.iter().enumerate().filter(|(_, d)| **d == next);
        near.extend(at.map(|(entry, _)| entry as u16));
        last = Some(next);
    }
    near
}

#[inline(always)]
fn nearest<const D: usize, const W: usize>(
    batches: &[Batch<D, W>],
    x: &[f32; D],
    w: &[f32; D],
    step: f32,
) -> u16 {
    let (mut least, mut place) = ([f32::MAX; W], [0u32; W]);
    for (b, batch) in batches.iter().enumerate() {
        let mut distance = [0f32; W];
        for i in 0..D {
            for l in 0..W {
                let e = step * f32::from(batch.levels[i][l]) - x[i];
                distance[l] += w[i] * e * e;
            }
        }
        for l in 0..W {
            let closer = distance[l] < least[l];
            least[l] = if closer { distance[l] } else { least[l] };
            place[l] = if closer { (b * W + l) as u32 } else { place[l] };
        }
    }
    let mut width = W / 2;
    while width > 0 {
        for l in 0..width {
            let (a, b) = (least[l], least[l + width]);
            let (p, q) = (place[l], place[l + width]);
            let closer = (b < a) | ((b == a) & (q < p));
            least[l] = if closer { b } else { a };
            place[l] = if closer { q } else { p };
        }
        width /= 2;
    }
    let place = place[0] as usize;
    batches[place / W].entries[place % W]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::ggml::grids;

    #[test]
    fn an_entry_is_found_as_itself_and_another_vector_as_the_nearest_entry() {
        let lattice = Lattice::<4, 8>::new(&grids::IQ3XXS, 3, 8, 2);
        let ones = [1.0; 4];
        for entry in 0..256u16 {
            let digits = lattice.levels(entry).map(|level| level / 2);
            let found = lattice.find(&digits, &ones, &ones, 1.0);
            assert!(found.exact && found.entry == entry);
        }
        let digits = [7, 7, 7, 1];
        let x = digits.map(|d| f32::from(2 * d + 1));
        let distance = |entry: u16| -> i32 {
            let levels = lattice.levels(entry).iter().zip(digits);
            levels
                .map(|(level, d)| (i32::from(*level) - i32::from(2 * d + 1)).pow(2))
                .sum()
        };
        let found = lattice.find(&digits, &x, &ones, 1.0);
        assert!(!found.exact);
        assert_eq!(distance(found.entry), (0..256).map(distance).min().unwrap());
    }

    #[test]
    fn neighbours_come_nearest_first_then_in_the_order_of_the_codebook() {
        let digits = [[0, 0], [2, 0], [0, 2], [1, 0], [2, 2]];
        assert_eq!(nearest_entries(&digits, &[1, 1], 1), [3]);
        assert_eq!(nearest_entries(&digits, &[1, 1], 2), [3, 0, 1, 2, 4]);
        assert_eq!(nearest_entries(&digits, &[0, 1], 3), [0, 2, 3, 1, 4]);
    }
}
