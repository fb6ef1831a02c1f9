//! `/containers/{}/logs`: lines of a log, framed unless the container has a terminal.

use std::io::Write as _;

use agent_api::{MULTIPLEXED_STREAM, RAW_STREAM, StreamKind};
use bytes::Bytes;
use futures_util::StreamExt;

use super::body;
use super::error::HttpError;
use super::router::{Route, get};
use super::{Call, Outcome};
use crate::engine::LogOptions;
use crate::error::Error;

/// Lines that are there already go out together, at most so many.
const LINES_AT_ONCE: usize = 64;

pub(super) const ROUTES: &[Route] = &[get("/containers/{}/logs", |call| Box::pin(logs(call)))];

async fn logs(call: Call) -> Outcome {
    let options = LogOptions {
        follow: call.query.flag("follow"),
        since: call.query.time("since")?,
        until: call.query.time("until")?,
        tail: call.query.text("tail").parse().ok(),
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
    };
    if !options.stdout && !options.stderr {
        return Err(HttpError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let logs = call.engine.container_logs(&call.name, options).await?;
    let content_type = if logs.tty || call.version.before(42) {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    };
    let chunks = logs
        .lines
        .ready_chunks(LINES_AT_ONCE)
        .map(move |lines| Ok(frame(lines, logs.tty)))
        .take_until(call.closing.cancelled_owned());
    Ok(body::stream(content_type, chunks))
}

fn frame(lines: Vec<Result<(StreamKind, Bytes), Error>>, tty: bool) -> Bytes {
    let mut chunk = Vec::new();
    for line in lines {
        let (kind, bytes) = line.unwrap_or_else(|failure| {
            let mut text = Vec::new();
            writeln!(text, "Error grabbing logs: {failure}").expect("writing to memory");
            (StreamKind::System, text.into())
        });
        if !tty {
            // A longer line cannot be in a log: lines are cut at 16 KiB when they are written.
            let length = u32::try_from(bytes.len()).expect("lines are far shorter than 4 GiB");
            chunk.extend_from_slice(&kind.header(length));
        }
        chunk.extend_from_slice(&bytes);
    }
    chunk.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_framed_unless_there_is_a_terminal() {
        let lines = || {
            vec![
                Ok((StreamKind::Stdout, Bytes::from_static(b"a\n"))),
                Ok((StreamKind::Stderr, Bytes::from_static(b"b\n"))),
                Err(Error::System("gone".into())),
            ]
        };
        assert_eq!(
            &frame(lines(), true)[..],
            b"a\nb\nError grabbing logs: gone\n"
        );
        assert_eq!(
            &frame(lines(), false)[..],
            b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x02b\n\x03\0\0\0\0\0\0\x1aError grabbing logs: gone\n"
        );
    }
}
