//! Measures whether two samples can be told apart, one value at a time.

/// Returns the probability that a value of `b` is greater than one of `a`, ties half (Mann-Whitney's U over
/// the number of pairs, which is the area under the ROC curve). At a half a listener learns nothing; at 0 or
/// 1 a single measurement tells which is which.
pub fn auc(a: &[f64], b: &[f64]) -> Option<f64> {
    let mut sorted = a.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut total = 0.0;
    for value in b {
        let below = sorted.partition_point(|other| other < value);
        let not_above = sorted.partition_point(|other| other <= value);
        total += f64::midpoint(super::client::float(below), super::client::float(not_above));
    }
    let pairs = super::client::float(a.len()) * super::client::float(b.len());
    (pairs > 0.0).then(|| total / pairs)
}

/// Returns the standard deviation of this probability for samples of one distribution.
pub fn auc_deviation(a: usize, b: usize) -> f64 {
    let (a, b) = (super::client::float(a), super::client::float(b));
    ((a + b + 1.0) / (12.0 * a * b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes the definition, pair by pair.
    fn by_pairs(a: &[f64], b: &[f64]) -> f64 {
        let won = |x: &f64, y: &f64| {
            if x < y {
                1.0
            } else if x > y {
                0.0
            } else {
                0.5
            }
        };
        let total: f64 = b.iter().flat_map(|y| a.iter().map(move |x| won(x, y))).sum();
        total / super::super::client::float(a.len() * b.len())
    }

    #[test]
    fn the_auc_counts_pairs_and_half_of_ties() {
        assert_eq!(auc(&[1.0, 2.0], &[3.0, 4.0]), Some(1.0));
        assert_eq!(auc(&[3.0, 4.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!(auc(&[1.0, 2.0, 3.0], &[3.0, 1.0, 2.0]), Some(0.5));
        assert_eq!(auc(&[5.0, 5.0], &[5.0]), Some(0.5), "ties are half");
        assert_eq!(auc(&[1.0, 3.0], &[2.0, 3.0]), Some(0.625));
        assert_eq!(auc(&[], &[1.0]), None);
        assert_eq!(auc(&[1.0], &[]), None);
    }

    #[test]
    fn it_is_the_definition() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let mut sample = |size| (0..size).map(|_| f64::from(random.u8(0..20))).collect::<Vec<_>>();
            let (a, b) = (sample(17), sample(31));
            let (fast, slow) = (auc(&a, &b).expect("not empty"), by_pairs(&a, &b));
            assert!((fast - slow).abs() < 1e-12, "{fast} {slow}");
        }
    }

    #[test]
    fn five_hundred_and_five_hundred_stray_by_two_hundredths() {
        assert!((auc_deviation(500, 500) - 0.01826).abs() < 1e-4);
    }
}
