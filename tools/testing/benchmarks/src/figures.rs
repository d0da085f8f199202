// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures that were measured, and what they say: medians with their spread, ratios with their error.

use serde::Serialize;

/// What was measured several times, sorted.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Samples(Vec<f64>);

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Samples {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which that part of them lies, from 0 to 1. Not a number if there is none.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let last = self.len().saturating_sub(1);
        let at = (part.clamp(0.0, 1.0) * last as f64).round();
        self.0.get(at as usize).copied().unwrap_or(f64::NAN)
    }

    /// The value in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The largest.
    pub(crate) fn most(&self) -> f64 {
        self.quantile(1.0)
    }
}

/// The geometric mean of ratios, and its standard error.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    /// The mean.
    pub(crate) mean: f64,
    /// Its standard error.
    pub(crate) error: f64,
}

impl Ratio {
    /// Of pairs that were measured one after the other: the first by the second.
    pub(crate) fn of(pairs: &[(f64, f64)]) -> Self {
        let logs: Vec<f64> = pairs
            .iter()
            .map(|(first, second)| (first / second).ln())
            .collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let error = if logs.len() > 1 {
            (squares / (count - 1.0) / count).sqrt()
        } else {
            f64::NAN
        };
        Self {
            mean: mean.exp(),
            error: mean.exp() * error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let samples: Samples = [5.0, 1.0, 4.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.quantile(0.0), 1.0);
        assert_eq!(samples.quantile(0.95), 5.0);
        assert_eq!(samples.most(), 5.0);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_ratio_and_its_inverse_have_the_same_distance_from_one() {
        let ratio = Ratio::of(&[(2.0, 1.0), (1.0, 2.0)]);
        assert!((ratio.mean - 1.0).abs() < 1e-9);
        assert!(ratio.error > 0.5);
        let ratio = Ratio::of(&[(3.0, 1.0), (6.0, 2.0)]);
        assert!((ratio.mean - 3.0).abs() < 1e-9 && ratio.error < 1e-9);
    }
}
