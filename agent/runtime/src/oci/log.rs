//! Messages of `muster oci`: standard error, and the file its caller reads errors from.
//!
//! The JSON form (`level`, `msg`, `time`) is what containerd's shim and conmon parse.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use super::args::{Globals, LogFormat};
use super::{OciError, failed};

/// Where messages go.
pub(crate) struct Log {
    file: Option<Mutex<File>>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(globals: &Globals) -> Result<Log, OciError> {
        let file = match &globals.log {
            Some(path) => Some(Mutex::new(
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(failed(format!("open log {}", path.display())))?,
            )),
            None => None,
        };
        Ok(Log {
            file,
            format: globals.log_format,
            debug: globals.debug,
        })
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() || self.format == LogFormat::Json {
            to_stderr(message);
        }
    }

    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        match &self.file {
            Some(file) => {
                if let Ok(mut file) = file.lock() {
                    // One write per line: several processes share the file.
                    let _ = file.write_all(format!("{line}\n").as_bytes());
                }
            }
            None if self.format == LogFormat::Text => {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            None => {}
        }
    }
}

/// A message for a person.
pub(crate) fn to_stderr(message: &str) {
    let _ = writeln!(std::io::stderr(), "muster oci: {message}");
}
