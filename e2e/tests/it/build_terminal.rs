//! Builds on a real terminal: what stands on the screen when they are over, also on a narrow one and after Ctrl-C.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use e2e::{Host, muster_executable};
use regex::Regex;
use rexpect::process::WaitStatus;
use rexpect::session::PtySession;
use rustix::process::{Pid, Signal, kill_process};

/// Milliseconds until something that was expected counts as missing.
const PATIENCE: u64 = 20_000;

/// What a terminal shows after some output. Knows what progress is drawn with, and panics at anything else.
#[derive(Debug)]
struct Screen {
    width: usize,
    height: usize,
    /// With what has left at the top.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    cursor: bool,
    /// Lines that went on in the next one.
    wrapped: usize,
    coloured: bool,
}

impl Screen {
    fn after(output: &str, width: usize, height: usize) -> Self {
        let mut screen = Self {
            width,
            height,
            lines: vec![Vec::new()],
            row: 0,
            column: 0,
            cursor: true,
            wrapped: 0,
            coloured: false,
        };
        let mut rest = output.chars();
        while let Some(char) = rest.next() {
            match char {
                '\r' => screen.column = 0,
                '\n' => screen.down(),
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "an escape of another kind");
                    let mut number = String::new();
                    let end = rest.by_ref().find(|char| {
                        let ends = char.is_ascii_alphabetic();
                        if !ends {
                            number.push(*char);
                        }
                        ends
                    });
                    screen.escape(&number, end.expect("an escape ends"));
                }
                char => screen.put(char),
            }
        }
        screen
    }

    fn escape(&mut self, number: &str, end: char) {
        match (number, end) {
            ("?25", 'l') => self.cursor = false,
            ("?25", 'h') => self.cursor = true,
            (_, 'm') => self.coloured = true,
            // Never above what can be seen.
            (count, 'A') => {
                let top = self.lines.len().saturating_sub(self.height);
                let up = count.parse().unwrap_or(1);
                self.row = self.row.saturating_sub(up).max(top);
            }
            (column, 'G') => self.column = column.parse::<usize>().unwrap_or(1).saturating_sub(1),
            ("" | "0", 'K') => self.lines[self.row].truncate(self.column),
            ("2", 'K') => self.lines[self.row].clear(),
            other => panic!("the escape {other:?} is not known here"),
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, char: char) {
        if self.column == self.width {
            self.wrapped += 1;
            self.column = 0;
            self.down();
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = char;
        self.column += 1;
    }

    fn text(&self) -> String {
        let lines = self.lines.iter();
        let lines = lines.map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The line that contains a text; there is just one.
    #[track_caller]
    fn line(&self, text: &str) -> String {
        let all = self.text();
        let found: Vec<&str> = all.lines().filter(|line| line.contains(text)).collect();
        assert_eq!(found.len(), 1, "{text:?} in\n{all}");
        found[0].to_owned()
    }
}

fn on_terminal(host: &Host, (width, height): (usize, usize), arguments: &[&str]) -> PtySession {
    let line = format!("stty rows {height} cols {width} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &line])
        .arg(muster_executable())
        .args(arguments)
        .current_dir(host.path(""))
        .env("MUSTER_HOST", host.socket())
        .env("HOME", host.path(""))
        .env_remove("NO_COLOR")
        .env_remove("BUILDKIT_PROGRESS")
        .env("TERM", "xterm");
    rexpect::session::spawn_command(command, Some(PATIENCE)).expect("start on a terminal")
}

#[track_caller]
fn over(mut session: PtySession, size: (usize, usize), before: &str) -> (i32, Screen) {
    let output = session.exp_eof().expect("it ends");
    let WaitStatus::Exited(_, code) = session.process().wait().expect("reap the command") else {
        panic!("it was killed: {output}")
    };
    (
        code,
        Screen::after(&format!("{before}{output}"), size.0, size.1),
    )
}

const WIDE: (usize, usize) = (101, 33);
const NARROW: (usize, usize) = (44, 12);

#[test]
fn the_last_picture_tells_what_was_built() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8; do echo line $i; done\nRUN echo second > /second\n",
    );
    let build = |size, more: &[&str]| {
        let arguments = [&["build", "-t", "shown"], more, &["c"]].concat();
        over(on_terminal(&host, size, &arguments), size, "")
    };
    let (code, screen) = build(WIDE, &[]);
    assert_eq!(code, 0, "{}", screen.text());
    assert!(screen.cursor && screen.coloured && screen.wrapped == 0);
    let head = screen.line("[+] Building");
    let done = Regex::new(r"^\[\+\] Building \d+\.\ds \((\d+)/(\d+)\) FINISHED +muster:default$");
    let counts = done.unwrap().captures(&head).expect("a head of its kind");
    assert_eq!(counts[1], counts[2], "{head}");
    let step = screen.line("=> [2/3] RUN for i in 1 2 3");
    assert!(
        step.ends_with('s') && step.chars().count() == WIDE.0,
        "{step}"
    );
    screen.line("=> [3/3] RUN echo second > /second");
    screen.line("=> => naming to docker.io/library/shown");
    assert!(!screen.text().contains("# line"), "{}", screen.text());

    let (_, screen) = build(WIDE, &[]);
    screen.line("=> CACHED [2/3] RUN for i in");
    // What does not fit is cut, not carried over; nothing is left of earlier pictures.
    let (code, screen) = build(NARROW, &["--no-cache"]);
    assert_eq!((code, screen.wrapped), (0, 0), "{}", screen.text());
    screen.line("[+] Building");
    screen.line("=> [2/3] RUN for i in 1");
    assert!(screen.lines.iter().all(|line| line.len() <= NARROW.0));
    host.finish();
}

#[test]
fn a_failing_step_stands_below_with_its_lines() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\nRUN echo the reason; \\\n    exit 3\nRUN true\n",
    );
    for size in [WIDE, NARROW] {
        let session = on_terminal(&host, size, &["build", "c"]);
        let (code, screen) = over(session, size, "");
        let text = screen.text();
        assert_eq!(code, 1, "{text}");
        assert!(screen.cursor, "{text}");
        screen.line("=> ERROR [2/3] RUN echo the reason");
        for expected in [
            " > [2/3] RUN echo the reason;",
            "the reason",
            "Dockerfile:2\n",
            "   2 | >>> RUN echo the reason; \\",
            "   3 | >>>     exit 3",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
        // A long line goes on in the next ones, as the terminal does it.
        let joined: String = text.split_whitespace().collect();
        let reason = "didnotcompletesuccessfully:exitcode:3";
        assert!(joined.ends_with(reason), "{text}");
    }
    // Without colours all of it is the same.
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "stty rows 33 cols 101 && NO_COLOR=1 exec \"$0\" build c",
        ])
        .arg(muster_executable())
        .current_dir(host.path(""))
        .env("MUSTER_HOST", host.socket())
        .env("HOME", host.path(""));
    let session = rexpect::session::spawn_command(command, Some(PATIENCE)).unwrap();
    let (_, screen) = over(session, WIDE, "");
    screen.line("=> ERROR [2/3] RUN echo the reason");
    assert!(!screen.coloured, "{}", screen.text());
    host.finish();
}

