//! Figures as people read them: short, with their unit, and no more digits than mean something.

use std::time::Duration;

/// Bytes in the largest unit that keeps them above one.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let scaled = |unit: u64, name: &str| {
        let (whole, tenth) = (bytes / unit, bytes % unit * 10 / unit);
        if whole >= 100 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
    };
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(KIB)),
        0x10_0000..0x4000_0000 => scaled(KIB * KIB, "MiB"),
        _ => scaled(KIB * KIB * KIB, "GiB"),
    }
}

/// So many a second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 99.95 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}").trim_end_matches(".0").to_owned(),
        rate => {
            let text = format!("{rate:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// A time that something took.
pub(super) fn took(micros: u64) -> String {
    let tenths = |unit: u64, name: &str| {
        let (whole, tenth) = (micros / unit, micros % unit * 10 / unit);
        if whole >= 10 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
    };
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => tenths(1000, "ms"),
        _ => tenths(1_000_000, "s"),
    }
}

/// A time that has passed.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h"),
        _ => format!("{days} d"),
    }
}

/// `part` of `whole` in whole percent; zero of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    u128::from(part)
        .saturating_mul(100)
        .checked_div(whole.into())
        .map_or(0, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// A bar of `width` cells that is filled to `part` of `whole`: of text, so that it is one without colours too.
pub(super) fn bar(part: u64, whole: u64, width: usize) -> String {
    let cells = u64::try_from(width).unwrap_or(u64::MAX);
    let filled = u128::from(part).saturating_mul(cells.into()).checked_div(whole.into()).unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(usize::MAX).min(width);
    "█".repeat(filled) + &"░".repeat(width - filled)
}

/// A name that is cut to `width` characters.
pub(super) fn shortened(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width.saturating_sub(1)).chain(['…']).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_their_unit() {
        let cases = [
            (bytes(0), "0 KiB"),
            (bytes(448 << 10), "448 KiB"),
            (bytes((1 << 20) + (1 << 19)), "1.5 MiB"),
            (bytes(300 << 20), "300 MiB"),
            (bytes(24 << 30), "24.0 GiB"),
            (rate(0.0), "0"),
            (rate(0.125), "0.125"),
            (rate(0.5), "0.5"),
            (rate(1.0), "1"),
            (rate(12.34), "12.3"),
            (rate(4096.0), "4096"),
            (took(512), "512 µs"),
            (took(1024), "1.0 ms"),
            (took(131_072), "131 ms"),
            (took(2_097_152), "2.0 s"),
            (age(Duration::from_secs(119)), "119 s"),
            (age(Duration::from_mins(2)), "2 min"),
            (age(Duration::from_hours(3)), "3 h"),
            (age(Duration::from_hours(72)), "3 d"),
            (bar(1, 4, 8), "██░░░░░░"),
            (bar(9, 4, 4), "████"),
            (bar(1, 0, 2), "░░"),
            (shortened("abcdef", 6), "abcdef"),
            (shortened("abcdef", 4), "abc…"),
            (shortened("abcdef", 0), ""),
        ];
        for (found, wanted) in cases {
            assert_eq!(found, wanted);
        }
        assert_eq!((percent(3, 4), percent(1, 0), percent(u64::MAX, 1)), (75, 0, u64::MAX));
    }
}
