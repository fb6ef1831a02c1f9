//! Signals by name and number, as Docker's API takes them (moby/sys `signal`). Pure.

use crate::error::{Error, Result};

pub(crate) const SIGKILL: i32 = 9;

/// Names in the order of their numbers on Linux (x86-64, arm64), from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// First and last real-time signal that a C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = match name {
        "IOT" => Some("ABRT"),
        "CLD" => Some("CHLD"),
        "POLL" => Some("IO"),
        other => Some(other),
    };
    if let Some(index) = NAMES.iter().position(|known| Some(*known) == named) {
        return i32::try_from(index + 1).map_err(|_| invalid());
    }
    let realtime = |rest: &str, base: i32, sign: char| match rest {
        "" => Some(base),
        _ => {
            let offset: i32 = rest.strip_prefix(sign)?.parse().ok()?;
            Some(if sign == '+' {
                base + offset
            } else {
                base - offset
            })
        }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        realtime(rest, RTMIN, '+')
    } else {
        name.strip_prefix("RTMAX")
            .and_then(|rest| realtime(rest, RTMAX, '-'))
    };
    number
        .filter(|number| (RTMIN..=RTMAX).contains(number))
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGKILL", 9),
            ("kill", 9),
            ("9", 9),
            ("TERM", 15),
            ("SIGUSR1", 10),
            ("SIGSYS", 31),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("IOT", 6),
            ("SIGWINCH", 28),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "65",
            "FOO",
            "SIG",
            "RTMIN+99",
            "RTMIN-1",
            "99999999999",
        ] {
            assert_eq!(
                parse(bad).unwrap_err(),
                Error::invalid(format!("invalid signal: {bad}"))
            );
        }
    }
}