#[test]
fn ctrl_c_leaves_a_terminal_that_can_be_used() {
    let host = Host::start();
    host.write("c/Dockerfile", "FROM busybox\nRUN echo began; sleep 1000\n");
    let mut session = on_terminal(&host, WIDE, &["build", "c"]);
    let before = session.exp_string("# began").expect("the step runs");
    session.send("\x03").unwrap();
    session.flush().unwrap();
    // What came with the text that was waited for belongs to the picture.
    let (code, screen) = over(session, WIDE, &format!("{before}# began"));
    let text = screen.text();
    assert_ne!(code, 0, "{text}");
    assert!(screen.cursor && screen.wrapped == 0, "{text}");
    screen.line("=> CANCELED [2/2] RUN echo began");
    assert!(text.contains("context canceled"), "{text}");
    assert_eq!(screen.column, 0, "the prompt begins a line: {text}");
    host.finish();
}

#[test]
fn a_step_that_is_interrupted_ends_as_cancelled_in_lines_and_in_json() {
    let host = Host::start();
    host.write("c/Dockerfile", "FROM busybox\nRUN echo began; sleep 1000\n");
    // Output of the step, then its end; both as BuildKit writes them.
    for (mode, began, ended) in [
        ("plain", " began", r"(?m)^#\d+ CANCELED$"),
        (
            "rawjson",
            "YmVnYW4K",
            r#"(?m)^\{"vertexes":\[\{.*"name":"\[2/2\] RUN [^"]*","started":"[^"]+","completed":"[^"]+","error":"context canceled"\}\]\}$"#,
        ),
    ] {
        let mut build = Command::new(muster_executable())
            .args(["build", "--progress", mode, "c"])
            .current_dir(host.path(""))
            .env("MUSTER_HOST", host.socket())
            .env("HOME", host.path(""))
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a build");
        let mut lines = BufReader::new(build.stderr.take().expect("it is piped"));
        let mut text = String::new();
        while !text.contains(began) {
            assert_ne!(lines.read_line(&mut text).unwrap(), 0, "{text}");
        }
        let id = Pid::from_child(&build);
        kill_process(id, Signal::INT).expect("interrupt the build");
        lines.read_to_string(&mut text).unwrap();
        assert_eq!(build.wait().unwrap().code(), Some(130), "{text}");
        assert!(Regex::new(ended).unwrap().is_match(&text), "{text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.ends_with("context canceled"), "{text}");
    }
    host.finish();
}
