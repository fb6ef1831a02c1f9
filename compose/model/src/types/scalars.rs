//! Scalars with a unit: durations, byte counts, file modes, and values that may also be written as text.
//!
//! Grammar from compose-go `types/{duration,bytes}.go` and docker/go-units `RAMInBytes`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::Absent;

/// A length of time such as `1m30s`; written back the way Go prints durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

/// Units of [`Duration`], with nanoseconds each; `d` and `w` are extensions that compose-go has too.
const DURATION_UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

impl FromStr for Duration {
    type Err = String;

    /// Parses `1h30m`, `0.5s`, `0`; a bare number other than 0 has no unit and is refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid duration {text:?}");
        let hint = || {
            format!(
                "invalid duration {text:?}: write a number with a unit: us, ms, s, m, h, d or w (for example 1m30s)"
            )
        };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Duration::default());
        }
        if rest.starts_with('-') {
            return Err(format!("{}: it must not be negative", bad()));
        }
        rest = rest.strip_prefix('+').unwrap_or(rest);
        if rest.is_empty() {
            return Err(hint());
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(hint)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let (_, scale) = DURATION_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(hint)?;
            let part = decimal_times(number, *scale).ok_or_else(hint)?;
            nanos = nanos.checked_add(part).ok_or_else(bad)?;
            rest = tail;
        }
        let limit = u128::from(i64::MAX.unsigned_abs());
        if nanos > limit {
            return Err(format!("{}: longer than 292 years", bad()));
        }
        let nanos = u64::try_from(nanos).map_err(|_| bad())?;
        Ok(Duration(std::time::Duration::from_nanos(nanos)))
    }
}

/// `number` (digits with at most one point) times `scale`, rounded down; `None` if it is no number.
fn decimal_times(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        total += u128::from(digit.checked_sub(b'0')?) * unit;
    }
    Some(total)
}

impl fmt::Display for Duration {
    /// Go's `time.Duration.String`: `1h0m0s`, `1m30s`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let fraction = |value: u128, scale: u128| {
            let (whole, rest) = (value / scale, value % scale);
            if rest == 0 {
                return whole.to_string();
            }
            let width = scale.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            format!("{whole}.{}", digits.trim_end_matches('0'))
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", fraction(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{seconds}s"),
                    (0, minutes) => write!(f, "{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

/// A number of bytes such as `512m`; `-1` means unlimited where the attribute allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub i64);

impl FromStr for Bytes {
    type Err = String;

    /// Parses `1073741824`, `64k`, `1.5GiB`, `300mb`: units are powers of 1024, case does not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(plain) = text.trim().parse::<i64>() {
            return Ok(Bytes(plain));
        }
        let bad = || {
            format!(
                "invalid size {text:?}: write a number with an optional unit: b, k, m, g, t or p (for example 512m)"
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let scale: u128 = match unit.trim_start() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            "p" | "pb" | "pib" => 1 << 50,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let bytes = number * scale as f64;
        if bytes.is_finite() && bytes < i64::MAX as f64 {
            Ok(Bytes(bytes as i64))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Permission bits; text is octal, a YAML integer is taken as it is (`0440` is octal in YAML already).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(FileMode(mode)),
            _ => Err(format!(
                "invalid file mode {text:?}: write up to four octal digits (for example \"0440\")"
            )),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:o}", self.0)
    }
}

/// Text that the file may also write as number or boolean (`build.provenance: true`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Text(text.to_owned()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many devices a request wants: a number, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceCount {
    /// `all`.
    All,
    /// This many.
    Number(u32),
}

impl FromStr for DeviceCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(DeviceCount::All);
        }
        match text.parse::<i64>() {
            Ok(-1) => Ok(DeviceCount::All),
            Ok(number) => u32::try_from(number)
                .map(DeviceCount::Number)
                .map_err(|_| format!("invalid device count {text:?}: write all or a number")),
            Err(_) => Err(format!(
                "invalid device count {text:?}: write all or a number"
            )),
        }
    }
}

impl fmt::Display for DeviceCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceCount::All => f.write_str("-1"),
            DeviceCount::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A flag that is on unless the file says `false`; left out of the output while it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OptOut(pub bool);

impl Default for OptOut {
    fn default() -> Self {
        OptOut(true)
    }
}

impl Absent for OptOut {
    fn is_absent(&self) -> bool {
        self.0
    }
}

/// A flag that is on unless the file says `false` and is always written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefaultTrue(pub bool);

impl Default for DefaultTrue {
    fn default() -> Self {
        DefaultTrue(true)
    }
}

impl Absent for DefaultTrue {
    fn is_absent(&self) -> bool {
        false
    }
}

/// Reads a type from text or number through `FromStr`; an integer goes through `from_integer`.
struct TextOrInteger<T> {
    what: &'static str,
    from_integer: fn(i64) -> Result<T, String>,
}

impl<T: FromStr<Err = String>> Visitor<'_> for TextOrInteger<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.from_integer)(number).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        value.to_string().parse().map_err(E::custom)
    }
}

macro_rules! text_or_integer {
    ($ty:ident, $what:literal, $from_integer:expr) => {
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextOrInteger {
                    what: $what,
                    from_integer: $from_integer,
                })
            }
        }
    };
}

text_or_integer!(Duration, "a duration", |number| number.to_string().parse());
text_or_integer!(Bytes, "a size in bytes", |number| Ok(Bytes(number)));
text_or_integer!(FileMode, "a file mode", |number| u32::try_from(number)
    .ok()
    .filter(|mode| *mode <= 0o7777)
    .map(FileMode)
    .ok_or_else(|| format!("invalid file mode {number}")));
text_or_integer!(Text, "text", |number| Ok(Text(number.to_string())));
text_or_integer!(DeviceCount, "all or a number", |number| number
    .to_string()
    .parse());

macro_rules! serialize_as_text {
    ($($ty:ident),*) => {$(
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

serialize_as_text!(Duration, Bytes, FileMode, Text);

impl Serialize for DeviceCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            DeviceCount::All => serializer.serialize_i64(-1),
            DeviceCount::Number(number) => serializer.serialize_u32(*number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("500ms", "500ms"),
            ("0", "0s"),
            ("1d", "24h0m0s"),
            ("1m0.25s", "1m0.25s"),
            ("10us", "10µs"),
            (".5s", "500ms"),
        ] {
            let parsed: Duration = text.parse().expect(text);
            assert_eq!(parsed.to_string(), printed, "{text}");
        }
        for text in ["", "10", "-5s", "5 s", "1y", "s", "1..5s", "99999w99999w"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("1024", 1024),
            ("2b", 2),
            ("1024kb", 1 << 20),
            ("300m", 300 << 20),
            ("1gb", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("10 k", 10240),
            ("-1", -1),
        ] {
            assert_eq!(text.parse::<Bytes>().expect(text).0, bytes, "{text}");
        }
        for text in ["", "m", "1x", "1e30g", "one"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
    }
}
