//! `/services/{}/logs` and `/tasks/{}/logs`: lines from every node that runs or ran the tasks, as they come in. Each line
//! says where it is from in its details (moby `daemon/cluster/services.go`, `httputils/write_log_stream.go`).

use std::io::Write as _;

use agent_api::{MULTIPLEXED_STREAM, RAW_STREAM, StreamKind};
use bytes::Bytes;
use cluster::control::view;
use futures_util::StreamExt as _;

use super::error::HttpError;
use super::{Call, Outcome, body};
use crate::engine::LogOptions;
use crate::error::{Error, Result};
use crate::swarm::{LogLine, LogSelector};

const CONTEXT: &str = "com.docker.swarm";

/// What the name in the path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Service,
    Task,
}

pub(super) async fn logs(call: Call, source: Source) -> Outcome {
    let options = options(&call)?;
    let name = call.name;
    let (selector, tty) = call
        .swarm
        .read(move |store, _| -> Result<_, cluster::control::Refusal> {
            let has_tty = |template: &agent_api::swarm::TaskSpec| {
                let container = template.container_spec.as_ref();
                container.is_some_and(|container| container.tty)
            };
            Ok(match source {
                Source::Service => {
                    let service = view::service(store, &name, view::Detail::Plain)?;
                    let tty = has_tty(&service.spec.task_template);
                    (LogSelector::Service(service.id), tty)
                }
                Source::Task => {
                    let task = view::task(store, &name)?;
                    (LogSelector::Task(task.id), has_tty(&task.spec))
                }
            })
        })
        .await?
        .map_err(Error::from)?;
    let content_type = if tty || call.version.before(42) {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    };
    let (timestamps, details) = (options.timestamps, options.details);
    let lines = call.swarm.logs(selector, options).await?;
    let chunks = lines
        .map(move |line| Ok(frame(line, tty, timestamps, details)))
        .take_until(call.closing.cancelled_owned());
    Ok(body::stream(content_type, chunks))
}

fn options(call: &Call) -> Result<LogOptions, HttpError> {
    let (stdout, stderr) = (call.query.flag("stdout"), call.query.flag("stderr"));
    if !stdout && !stderr {
        return Err(HttpError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let tail = match call.query.text("tail") {
        "" | "all" => None,
        text => match text.parse::<i64>() {
            Ok(negative) if negative < 0 => {
                return Err(HttpError::bad_request("negative tail values not supported"));
            }
            Ok(lines) => usize::try_from(lines).ok(),
            Err(_) => {
                return Err(HttpError::bad_request(
                    "tail value must be a positive integer or \"all\"",
                ));
            }
        },
    };
    let since = call.query.time("since").map_err(|refused| {
        HttpError::bad_request(format!(
            "could not parse since timestamp: {}",
            refused.message
        ))
    })?;
    Ok(LogOptions {
        follow: call.query.flag("follow"),
        since,
        until: None,
        tail,
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
        stdout,
        stderr,
    })
}

/// One line as the client gets it: time, details, text.
fn frame(line: Result<LogLine>, tty: bool, timestamps: bool, details: bool) -> Bytes {
    let mut text = Vec::new();
    let kind = match line {
        Ok(line) => {
            if timestamps {
                write!(text, "{:.9} ", line.time).expect("writing to memory");
            }
            if details {
                write_details(&mut text, &line);
            }
            text.extend_from_slice(&line.text);
            line.stream
        }
        Err(failure) => {
            writeln!(text, "Error grabbing logs: {failure}").expect("writing to memory");
            StreamKind::System
        }
    };
    let mut chunk = Vec::with_capacity(text.len() + 8);
    if !tty {
        let length = u32::try_from(text.len()).expect("lines are far shorter than 4 GiB");
        chunk.extend_from_slice(&kind.header(length));
    }
    chunk.append(&mut text);
    chunk.into()
}

/// `key=value,key=value `, keys and values escaped, sorted by key.
fn write_details(text: &mut Vec<u8>, line: &LogLine) {
    let mut details = line.details.clone();
    for (what, id) in [
        ("node", &line.node_id),
        ("service", &line.service_id),
        ("task", &line.task_id),
    ] {
        // Nobody but the managers says where a line is from.
        let key = format!("{CONTEXT}.{what}.id");
        details.retain(|(other, _)| *other != key);
        details.push((key, id.clone()));
    }
    details.sort();
    let escape =
        |part: &str| -> String { url::form_urlencoded::byte_serialize(part.as_bytes()).collect() };
    let details: Vec<_> = details
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    text.extend_from_slice(details.join(",").as_bytes());
    text.push(b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLine {
        LogLine {
            node_id: "n".into(),
            service_id: "s".into(),
            task_id: "t".into(),
            time: "2026-01-02T03:04:05.5Z".parse().unwrap(),
            stream: StreamKind::Stderr,
            details: vec![
                ("a key".into(), "x=y".into()),
                ("com.docker.swarm.node.id".into(), "forged".into()),
            ],
            text: Bytes::from_static(b"hello\n"),
        }
    }

    #[test]
    fn lines_say_when_and_where_they_were_written() {
        assert_eq!(&frame(Ok(line()), true, false, false)[..], b"hello\n");
        assert_eq!(
            &frame(Ok(line()), true, true, true)[..],
            b"2026-01-02T03:04:05.500000000Z a+key=x%3Dy,com.docker.swarm.node.id=n,\
              com.docker.swarm.service.id=s,com.docker.swarm.task.id=t hello\n"
        );
        assert_eq!(
            &frame(Ok(line()), false, false, false)[..],
            b"\x02\0\0\0\0\0\0\x06hello\n"
        );
        assert_eq!(
            &frame(Err(Error::system("gone")), false, false, false)[..8],
            b"\x03\0\0\0\0\0\0\x1a"
        );
    }
}
