//! Times of ISO 8601.

/// Returns a time as nanoseconds since the epoch: `2022-04-01T15:24:28[.267003][Z|+00:00]`; without a zone it is UTC.
pub(super) fn nanoseconds(written: &str) -> Option<i64> {
    let (date, rest) = written.split_at_checked(10)?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [year, month, day] = parts(date, '-')?;
    let [hour, minute, second] = parts(clock, ':')?;
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(
            rest.find(|digit: char| !digit.is_ascii_digit())
                .unwrap_or(rest.len()),
        ),
        None => ("0", rest),
    };
    let mut nanos = 0;
    for place in 0..9 {
        nanos = nanos * 10
            + i64::from(
                fraction
                    .as_bytes()
                    .get(place)
                    .map_or(0, |digit| digit - b'0'),
            );
    }
    let seconds =
        days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    (in_range && !fraction.is_empty())
        .then(|| seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn parts<const N: usize>(written: &str, separator: char) -> Option<[i64; N]> {
    let mut parts = [0; N];
    let mut texts = written.split(separator);
    for part in &mut parts {
        let text = texts.next()?;
        if text.len() < 2 || !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *part = text.parse().ok()?;
    }
    texts.next().is_none().then_some(parts)
}

/// Seconds a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [] | b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let [hours, minutes] = parts(zone.get(1..)?, ':')?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Days since the epoch of a day of the Gregorian calendar: <https://howardhinnant.github.io/date_algorithms.html>.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
