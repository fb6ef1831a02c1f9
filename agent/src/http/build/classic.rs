//! Docker's classic way of building: a tar in the body, lines of JSON back, as docker without buildx, docker-py and the
//! rest speak it. All of the Dockerfile language is accepted.
//!
//! The lines look like those of dockerd's own legacy builder, because programs look for `Successfully built`; the steps
//! they tell of are the ones that do something.
//!
//! Source: moby `daemon/server/router/build/build_routes.go`, `daemon/builder/dockerfile`.

mod lines;
mod query;

use agent_api::ProgressMessage;
use agent_api::build::{BuildFailure, BuildResult, FailureKind};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::builder::{Ask, Builder, Job, Progress, Session};
use crate::engine::ByteReceiver;
use crate::http::error::HttpError;
use crate::http::{Call, Outcome, body};
use lines::Lines;

/// Lines that wait for the client.
const LINES: usize = 64;

pub(super) async fn build(call: Call) -> Outcome {
    let request = query::request(&call.query, &call.headers, call.version)?;
    let (quiet, with_ids) = (call.query.flag("q"), !call.version.before(30));
    let (builder, archive) = (call.builder.clone(), call.archive());
    let (session, questions) = Session::channel();
    let job = Job {
        request,
        session: Some(session),
        peer: None,
        classic: true,
    };
    let (sender, mut receiver) = mpsc::channel(LINES);
    // The client reads the reply while it may still be sending: what builds is a task of its own, dropped with the reply.
    let work = async move {
        tokio::select! {
            () = run(builder, job, quiet, with_ids, &sender) => {}
            () = give_body(questions, archive) => {}
        }
    };
    let mut work = Box::pin(work);
    // A failure before there is anything to tell is a reply with a status.
    let first = tokio::select! {
        first = receiver.recv() => first,
        () = &mut work => receiver.recv().await,
    };
    let first = match first {
        Some(Line::Refused(failure)) => return Err(refused(*failure)),
        Some(line) => line,
        None => return Err(HttpError::internal("the build ended without a word")),
    };
    let rest = stream::unfold((receiver, Some(work)), |(mut receiver, mut work)| async {
        loop {
            let Some(running) = &mut work else {
                return receiver.recv().await.map(|line| (line, (receiver, work)));
            };
            tokio::select! {
                biased;
                line = receiver.recv() => return line.map(|line| (line, (receiver, work))),
                () = running => work = None,
            }
        }
    });
    let all = stream::iter([first]).chain(rest).map(Line::message);
    Ok(body::json_lines(all))
}

/// What the client is told.
enum Line {
    Message(Box<ProgressMessage>),
    /// The build failed before there was anything to tell.
    Refused(Box<BuildFailure>),
}

impl Line {
    fn message(self) -> ProgressMessage {
        match self {
            Self::Message(message) => *message,
            Self::Refused(failure) => lines::failure(&failure),
        }
    }
}

fn refused(failure: BuildFailure) -> HttpError {
    let message = failure
        .message
        .trim_start_matches("failed to solve: ")
        .to_owned();
    match failure.kind {
        FailureKind::Invalid | FailureKind::Step => HttpError::bad_request(message),
        FailureKind::Cancelled | FailureKind::System => HttpError::internal(message),
    }
}

/// Builds and tells of it.
async fn run(builder: Builder, job: Job, quiet: bool, with_ids: bool, sender: &mpsc::Sender<Line>) {
    let progress = Progress::default();
    let mut lines = Lines::default();
    let mut said = false;
    let told = async {
        while let Some(status) = progress.next().await {
            for message in lines.take(&status) {
                if !quiet {
                    said = true;
                    let _ = sender.send(Line::Message(Box::new(message))).await;
                }
            }
        }
    };
    let (result, ()) = tokio::join!(builder.build(&job, &progress), told);
    let mut rest = match &result {
        Ok(result) => success(result, quiet, with_ids, &mut lines),
        Err(failure) if !said => {
            let _ = sender.send(Line::Refused(failure.clone())).await;
            return;
        }
        Err(failure) => lines.failed(failure),
    };
    for message in rest.drain(..) {
        let _ = sender.send(Line::Message(Box::new(message))).await;
    }
}

fn success(
    result: &BuildResult,
    quiet: bool,
    with_ids: bool,
    lines: &mut Lines,
) -> Vec<ProgressMessage> {
    if quiet {
        return vec![lines::text(format!("{}\n", result.image_id))];
    }
    let mut rest = lines.rest();
    if !result.image_id.is_empty() {
        if with_ids {
            rest.push(ProgressMessage {
                aux: Some(serde_json::json!({ "ID": result.image_id })),
                ..ProgressMessage::default()
            });
        }
        let short = result.image_id.trim_start_matches("sha256:");
        let short = short.get(..12).unwrap_or(short);
        rest.push(lines::text(format!("Successfully built {short}\n")));
    }
    for name in &result.names {
        rest.push(lines::text(format!("Successfully tagged {name}\n")));
    }
    rest
}

/// Gives the body to the build when it asks for its context; there is nothing else that such a client can be asked for.
async fn give_body(mut questions: mpsc::Receiver<Ask>, archive: ByteReceiver) {
    let mut archive = Some(archive);
    while let Some(question) = questions.recv().await {
        match question {
            Ask::Context { name, reply } if name.is_empty() => {
                let _ = reply.send(archive.take());
            }
            Ask::Context { reply, .. } | Ask::Cache { reply, .. } => drop(reply.send(None)),
            Ask::Secret { reply, .. } | Ask::Credentials { reply, .. } => drop(reply.send(None)),
            Ask::Ssh { reply, .. } => drop(reply.send(None)),
            Ask::Output { reply, .. } => drop(reply.send(None)),
        }
    }
    std::future::pending().await
}
