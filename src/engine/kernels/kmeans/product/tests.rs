//! What codebooks of vectors promise, against simple references.

use super::*;
use crate::kernels::kmeans;
use crate::kernels::random::Random;

fn spec(width: usize, centroids: usize) -> Spec {
    Spec {
        width,
        centroids,
        seed: 11,
        dtype: DType::F32,
    }
}

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut sum = || (0..12).map(|_| random.share()).sum::<f64>() - 6.0;
    (0..n).map(|_| sum() as f32 * 0.05).collect()
}

fn both(values: &[f32], cols: usize, weights: Option<&[f32]>, spec: &Spec) -> (Codebook, Assigned) {
    let codebook = fit(values, cols, weights, spec, &|| false).unwrap();
    let assigned = assign(values, cols, weights, &codebook).unwrap();
    (codebook, assigned)
}

fn distance(vector: &[f32], weights: &[f32], centroid: &[f32]) -> f64 {
    let gaps = vector
        .iter()
        .zip(centroid)
        .map(|(v, c)| (f64::from(*v) - f64::from(*c)).powi(2));
    gaps.zip(weights).map(|(gap, w)| gap * f64::from(*w)).sum()
}

#[test]
fn every_vector_has_its_nearest_centroid_and_the_inertia_is_theirs() {
    let (cols, weights): (_, Vec<f32>) = (24, (0..24).map(|j| (j % 6) as f32 * 100.0).collect());
    let values = normal(200 * cols, 1);
    for (width, k) in [(1, 5), (2, 16), (3, 17), (4, 300), (8, 40), (12, 7)] {
        let (codebook, made) = both(&values, cols, Some(&weights), &spec(width, k));
        assert_eq!(codebook.centroids.len(), width * k);
        let mut sum = 0.0;
        for (i, vector) in values.chunks(width).enumerate() {
            let first = i * width % cols;
            let weights = &weights[first..first + width];
            let of = |c: &[f32]| distance(vector, weights, c);
            let own = of(codebook
                .centroids
                .chunks(width)
                .nth(made.codes.get(i).unwrap())
                .unwrap());
            let best = codebook.centroids.chunks(width).map(of).fold(f64::MAX, f64::min);
            // Distances are compared in f32.
            assert!(own <= best * (1.0 + 1e-5) + 1e-12, "{own} {best}");
            sum += own;
        }
        assert!((sum - made.inertia).abs() <= 1e-5 * sum, "{sum} {}", made.inertia);
    }
}

#[test]
fn vectors_of_one_are_as_good_as_values_and_the_iteration_for_vectors_nearly() {
    let values = normal(64 * 512, 2);
    let weights: Vec<f32> = (0..512).map(|j| 0.5 + (j % 5) as f32).collect();
    let metric = Metric::of(&values, 512, 1, Some(&weights)).unwrap();
    for k in [2, 4, 16, 64] {
        let exact = kmeans::Spec {
            centroids: k,
            seed: 0,
            keep_zero: false,
            dtype: DType::F32,
        };
        let distinct = kmeans::Distinct::of(&values, Some(&weights)).unwrap();
        let least = kmeans::fit(&distinct, &exact).unwrap().inertia;
        let made = both(&values, 512, Some(&weights), &spec(1, k)).1.inertia;
        assert!((made / least - 1.0).abs() < 1e-5, "{k}: {made} {least}");
        let trained = train::centroids(&values, &metric, &spec(1, k), &|| false).unwrap();
        let centroids = trained.iter().map(|c| c / metric.scale()).collect();
        let codebook = Codebook { width: 1, centroids };
        let made = assign(&values, 512, Some(&weights), &codebook).unwrap().inertia;
        assert!(
            made >= least * (1.0 - 1e-5) && made < 1.1 * least,
            "{k}: {made} {least}"
        );
    }
}

#[test]
fn more_centroids_and_longer_vectors_at_equal_bits_cost_less() {
    let values = normal(128 * 512, 3);
    let inertia = |width, k| both(&values, 512, None, &spec(width, k)).1.inertia;
    let costs = [1, 4, 16, 64, 256].map(|k| inertia(4, k));
    assert!(costs.is_sorted_by(|a, b| a > b), "{costs:?}");
    // Two bits a weight.
    let costs = [inertia(1, 4), inertia(2, 16), inertia(4, 256)];
    assert!(costs.is_sorted_by(|a, b| a > b), "{costs:?}");
}

#[test]
fn columns_of_more_weight_are_kept_better() {
    let values = normal(256 * 64, 4);
    let weights: Vec<f32> = (0..64).map(|j| if j % 2 == 0 { 10.0 } else { 0.1 }).collect();
    let plain = fit(&values, 64, None, &spec(2, 16), &|| false).unwrap();
    let weighted = fit(&values, 64, Some(&weights), &spec(2, 16), &|| false).unwrap();
    let [plain, weighted] =
        [plain, weighted].map(|c| assign(&values, 64, Some(&weights), &c).unwrap().inertia);
    assert!(weighted < 0.6 * plain, "{weighted} {plain}");
}

