//! Processes of a container, read from `/proc`: the columns of `ps -ef`, which is what clients ask for unless told
//! otherwise. Other arguments of ps(1) are refused: no program is run. Blocks.

use std::fs;

use agent_api::ContainerTopResponse;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

/// Clock ticks per second in `/proc/PID/stat`: the same on every architecture Linux serves to programs.
const TICKS: u64 = 100;

/// Lists these processes.
pub(crate) fn top(pids: &[i32], ps_args: &str) -> Result<ContainerTopResponse> {
    if !matches!(ps_args.trim(), "" | "-ef" | "ef" | "-e -f") {
        return Err(Error::unsupported(format!(
            "top with the ps arguments {ps_args:?} (only -ef is)"
        )));
    }
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        .map(str::to_owned)
        .to_vec();
    let uptime = uptime();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    // A process that has just ended is left out.
    let processes = pids
        .iter()
        .filter_map(|pid| row(*pid, uptime, &users))
        .collect();
    Ok(ContainerTopResponse { titles, processes })
}

fn row(pid: i32, uptime: u64, users: &str) -> Option<Vec<String>> {
    let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?
        .to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    let seconds = (stat.user_ticks + stat.system_ticks) / TICKS;
    let age = uptime.saturating_sub(stat.start_ticks / TICKS);
    Some(vec![
        user_name(&uid, users),
        pid.to_string(),
        stat.parent.to_string(),
        (seconds * 100)
            .checked_div(age)
            .unwrap_or(0)
            .min(99)
            .to_string(),
        start_time(age),
        terminal(stat.tty),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        if command.is_empty() {
            format!("[{}]", stat.name)
        } else {
            command
        },
    ])
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: i32,
    tty: u32,
    user_ticks: u64,
    system_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// proc_pid_stat(5); the name is between the first and the last parenthesis and may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name: text.get(open + 1..close)?.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            tty: fields
                .get(4)?
                .parse::<i64>()
                .ok()
                .and_then(|tty| u32::try_from(tty).ok())
                .unwrap_or(0),
            user_ticks: number(11)?,
            system_ticks: number(12)?,
            start_ticks: number(19)?,
        })
    }
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

/// The name the host's passwd has for a number; numbers mean others inside, but so they do with ps on the host.
fn user_name(uid: &str, passwd: &str) -> String {
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| uid.to_owned())
}

/// `14:05` within a day, `Nov22` before.
fn start_time(age_seconds: u64) -> String {
    let age = jiff::SignedDuration::from_secs(i64::try_from(age_seconds).unwrap_or(0));
    let Ok(started) = Timestamp::now().checked_sub(age) else {
        return "?".to_owned();
    };
    let format = if age_seconds < 86_400 {
        "%H:%M"
    } else {
        "%b%d"
    };
    started
        .to_zoned(TimeZone::system())
        .strftime(format)
        .to_string()
}

fn terminal(device: u32) -> String {
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    match (device >> 8) & 0xfff {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{minor}"),
        4 => format!("tty{minor}"),
        major => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let text = "42 (a) b (c) S 7 42 42 34816 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 9000 1 1";
        assert_eq!(
            Stat::parse(text).unwrap(),
            Stat {
                name: "a) b (c".into(),
                parent: 7,
                tty: 34816,
                user_ticks: 250,
                system_ticks: 50,
                start_ticks: 9000
            }
        );
        assert_eq!(terminal(34816), "pts/0");
        assert_eq!(terminal(0), "?");
    }

    #[test]
    fn this_process_is_listed_and_other_columns_are_refused() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let listed = top(&[pid, i32::MAX], "").unwrap();
        assert_eq!(listed.processes.len(), 1);
        assert_eq!(listed.processes[0].len(), listed.titles.len());
        assert_eq!(listed.processes[0][1], pid.to_string());
        assert!(matches!(top(&[pid], "aux"), Err(Error::NotImplemented(_))));
    }
}
