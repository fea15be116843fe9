//! Matrix products as calibration makes them, in f32, in split bf16 and in bf16: `cargo bench --bench products`.
//!
//! Prints GFLOP/s, the best and the mean of twenty, for the layers and Hessians of a small model (`ROWS=2560` tokens).
//! Columns are of the same size where the CPU has no units for such products.

#![expect(clippy::print_stdout, reason = "a bench reports to people")]

use std::hint::black_box;
use std::time::Instant;

use modelpress_engine::kernels::linalg::{Gram, Precision, product_nt};

const TIMES: usize = 20;

fn values(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0)
        .collect()
}

/// Best and mean GFLOP/s.
fn speed(flops: f64, mut work: impl FnMut()) -> String {
    work();
    let seconds: Vec<f64> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        })
        .collect();
    let best = seconds.iter().copied().fold(f64::MAX, f64::min);
    let mean = seconds.iter().sum::<f64>() / TIMES as f64;
    format!("{:5.0} {:5.0}", flops / best / 1e9, flops / mean / 1e9)
}

fn main() {
    let rows = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok());
    let rows = rows.unwrap_or(2560);
    println!("GFLOP/s, best and mean        f32        split         bf16");
    for (inputs, outputs) in [(576, 576), (576, 1536), (1536, 576), (2048, 5632)] {
        let (x, w) = (values(rows * inputs), values(outputs * inputs));
        let flops = 2.0 * (rows * inputs * outputs) as f64;
        let run = |precision| speed(flops, || drop(black_box(product_nt(&x, &w, inputs, precision))));
        let (full, split, bf16) = (run(Precision::Full), run(Precision::Split), run(Precision::Bf16));
        println!("{inputs:5} to {outputs:5} features  {full}  {split}  {bf16}");
    }
    for inputs in [576, 1536, 5632] {
        let x = values(rows * inputs);
        // Only what is needed counts: one triangle.
        let flops = (rows * inputs * (inputs + 1)) as f64;
        let run = |precision| {
            let mut gram = Gram::new(inputs);
            speed(flops, || gram.add(&x, precision))
        };
        let (full, split) = (run(Precision::Full), run(Precision::Split));
        println!("Hessian of {inputs:5} inputs   {full}  {split}");
    }
}