#[test]
fn threads_change_nothing() {
    let values = normal(300 * 96, 5);
    let weights: Vec<f32> = (0..96).map(|j| 0.1 + (j as f32).sin().abs()).collect();
    let [one, three] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| both(&values, 96, Some(&weights), &spec(4, 300)))
    });
    assert_eq!(one, three);
}

#[test]
fn scales_of_values_and_weights_do_not_matter() {
    let values = normal(100 * 32, 6);
    let weights: Vec<f32> = (0..32).map(|j| 1.0 + (j % 3) as f32).collect();
    let (one, assigned) = both(&values, 32, Some(&weights), &spec(4, 20));
    for (by, weighing) in [(2f32.powi(100), 2f32.powi(60)), (2f32.powi(-100), 2f32.powi(-80))] {
        let scaled: Vec<f32> = values.iter().map(|v| v * by).collect();
        let heavy: Vec<f32> = weights.iter().map(|w| w * weighing).collect();
        let (other, made) = both(&scaled, 32, Some(&heavy), &spec(4, 20));
        assert!(
            one.centroids
                .iter()
                .zip(&other.centroids)
                .all(|(a, b)| a * by == *b)
        );
        assert_eq!(assigned.codes, made.codes);
        let expected = assigned.inertia * f64::from(by).powi(2) * f64::from(weighing);
        assert!((made.inertia / expected - 1.0).abs() < 1e-12);
    }
}

#[test]
fn few_equal_and_weightless_vectors_have_a_codebook() {
    let (codebook, made) = both(&[], 4, None, &spec(4, 8));
    assert_eq!((codebook.centroids, made.inertia), (vec![0.0; 4], 0.0));
    let (codebook, made) = both(&[3.0; 64], 8, None, &spec(4, 8));
    assert_eq!((codebook.centroids, made.inertia), (vec![3.0; 4], 0.0));
    let four = [1.0, 2.0, -1.0, 0.0, 1.0, 2.0, -1.0, 0.0];
    let (codebook, made) = both(&four, 4, None, &spec(2, 300));
    assert_eq!(
        (codebook.centroids, made.inertia),
        (vec![-1.0, 0.0, 1.0, 2.0], 0.0)
    );
    // The second vector of a row weighs nothing: it has a code, but no say.
    let (codebook, made) = both(&[1.0, 2.0, 9.0, 9.0], 4, Some(&[1.0, 1.0, 0.0, 0.0]), &spec(2, 2));
    assert_eq!((codebook.centroids, made.inertia), (vec![1.0, 2.0], 0.0));
    assert_eq!(
        both(&four, 4, Some(&[0.0; 4]), &spec(2, 2)),
        both(&four, 4, None, &spec(2, 2))
    );
    assert_eq!(both(&[f32::MAX, f32::MIN], 1, None, &spec(1, 2)).1.inertia, 0.0);
}

#[test]
fn bad_input_is_refused_and_a_stop_is_heard() {
    let code = |values: &[f32], cols, weights: Option<&[f32]>, spec: Spec, stop: bool| {
        fit(values, cols, weights, &spec, &|| stop).unwrap_err().code
    };
    let ones = [1.0; 12];
    assert_eq!(code(&ones, 6, None, spec(4, 2), false), "bad_vector_width");
    assert_eq!(code(&ones, 5, None, spec(5, 2), false), "bad_vector_width");
    assert_eq!(code(&ones, 0, None, spec(1, 2), false), "bad_vector_width");
    assert_eq!(code(&ones, 6, None, spec(0, 2), false), "bad_vector_width");
    assert_eq!(code(&ones, 6, None, spec(2, 0), false), "bad_codebook_size");
    assert_eq!(code(&ones, 6, None, spec(2, 5000), false), "bad_codebook_size");
    assert_eq!(
        code(&ones, 6, Some(&[1.0]), spec(2, 2), false),
        "bad_column_weights"
    );
    assert_eq!(
        code(&ones, 6, Some(&[f32::NAN; 6]), spec(2, 2), false),
        "bad_column_weights"
    );
    assert_eq!(
        code(&[f32::NAN; 12], 6, None, spec(2, 2), false),
        "non_finite_values"
    );
    assert_eq!(
        code(
            &[1e30; 12],
            6,
            None,
            Spec {
                dtype: DType::F16,
                ..spec(2, 2)
            },
            false
        ),
        "centroid_overflow"
    );
    assert_eq!(
        code(
            &ones,
            6,
            None,
            Spec {
                dtype: DType::U8,
                ..spec(2, 2)
            },
            false
        ),
        "bad_codebook_dtype"
    );
    assert_eq!(code(&ones, 6, None, spec(2, 2), true), "cancelled");
    for centroids in [
        vec![],
        vec![1.0; 3],
        vec![f32::NAN; 2],
        vec![0.0; 2 * MAX_CENTROIDS + 2],
    ] {
        let codebook = Codebook { width: 2, centroids };
        assert_eq!(
            assign(&ones, 6, None, &codebook).unwrap_err().code,
            "bad_codebook"
        );
    }
}
