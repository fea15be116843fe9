//! Numbers in eight bits whose exponent takes as many of them as it needs (Dettmers 2016).
//!
//! Owns: the 256 values between −1 and 1. Must not know: what is written with them.
//! Invariant: the values are sorted, and bitsandbytes' own to the bit.

/// Every value, from the most negative (−0.993) to 1.
pub fn dynamic_map() -> [f32; 256] {
    let mut values = [0f32; 256];
    let mut at = 0;
    // Seven powers of ten; each has twice as many values as the one below it.
    for (power, tens) in [1e-6f32, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
        .into_iter()
        .enumerate()
    {
        let count = 1usize << power;
        for i in 0..count {
            let value = tens * f32::midpoint(edge(i, count), edge(i + 1, count));
            values[at] = value;
            values[at + 1] = -value;
            at += 2;
        }
    }
    // 254 values so far; one of the two that are left stays 0.
    values[at] = 1.0;
    values.sort_by(f32::total_cmp);
    values
}

/// Edge `i` of `count` equal parts between 0.1 and 1, counted from the nearer end and rounded once.
fn edge(i: usize, count: usize) -> f32 {
    let (low, high) = (0.1f32, 1f32);
    let step = f64::from((high - low) / count as f32);
    if i < count.div_ceil(2) {
        (f64::from(low) + step * i as f64) as f32
    } else {
        (f64::from(high) - step * (count - i) as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_the_one_of_bitsandbytes() {
        let map = dynamic_map();
        assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
        // First, one in the middle of each size, last: as its `create_dynamic_map` gives them.
        for (at, value) in GOLDEN {
            assert_eq!(map[at].to_bits(), value, "{at}: {}", map[at]);
        }
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in map.iter().flat_map(|v| v.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        assert_eq!(hash, HASH);
    }

    const GOLDEN: [(usize, u32); 9] = [
        (0, 0xbf7e3333),
        (32, 0xbf0b0000),
        (100, 0xbbf4bc6a),
        (127, 0x00000000),
        (128, 0x3513a3b7),
        (160, 0x3c68f5c3),
        (220, 0x3f03cccc),
        (254, 0x3f7e3333),
        (255, 0x3f800000),
    ];
    const HASH: u64 = 0xd677f22a96665bc4;
}
