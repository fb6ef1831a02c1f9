//! Looking at a cgroup and steering its processes: freeze, kill, usage, out-of-memory kills.
//!
//! The unified hierarchy tells of its frozen state through `cgroup.events`; the freezer of v1 tells nobody, and one that
//! is still busy has to be asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};

use super::files::{failed, is_missing, read, read_limit, read_number, write};
use super::stats::{BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};
use super::{Cgroup, CgroupError, Version};

/// How long a v1 freezer is asked before giving up; each time the kernel visits every task once more, and each task
/// needs a moment on a processor to stop.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions once the first ones did not help. The freezer of v1 notifies nobody.
const FREEZE_PAUSE: Duration = Duration::from_micros(200);
/// How long one change of the unified hierarchy's frozen state may take, in seconds.
const FREEZE_SECONDS: i64 = 10;
/// How often new processes of a session are looked for.
const KILL_ROUNDS: u32 = 100;

impl Cgroup {
    /// Suspends every process; returns when all of them are.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        match self.v1_directory("freezer") {
            Some(directory) => freeze_v1(directory),
            None => set_frozen_v2(self.v2_or_missing()?, true),
        }
    }

    /// Resumes them.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.v1_directory("freezer") {
            Some(directory) => write(&directory.join("freezer.state"), "THAWED"),
            None => set_frozen_v2(self.v2_or_missing()?, false),
        }
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        match self.v1_directory("freezer") {
            Some(directory) => Ok(read(&directory.join("freezer.state"))?.trim() == "FROZEN"),
            None => Ok(event(&self.v2_or_missing()?.join("cgroup.events"), "frozen")? == 1),
        }
    }

    /// Kills every process, also in cgroups below, and thaws it so that they can die.
    ///
    /// On the unified hierarchy (Linux 5.14) that is one write. Otherwise the cgroup is frozen first, so that nobody
    /// can fork away from the signal.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(directory) = &self.v2 {
            match write(&directory.join("cgroup.kill"), "1") {
                Ok(()) => return self.thaw_if_frozen(),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let processes = match self.processes() {
            Ok(processes) if processes.is_empty() => return Ok(()),
            Ok(_) => {
                // A freezer that does not get everybody still stops most; the loop below catches the rest.
                let _ = self.freeze();
                self.processes()?
            }
            Err(error) => return Err(error),
        };
        let mut pending: BTreeSet<i32> = processes.into_iter().collect();
        let mut killed = BTreeSet::new();
        while !pending.is_empty() {
            for pid in &pending {
                kill_process(*pid)?;
            }
            killed.extend(pending.iter().copied());
            pending = self
                .processes()?
                .into_iter()
                .filter(|pid| !killed.contains(pid))
                .collect();
        }
        self.thaw_if_frozen()
    }

    /// Kills the processes of a session, which is what an exec and its descendants are unless they make their own. Ends
    /// when nobody new is found, so that what is forked meanwhile goes as well; a process that is killed forks no more,
    /// so few rounds are enough unless something forks faster than it can be looked at. `leader` may have ended: its number is
    /// not given away while the session has a process.
    pub fn kill_session(&self, leader: i32) -> Result<(), CgroupError> {
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let found = self.processes()?;
            let before = killed.len();
            for pid in found {
                if !killed.contains(&pid) && kill_if_of_session(pid, leader)? {
                    killed.insert(pid);
                }
            }
            if killed.len() == before {
                break;
            }
        }
        Ok(())
    }

    fn thaw_if_frozen(&self) -> Result<(), CgroupError> {
        match self.thaw() {
            Err(error) if is_missing(&error) => Ok(()),
            other => other,
        }
    }

    /// All processes in it and below.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        // Any hierarchy has them all; the unified one is the one others' tools leave alone.
        let Some(directory) = self
            .v2
            .as_deref()
            .or_else(|| self.v1.first().map(|d| d.path.as_path()))
        else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        collect_processes(directory, &mut found)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Usage now.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        match self.version {
            Version::V2 => stats_v2(self.v2_or_missing()?),
            Version::V1 | Version::Hybrid => stats_v1(self),
        }
    }

    /// How many processes the kernel killed for want of memory. Read it before [`Cgroup::remove`].
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match self.v1_directory("memory") {
            // since Linux 4.13
            Some(directory) => event(&directory.join("memory.oom_control"), "oom_kill"),
            None => match &self.v2 {
                Some(directory) if self.version == Version::V2 => {
                    event(&directory.join("memory.events"), "oom_kill")
                }
                _ => Ok(0),
            },
        }
    }

    /// A descriptor to wait on for out-of-memory events, to be drained and then checked with [`Cgroup::oom_kills`]:
    /// an eventfd on v1, an inotify descriptor on v2. `None` without a memory controller.
    pub fn oom_events(&self) -> Result<Option<OwnedFd>, CgroupError> {
        if let Some(directory) = self.v1_directory("memory") {
            return oom_eventfd(directory).map(Some);
        }
        let Some(directory) = self.v2.as_ref().filter(|_| self.version == Version::V2) else {
            return Ok(None);
        };
        let events = directory.join("memory.events");
        if !events.exists() {
            return Ok(None);
        }
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|errno| failed("watch", &events, errno))?;
        inotify::add_watch(&watch, &events, inotify::WatchFlags::MODIFY)
            .map_err(|errno| failed("watch", &events, errno))?;
        Ok(Some(watch))
    }
}

