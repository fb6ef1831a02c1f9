//! What a command printed and how it ended, with assertions that show all of it when they fail.

use std::fmt;

/// A finished command.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Asserts that the command succeeded; gives stdout without its final newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout.trim_end().to_owned()
    }

    /// Asserts the exit code and that stderr (or stdout) contains a text.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, code, "{self}");
        assert!(
            self.stderr.contains(text) || self.stdout.contains(text),
            "expected {text:?} from {self}"
        );
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\n-- exit code {}\n-- stdout\n{}\n-- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
