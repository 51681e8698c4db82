//! Points in time as the log and the wire know them.

use std::fmt;
use std::time::Duration;

/// A point in time: microseconds since 1970-01-01T00:00:00Z, never before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// A text that is not an RFC 3339 date-time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date-time such as 2026-11-22T10:30:00Z")]
pub struct ParseTimestampError;

/// Characters of a printed [`Timestamp`]: `2026-11-22T10:30:00.123456Z`.
pub const TIMESTAMP_TEXT_LENGTH: usize = 27;

/// 9999-12-31T23:59:59.999999Z, the last time RFC 3339 can write with four digits of year.
const LAST_MICROS: u64 = 253_402_300_799_999_999;

impl Timestamp {
    /// The time `micros` after the epoch; cut to the year 9999.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > LAST_MICROS { LAST_MICROS } else { micros })
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This time plus `wait`, at most the end of the year 9999.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This time minus `span`, at least the epoch.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// The span from `earlier` to this time; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Takes RFC 3339 with up to nine digits of fraction, and the offset also without its colon (`+0200`), which many
    /// Java programs write.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse_lenient(text: &str) -> Result<Self, ParseTimestampError> {
        let (time, offset) = text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""));
        let is_bare = offset.starts_with(['+', '-']) && offset.bytes().skip(1).all(|byte| byte.is_ascii_digit());
        match offset.split_at_checked(3).filter(|_| is_bare) {
            Some((hours, minutes)) => format!("{time}{hours}:{minutes}").parse(),
            None => text.parse(),
        }
    }

    /// The 27 ASCII characters of RFC 3339 with microseconds and `Z`.
    #[must_use]
    pub fn to_text(self) -> [u8; TIMESTAMP_TEXT_LENGTH] {
        let micros = self.0 % 1_000_000;
        let seconds = self.0 / 1_000_000;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let second_of_day = seconds % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, width: usize, mut value: u64| {
            for place in (at..at + width).rev() {
                if let Some(digit) = text.get_mut(place) {
                    *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
                }
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, second_of_day / 3600);
        put(14, 2, second_of_day / 60 % 60);
        put(17, 2, second_of_day % 60);
        put(20, 6, micros);
        text
    }
}

/// Year, month and day of the `days`-th day since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.to_text()).unwrap_or_default())
    }
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Takes RFC 3339 with any offset; fractions beyond microseconds are cut, times before 1970 refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| ParseTimestampError)?;
        // jiff takes more spellings than RFC 3339 does (a space, a bracketed zone, no seconds, a comma, offsets of hours alone).
        let bytes = text.as_bytes();
        let from_end = |place: usize| bytes.len().checked_sub(place).and_then(|place| bytes.get(place)).copied();
        let has_offset =
            matches!(from_end(1), Some(b'Z' | b'z')) || (matches!(from_end(6), Some(b'+' | b'-')) && from_end(3) == Some(b':'));
        let well_formed = bytes.len() >= 20
            && has_offset
            && bytes.get(19) != Some(&b',')
            && bytes.get(10).is_some_and(|byte| byte.eq_ignore_ascii_case(&b't'))
            && bytes.get(13) == Some(&b':')
            && bytes.get(16) == Some(&b':')
            && !text.contains('[');
        if !well_formed {
            return Err(ParseTimestampError);
        }
        u64::try_from(parsed.as_microsecond()).map(Self::from_micros).map_err(|_| ParseTimestampError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339_with_microseconds() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(1_795_343_400_123_456).to_string(), "2026-11-22T10:30:00.123456Z");
        assert_eq!(Timestamp::from_micros(951_782_400_000_000).to_string(), "2000-02-29T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn reads_back_what_it_prints_for_every_day_of_a_leap_cycle() {
        for day in 0..=1461_u64 {
            let time = Timestamp::from_micros((day + 10_957) * 86_400_000_000 + day * 7_919);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn the_lenient_form_takes_what_is_seen_in_the_wild() {
        for (text, time) in [
            ("2017-07-25T10:31:28.2519514Z", "2017-07-25T10:31:28.251951Z"),
            ("2020-04-28T18:43:38.004451447Z", "2020-04-28T18:43:38.004451Z"),
            ("2018-04-04T15:33:58+0200", "2018-04-04T13:33:58.000000Z"),
            ("2018-04-04T15:33:58.5-0130", "2018-04-04T17:03:58.500000Z"),
            ("2018-04-04T15:33:58+02:00", "2018-04-04T13:33:58.000000Z"),
            ("2018-04-04t15:33:58z", "2018-04-04T15:33:58.000000Z"),
        ] {
            assert_eq!(Timestamp::parse_lenient(text).unwrap().to_string(), time, "{text}");
        }
        for text in [
            "",
            "0200",
            "+0200",
            "2018-04-04",
            "2018-04-04T15:33:58",
            "2018-04-04 15:33:58Z",
            "2018-04-04T15:33:58+02",
            "2018-04-04T15:33Z",
            "2018-04-04T15:33:58.0123456789Z",
            "2018-04-04T15:33:58.Z",
            "2018-13-04T15:33:58Z",
            "2018-04-04T15:33:58+9900",
            "åååååå+0200",
        ] {
            assert_eq!(Timestamp::parse_lenient(text), Err(ParseTimestampError), "{text}");
        }
    }

    #[test]
    fn takes_offsets_and_refuses_other_spellings() {
        assert_eq!("2026-11-22T12:30:00+02:00".parse(), "2026-11-22T10:30:00Z".parse::<Timestamp>());
        for text in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T10:30:00",
            "2026-11-22 10:30:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T10:30Z",
            "2026-11-22T10:30:00+02",
            "2026-11-22T10:30:00+0200",
            "2026-11-22T10:30:00,5Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError), "{text}");
        }
    }
}
