//! The raft crate's own log lines, handed to `tracing` one level below what they say: what it calls information is of use
//! to developers only.

use std::fmt;

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

const TARGET: &str = "raft";

pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut line = Line(record.msg().to_string());
        // Formatting into a string cannot fail.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: TARGET, "{}", line.0),
            Level::Warning => tracing::warn!(target: TARGET, "{}", line.0),
            Level::Info => tracing::debug!(target: TARGET, "{}", line.0),
            Level::Debug | Level::Trace => tracing::trace!(target: TARGET, "{}", line.0),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => {
                tracing::enabled!(target: TARGET, tracing::Level::ERROR)
            }
            Level::Warning => tracing::enabled!(target: TARGET, tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
            Level::Debug | Level::Trace => tracing::enabled!(target: TARGET, tracing::Level::TRACE),
        }
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        use fmt::Write as _;
        write!(self.0, ", {key}: {value}")?;
        Ok(())
    }
}
