//! Medians, ratios, spreads and means.

/// What a row that Quintet cannot run yet counts as in a mean: ten times worse than Linux.
pub(super) const MISSING: f64 = 10.0;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// Lower is better.
    Nanoseconds,
    /// Lower is better.
    Milliseconds,
    /// 10^6 bytes a second: higher is better.
    Megabytes,
}

impl Unit {
    const ALL: &[Unit] = &[Unit::Nanoseconds, Unit::Milliseconds, Unit::Megabytes];

    /// As programs print it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Milliseconds => "ms",
            Unit::Megabytes => "MB/s",
        }
    }

    pub(super) fn named(name: &str) -> Option<Unit> {
        Unit::ALL.iter().copied().find(|unit| unit.name() == name)
    }
}

/// One row: what each round gave on each kernel.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) linux: Vec<Option<f64>>,
    pub(super) quintet: Vec<Option<f64>>,
}

impl Row {
    /// Quintet's median against Linux's: below 1, Quintet is better.
    pub(super) fn ratio(&self) -> Option<f64> {
        Some(self.compare(median(&self.quintet)?, median(&self.linux)?))
    }

    /// How far apart the rounds' ratios are, as a share of the ratio.
    pub(super) fn spread(&self) -> Option<f64> {
        let ratio = |(quintet, linux): (&Option<f64>, &Option<f64>)| Some(self.compare((*quintet)?, (*linux)?));
        let ratios: Vec<f64> = self.quintet.iter().zip(&self.linux).filter_map(ratio).collect();
        if ratios.is_empty() {
            return None;
        }
        let most = ratios.iter().copied().fold(f64::MIN, f64::max);
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        Some((most - least) / self.ratio()?)
    }

    fn compare(&self, quintet: f64, linux: f64) -> f64 {
        match self.unit {
            Unit::Megabytes => linux / quintet,
            Unit::Nanoseconds | Unit::Milliseconds => quintet / linux,
        }
    }

    /// What the row counts as in a mean; nothing if Linux could not run it.
    fn weight(&self) -> Option<f64> {
        median(&self.linux)?;
        Some(self.ratio().unwrap_or(MISSING))
    }
}

/// The middle of those values that there are.
pub(super) fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut there: Vec<f64> = values.iter().copied().flatten().collect();
    there.sort_by(f64::total_cmp);
    let middle = there.len() / 2;
    match there.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(there[middle]),
        _ => Some((there[middle - 1] + there[middle]) / 2.0),
    }
}

/// The geometric mean of the rows' ratios, in which a missing row counts as [`MISSING`].
pub(super) fn geometric_mean<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Option<f64> {
    let logarithms: Vec<f64> = rows.into_iter().filter_map(Row::weight).map(f64::ln).collect();
    let count = logarithms.len() as f64;
    (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / count).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, linux: &[f64], quintet: &[f64]) -> Row {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect();
        Row { name: "row".into(), unit, linux: some(linux), quintet: some(quintet) }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[None, Some(3.0), Some(1.0), Some(9.0)]), Some(3.0));
        assert_eq!(median(&[Some(4.0), Some(1.0)]), Some(2.5));
    }

    #[test]
    fn lower_ratios_are_better_for_us() {
        assert_eq!(row(Unit::Nanoseconds, &[10.0], &[5.0]).ratio(), Some(0.5));
        assert_eq!(row(Unit::Megabytes, &[10.0], &[5.0]).ratio(), Some(2.0));
        assert_eq!(row(Unit::Nanoseconds, &[10.0], &[]).ratio(), None);
    }

    #[test]
    fn spread_is_of_the_rounds() {
        let even = row(Unit::Nanoseconds, &[10.0, 20.0, 40.0], &[5.0, 10.0, 20.0]);
        assert_eq!(even.spread(), Some(0.0));
        let uneven = row(Unit::Nanoseconds, &[10.0, 10.0, 10.0], &[10.0, 20.0, 30.0]);
        assert_eq!(uneven.spread(), Some(1.0));
    }

    #[test]
    fn missing_rows_count_against_us() {
        let good = row(Unit::Nanoseconds, &[10.0], &[1.0]);
        let missing = row(Unit::Nanoseconds, &[10.0], &[]);
        let unknown = row(Unit::Nanoseconds, &[], &[]);
        let mean = geometric_mean([&good, &missing, &unknown]).expect("a mean");
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        assert_eq!(geometric_mean([&unknown]), None);
    }
}