fn oom_eventfd(directory: &Path) -> Result<OwnedFd, CgroupError> {
    use std::os::fd::AsRawFd;
    let path = directory.join("memory.oom_control");
    let control = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", &path, errno))?;
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    let event = rustix::event::eventfd(0, flags).map_err(|errno| failed("watch", &path, errno))?;
    write(
        &directory.join("cgroup.event_control"),
        &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok(event)
}

/// A fork in progress keeps a v1 cgroup at FREEZING; thawing and freezing again gets past it (as runc does).
fn freeze_v1(directory: &Path) -> Result<(), CgroupError> {
    let state = directory.join("freezer.state");
    let started = Instant::now();
    for attempt in 0_u32.. {
        write(&state, "FROZEN")?;
        if read(&state)?.trim() == "FROZEN" {
            return Ok(());
        }
        if started.elapsed() > FREEZE_PATIENCE {
            break;
        }
        if attempt % 50 == 49 {
            write(&state, "THAWED")?;
        }
        if attempt < 50 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(FREEZE_PAUSE);
        }
    }
    write(&state, "THAWED")?;
    Err(failed(
        "freeze",
        directory,
        io::Error::from(io::ErrorKind::TimedOut),
    ))
}

/// Writes and waits for the kernel's word on it.
fn set_frozen_v2(directory: &Path, frozen: bool) -> Result<(), CgroupError> {
    let events = directory.join("cgroup.events");
    let file = rustix::fs::open(&events, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", &events, errno))?;
    write(
        &directory.join("cgroup.freeze"),
        if frozen { "1" } else { "0" },
    )?;
    loop {
        if event(&events, "frozen")? == u64::from(frozen) {
            return Ok(());
        }
        // A change shows as POLLPRI. Reading anew before each wait leaves no gap.
        let mut fds = [PollFd::new(&file, PollFlags::PRI)];
        let timeout = Timespec {
            tv_sec: FREEZE_SECONDS,
            tv_nsec: 0,
        };
        let ready =
            poll(&mut fds, Some(&timeout)).map_err(|errno| failed("watch", &events, errno))?;
        if ready == 0 {
            return Err(failed(
                "freeze",
                directory,
                io::Error::from(io::ErrorKind::TimedOut),
            ));
        }
        let mut drain = [0u8; 256];
        let _ = rustix::io::pread(&file, &mut drain, 0);
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) -> Result<(), CgroupError> {
    match read(&directory.join("cgroup.procs")) {
        Ok(text) => found.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        ),
        Err(error) if is_missing(&error) => return Ok(()),
        // A threaded cgroup lists its processes in the one above.
        Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn kill_process(pid: i32) -> Result<(), CgroupError> {
    let Some(process) = rustix::process::Pid::from_raw(pid) else {
        return Ok(());
    };
    match rustix::process::kill_process(process, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(failed(
            format!("kill process {pid} of"),
            Path::new("/proc"),
            errno,
        )),
    }
}

/// Whether a process is of the session; it is killed then. The descriptor is opened first, so that the process looked at
/// is the one that is killed.
fn kill_if_of_session(pid: i32, session: i32) -> Result<bool, CgroupError> {
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let fail = |errno: rustix::io::Errno| {
        failed(format!("kill process {pid} of"), Path::new("/proc"), errno)
    };
    let Some(process) = rustix::process::Pid::from_raw(pid) else {
        return Ok(false);
    };
    let pidfd = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // Ended, or a thread that is not a process of its own.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(false),
        Err(errno) => return Err(fail(errno)),
    };
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Ok(false);
    };
    if session_of(&stat) != Some(session) {
        return Ok(false);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(true),
        Err(errno) => Err(fail(errno)),
    }
}

/// The session in a line of `/proc/<pid>/stat`. The name before it may contain anything.
fn session_of(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    // state, parent, process group, session
    fields.split_whitespace().nth(3)?.parse().ok()
}

/// A number from a file of `name value` lines; 0 when the name is not there.
fn event(path: &Path, name: &str) -> Result<u64, CgroupError> {
    Ok(table(&read(path)?).remove(name).unwrap_or(0))
}

/// `name value` lines.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn stats_v1(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(directory) = cgroup.v1_directory("cpuacct") {
        let mut cpu = CpuStats {
            usage_ns: read_number(&directory.join("cpuacct.usage"))?,
            ..CpuStats::default()
        };
        // In clock ticks; Linux has told user space 100 per second for ever.
        let ticks = table(&read(&directory.join("cpuacct.stat"))?);
        cpu.user_ns = ticks
            .get("user")
            .copied()
            .unwrap_or(0)
            .saturating_mul(10_000_000);
        cpu.system_ns = ticks
            .get("system")
            .copied()
            .unwrap_or(0)
            .saturating_mul(10_000_000);
        let per_cpu = read(&directory.join("cpuacct.usage_percpu"))?;
        cpu.per_cpu_ns = per_cpu
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if let Some(directory) = cgroup.v1_directory("cpu") {
            let periods = table(&read(&directory.join("cpu.stat"))?);
            let value = |name: &str| periods.get(name).copied().unwrap_or(0);
            cpu.periods = value("nr_periods");
            cpu.throttled_periods = value("nr_throttled");
            cpu.throttled_ns = value("throttled_time");
        }
        stats.cpu = Some(cpu);
    }
    if let Some(directory) = cgroup.v1_directory("memory") {
        let usage_bytes = read_number(&directory.join("memory.usage_in_bytes"))?;
        let sum = read_number(&directory.join("memory.memsw.usage_in_bytes")).ok();
        stats.memory = Some(MemoryStats {
            usage_bytes,
            max_usage_bytes: read_number(&directory.join("memory.max_usage_in_bytes")).ok(),
            limit_bytes: read_limit(&directory.join("memory.limit_in_bytes"))?,
            failcnt: read_number(&directory.join("memory.failcnt"))?,
            swap_bytes: sum.map(|sum| sum.saturating_sub(usage_bytes)),
            detail: table(&read(&directory.join("memory.stat"))?),
        });
    }
    if let Some(directory) = cgroup.v1_directory("pids") {
        stats.pids = Some(pids(directory)?);
    }
    if let Some(directory) = cgroup.v1_directory("blkio") {
        stats.blkio = blkio_v1(directory)?;
    }
    Ok(stats)
}

