//! Medians, ratios, spreads and means.

/// What a row that Quintet cannot run yet counts as in a mean: ten times worse than Linux.
pub(super) const MISSING: f64 = 10.0;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// Lower is better, as of all times and sizes.
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    /// 10^6 bytes.
    Size,
    /// 10^6 bytes a second: higher is better.
    Megabytes,
    /// 10^9 bytes a second: higher is better.
    Gigabytes,
    /// Operations a second: higher is better.
    Operations,
}

impl Unit {
    const ALL: &[Unit] = &[
        Unit::Nanoseconds,
        Unit::Microseconds,
        Unit::Milliseconds,
        Unit::Seconds,
        Unit::Size,
        Unit::Megabytes,
        Unit::Gigabytes,
        Unit::Operations,
    ];

    /// As programs print it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Size => "MB",
            Unit::Megabytes => "MB/s",
            Unit::Gigabytes => "GB/s",
            Unit::Operations => "op/s",
        }
    }

    pub(super) fn named(name: &str) -> Option<Unit> {
        Unit::ALL.iter().copied().find(|unit| unit.name() == name)
    }

    fn higher_is_better(self) -> bool {
        matches!(self, Unit::Megabytes | Unit::Gigabytes | Unit::Operations)
    }
}

/// What two revisions' samples of a row say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Better,
    Worse,
    /// The samples overlap, or hardly differ.
    Same,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "same",
        }
    }
}

/// A difference below this share is none, however steady the samples are.
const NOTHING: f64 = 0.02;

/// One row: what each round gave on each side.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) base: Vec<Option<f64>>,
    pub(super) ours: Vec<Option<f64>>,
}

impl Row {
    /// Our median against the base's: below 1, ours is better.
    pub(super) fn ratio(&self) -> Option<f64> {
        Some(self.compare(median(&self.ours)?, median(&self.base)?))
    }

    /// How far apart the rounds' ratios are, as a share of the ratio.
    pub(super) fn spread(&self) -> Option<f64> {
        let ratio = |(ours, base): (&Option<f64>, &Option<f64>)| Some(self.compare((*ours)?, (*base)?));
        let ratios: Vec<f64> = self.ours.iter().zip(&self.base).filter_map(ratio).collect();
        if ratios.is_empty() {
            return None;
        }
        let most = ratios.iter().copied().fold(f64::MIN, f64::max);
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        Some((most - least) / self.ratio()?)
    }

    fn compare(&self, ours: f64, base: f64) -> f64 {
        if self.unit.higher_is_better() { base / ours } else { ours / base }
    }

    /// A difference counts where every sample of one side is better than every one of the other.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let ratio = self.ratio()?;
        let extremes = |values: &[Option<f64>]| {
            let there = values.iter().copied().flatten();
            let (least, most) = (there.clone().fold(f64::MAX, f64::min), there.fold(f64::MIN, f64::max));
            if self.unit.higher_is_better() { (-most, -least) } else { (least, most) }
        };
        let ((our_best, our_worst), (base_best, base_worst)) = (extremes(&self.ours), extremes(&self.base));
        Some(match () {
            () if (ratio - 1.0).abs() < NOTHING => Verdict::Same,
            () if our_worst < base_best => Verdict::Better,
            () if our_best > base_worst => Verdict::Worse,
            () => Verdict::Same,
        })
    }

    /// What the row counts as in a mean; nothing if the base could not run it.
    fn weight(&self) -> Option<f64> {
        median(&self.base)?;
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

    fn row(unit: Unit, base: &[f64], ours: &[f64]) -> Row {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect();
        Row { name: "row".into(), unit, base: some(base), ours: some(ours) }
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
    fn verdicts_go_by_samples_that_do_not_overlap() {
        let verdict = |unit, base: &[f64], ours: &[f64]| row(unit, base, ours).verdict();
        assert_eq!(verdict(Unit::Nanoseconds, &[10.0, 11.0], &[8.0, 9.0]), Some(Verdict::Better));
        assert_eq!(verdict(Unit::Nanoseconds, &[10.0, 11.0], &[12.0, 14.0]), Some(Verdict::Worse));
        assert_eq!(verdict(Unit::Nanoseconds, &[10.0, 13.0], &[12.0, 14.0]), Some(Verdict::Same));
        assert_eq!(verdict(Unit::Operations, &[10.0, 11.0], &[12.0, 14.0]), Some(Verdict::Better));
        assert_eq!(verdict(Unit::Nanoseconds, &[100.0], &[99.0]), Some(Verdict::Same));
        assert_eq!(verdict(Unit::Nanoseconds, &[100.0], &[]), None);
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
