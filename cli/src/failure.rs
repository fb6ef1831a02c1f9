//! How a command ends: its exit code, and what is said when it fails.

use agent_api::client::ClientError;
use std::fmt::Write as _;
use std::io;

/// Exit code of a usage error, as Docker's.
pub(crate) const USAGE: u8 = 125;

/// An ended command; `Ok` carries the exit code.
pub(crate) type Outcome = anyhow::Result<u8>;

/// An error with an exit code of its own; the message is empty when everything was said already.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Ends with a code and without a word.
    pub(crate) fn silent(code: u8) -> Self {
        Self::new(code, "")
    }
}

/// A flag or an argument that cannot be used (exit 125 for `run` and `create`, 1 otherwise is the caller's choice).
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::new(USAGE, message).into()
}

/// The exit code of an error that reached `main`, and its text for stderr.
pub(crate) fn report(error: &anyhow::Error) -> (u8, String) {
    if error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
    {
        // Whoever read the output has gone: end as SIGPIPE would.
        return (141, String::new());
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        let text = if failure.message.is_empty() {
            String::new()
        } else {
            format!("muster: {}", failure.message)
        };
        return (failure.code, text);
    }
    (1, describe(error))
}

/// An error and its causes on one line, with Docker's prefix for what the daemon said.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    if let Some(api @ ClientError::Api { .. }) = error.downcast_ref::<ClientError>() {
        return format!("Error response from daemon: {api}");
    }
    let mut text = String::from("muster: ");
    for (index, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        // A cause that its parent already quotes is not said twice.
        if index == 0 || !text.ends_with(&cause) {
            let _ = write!(text, "{}{cause}", if index == 0 { "" } else { ": " });
        }
    }
    text
}

/// The code `docker run` ends with when its container could not be started.
pub(crate) fn start_code(message: &str) -> u8 {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&[
        "executable file not found",
        "no such file or directory",
        "not found in $PATH",
    ]) {
        127
    } else if has(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        USAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_failures_have_dockers_codes() {
        for (message, code) in [
            (
                "exec: \"nope\": executable file not found in $PATH: unknown",
                127,
            ),
            (
                "exec: \"/nope\": stat /nope: no such file or directory",
                127,
            ),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("exec: \"/etc\": is a directory: permission denied", 126),
            ("driver failed programming external connectivity", 125),
        ] {
            assert_eq!(start_code(message), code, "{message}");
        }
    }

    #[test]
    fn reports_carry_code_and_words() {
        assert_eq!(
            report(&Failure::new(125, "x").into()),
            (125, "muster: x".to_owned())
        );
        assert_eq!(report(&Failure::silent(3).into()), (3, String::new()));
        let api = ClientError::Api {
            status: 404,
            message: "No such container: a".to_owned(),
        };
        assert_eq!(
            report(&api.into()),
            (
                1,
                "Error response from daemon: No such container: a".to_owned()
            )
        );
        let pipe =
            anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert_eq!(report(&pipe), (141, String::new()));
        let chain = anyhow::anyhow!("inner").context("outer");
        assert_eq!(report(&chain), (1, "muster: outer: inner".to_owned()));
    }
}