fn pids(directory: &Path) -> Result<PidsStats, CgroupError> {
    Ok(PidsStats {
        current: read_number(&directory.join("pids.current"))?,
        limit: read_limit(&directory.join("pids.max"))?,
    })
}

fn blkio_v1(directory: &Path) -> Result<Vec<BlkioStats>, CgroupError> {
    let mut devices: BTreeMap<(u32, u32), BlkioStats> = BTreeMap::new();
    for (file, bytes) in [
        ("blkio.throttle.io_service_bytes_recursive", true),
        ("blkio.throttle.io_serviced_recursive", false),
    ] {
        let text = match read(&directory.join(file)) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(error),
        };
        // MAJOR:MINOR Operation value
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [device, operation, value] = words.as_slice() else {
                continue;
            };
            let (Some(numbers), Ok(value)) = (device_numbers(device), value.parse::<u64>()) else {
                continue;
            };
            let entry = devices.entry(numbers).or_default();
            (entry.major, entry.minor) = numbers;
            match (*operation, bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.write_bytes = value,
                ("Read", false) => entry.read_operations = value,
                ("Write", false) => entry.write_operations = value,
                _ => {}
            }
        }
    }
    Ok(devices.into_values().collect())
}

fn device_numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn stats_v2(directory: &Path) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    let microseconds = table(&read(&directory.join("cpu.stat"))?);
    let nanoseconds = |name: &str| {
        microseconds
            .get(name)
            .copied()
            .unwrap_or(0)
            .saturating_mul(1000)
    };
    let count = |name: &str| microseconds.get(name).copied().unwrap_or(0);
    stats.cpu = Some(CpuStats {
        usage_ns: nanoseconds("usage_usec"),
        user_ns: nanoseconds("user_usec"),
        system_ns: nanoseconds("system_usec"),
        per_cpu_ns: Vec::new(),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
    });
    let file = |name: &str| -> PathBuf { directory.join(name) };
    if file("memory.current").exists() {
        stats.memory = Some(MemoryStats {
            usage_bytes: read_number(&file("memory.current"))?,
            max_usage_bytes: read_number(&file("memory.peak")).ok(),
            limit_bytes: read_limit(&file("memory.max"))?,
            failcnt: event(&file("memory.events"), "max")?,
            swap_bytes: read_number(&file("memory.swap.current")).ok(),
            detail: table(&read(&file("memory.stat"))?),
        });
    }
    if file("pids.current").exists() {
        stats.pids = Some(pids(directory)?);
    }
    if let Ok(text) = read(&file("io.stat")) {
        stats.blkio = text.lines().filter_map(io_stat_line).collect();
    }
    Ok(stats)
}

/// `MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4 …`
fn io_stat_line(line: &str) -> Option<BlkioStats> {
    let mut words = line.split_whitespace();
    let (major, minor) = device_numbers(words.next()?)?;
    let mut stats = BlkioStats {
        major,
        minor,
        ..BlkioStats::default()
    };
    for word in words {
        let (name, value) = word.split_once('=')?;
        let value = value.parse().unwrap_or(0);
        match name {
            "rbytes" => stats.read_bytes = value,
            "wbytes" => stats.write_bytes = value,
            "rios" => stats.read_operations = value,
            "wios" => stats.write_operations = value,
            _ => {}
        }
    }
    Some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_is_read_per_device() {
        let stats =
            io_stat_line("8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0")
                .unwrap();
        assert_eq!(
            (
                stats.major,
                stats.minor,
                stats.read_bytes,
                stats.write_operations
            ),
            (8, 16, 1_459_200, 353)
        );
        assert!(io_stat_line("").is_none());
        assert!(io_stat_line("x:y rbytes=1").is_none());
    }
}
