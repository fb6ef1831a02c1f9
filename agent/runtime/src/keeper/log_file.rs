//! Docker's `json-file` log: one JSON object per line of output, `{"log":"…\n","stream":"stdout","time":"…"}`.
//!
//! Output without a newline is held back until the newline, the end of the stream or 16 KiB, whichever comes first; a
//! part of a longer line is a record without the final newline (moby `daemon/logger/copier.go`). A file is rotated
//! between whole lines, so that readers never join parts across files in the wrong order (moby#41650); only a line that
//! does not end for as long as a whole file is cut.
//!
//! A full disk costs the output of that time and nothing else: a record that could not be written whole is taken back.
//!
//! This module does not read logs: the daemon does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::protocol::LogOptions;

/// Longest part of a line in one record.
const PART_MAX: usize = 16 * 1024;

/// Which of the two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogStream {
    Stdout,
    Stderr,
}

/// The log of one container, open for appending.
#[derive(Debug)]
pub(super) struct LogFile {
    options: LogOptions,
    file: File,
    length: u64,
    /// Output after the last newline, one per stream. Freed when it is written.
    partial: [Vec<u8>; 2],
    /// The last record did not end its line.
    inside_line: bool,
    /// Encoded records of the current write.
    buffer: Vec<u8>,
}

#[derive(Serialize)]
struct Record<'a> {
    log: &'a str,
    stream: &'a str,
    time: &'a str,
}

impl LogFile {
    /// Opens or creates the log; what an earlier run of the container wrote stays.
    pub(super) fn open(options: LogOptions) -> io::Result<Self> {
        let file = append_to(&options.path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            options,
            file,
            length,
            partial: [Vec::new(), Vec::new()],
            inside_line: false,
            buffer: Vec::new(),
        })
    }

    /// Takes what was read from a stream just now; writes the lines that are complete.
    pub(super) fn write(
        &mut self,
        stream: LogStream,
        data: &[u8],
        now: jiff::Timestamp,
    ) -> io::Result<()> {
        let time = format!("{now:.9}");
        let mut rest = data;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            self.line(stream, line, &time)?;
            rest = after;
        }
        self.hold(stream, rest, &time)?;
        self.flush()
    }

    /// The stream has ended: writes what is held back.
    pub(super) fn finish(&mut self, now: jiff::Timestamp) -> io::Result<()> {
        let time = format!("{now:.9}");
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let held = std::mem::take(&mut self.partial[stream as usize]);
            if !held.is_empty() {
                self.record(stream, &held, &time)?;
            }
        }
        self.flush()
    }

    fn line(&mut self, stream: LogStream, line: &[u8], time: &str) -> io::Result<()> {
        if self.partial[stream as usize].is_empty() && line.len() <= PART_MAX {
            return self.record(stream, line, time);
        }
        self.hold(stream, line, time)?;
        let held = std::mem::take(&mut self.partial[stream as usize]);
        if held.is_empty() {
            Ok(())
        } else {
            self.record(stream, &held, time)
        }
    }

    /// Adds to the held part; writes full parts.
    fn hold(&mut self, stream: LogStream, data: &[u8], time: &str) -> io::Result<()> {
        let mut held = std::mem::take(&mut self.partial[stream as usize]);
        held.extend_from_slice(data);
        let mut start = 0;
        while held.len() - start > PART_MAX {
            let end = start + character_boundary(&held[start..], PART_MAX);
            self.record(stream, &held[start..end], time)?;
            start = end;
        }
        held.drain(..start);
        held.shrink_to(if held.is_empty() { 0 } else { PART_MAX });
        self.partial[stream as usize] = held;
        Ok(())
    }

    fn record(&mut self, stream: LogStream, text: &[u8], time: &str) -> io::Result<()> {
        let length = self.length + self.buffer.len() as u64;
        let full = |max: u64| length >= max && (!self.inside_line || length / 2 >= max);
        if self.options.max_size.is_some_and(full) {
            self.flush()?;
            self.rotate()?;
        }
        let name = match stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        };
        let record = Record {
            log: &String::from_utf8_lossy(text),
            stream: name,
            time,
        };
        serde_json::to_writer(&mut self.buffer, &record)?;
        self.buffer.push(b'\n');
        self.inside_line = !text.ends_with(b"\n");
        Ok(())
    }

    /// One write per chunk of output, so that a reader sees whole records.
    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.take_back(&buffer[..buffer.len() - rest.len()])?;
                    return Err(error);
                }
            }
        }
        self.length += buffer.len() as u64;
        Ok(())
    }

    /// Of what was written before an error, whole records stay.
    fn take_back(&mut self, written: &[u8]) -> io::Result<()> {
        let whole = written
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        // Somebody else may have emptied the file, so its length is asked for.
        let end = self.file.metadata()?.len();
        self.file
            .set_len(end.saturating_sub((written.len() - whole) as u64))?;
        self.length += whole as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.options.max_file <= 1 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.options.max_file).rev() {
                let from = if number == 1 {
                    self.options.path.clone()
                } else {
                    numbered(&self.options.path, number - 1)
                };
                match std::fs::rename(&from, numbered(&self.options.path, number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = append_to(&self.options.path)?;
        }
        self.length = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The largest length up to `max` that does not cut a UTF-8 character in two (bytes that are no UTF-8 are cut anywhere).
fn character_boundary(bytes: &[u8], max: usize) -> usize {
    (max.saturating_sub(3)..=max)
        .rev()
        .find(|end| bytes[*end] & 0xC0 != 0x80)
        .unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn open(dir: &tempfile::TempDir, max_size: Option<u64>, max_file: u32) -> LogFile {
        LogFile::open(LogOptions {
            path: dir.path().join("x-json.log"),
            max_size,
            max_file,
        })
        .unwrap()
    }

    fn records(dir: &tempfile::TempDir, name: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        text.lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                (
                    value["stream"].as_str().unwrap().to_owned(),
                    value["log"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    fn now() -> jiff::Timestamp {
        "2024-05-01T10:00:00.000000001Z".parse().unwrap()
    }

    #[test]
    fn the_record_has_dockers_shape() {
        let dir = tempfile::tempdir().unwrap();
        open(&dir, None, 1)
            .write(LogStream::Stderr, b"a \"b\"\n", now())
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("x-json.log")).unwrap(),
            "{\"log\":\"a \\\"b\\\"\\n\",\"stream\":\"stderr\",\"time\":\"2024-05-01T10:00:00.000000001Z\"}\n"
        );
    }

    #[test]
    fn lines_are_joined_across_reads_and_streams_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir, None, 1);
        log.write(LogStream::Stdout, b"one\ntw", now()).unwrap();
        log.write(LogStream::Stderr, b"err", now()).unwrap();
        log.write(LogStream::Stdout, b"o\nthree", now()).unwrap();
        log.finish(now()).unwrap();
        let pair = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
        assert_eq!(
            records(&dir, "x-json.log"),
            [
                pair("stdout", "one\n"),
                pair("stdout", "two\n"),
                pair("stdout", "three"),
                pair("stderr", "err")
            ]
        );
    }

    #[test]
    fn long_lines_are_split_at_16_kib_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir, None, 1);
        let line = "ü".repeat(25_000) + "\n";
        for chunk in line.as_bytes().chunks(4096) {
            log.write(LogStream::Stdout, chunk, now()).unwrap();
        }
        let parts: Vec<String> = records(&dir, "x-json.log")
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(parts.concat(), line);
        assert!(
            parts.len() == 4 && parts.iter().all(|part| part.len() <= PART_MAX),
            "{}",
            parts.len()
        );
        assert!(log.partial.iter().all(|held| held.capacity() == 0));
    }

    #[test]
    fn files_rotate_between_lines_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir, Some(200), 3);
        for number in 0..20 {
            log.write(
                LogStream::Stdout,
                format!("line {number:02}\n").as_bytes(),
                now(),
            )
            .unwrap();
        }
        let mut all = Vec::new();
        for name in ["x-json.log.2", "x-json.log.1", "x-json.log"] {
            let here = records(&dir, name);
            assert!(!here.is_empty(), "{name}");
            all.extend(here.into_iter().map(|(_, text)| text));
        }
        assert!(!dir.path().join("x-json.log.3").exists());
        let expected: Vec<String> = (20 - all.len()..20)
            .map(|number| format!("line {number:02}\n"))
            .collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_single_file_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir, Some(100), 1);
        for number in 0..9 {
            log.write(LogStream::Stdout, format!("{number}\n").as_bytes(), now())
                .unwrap();
        }
        assert!(
            std::fs::metadata(dir.path().join("x-json.log"))
                .unwrap()
                .len()
                < 250
        );
    }
}
