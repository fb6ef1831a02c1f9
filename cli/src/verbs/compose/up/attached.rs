//! `up` in the foreground: converge, show the output of the containers, and stop them on Ctrl-C.
//!
//! ```text
//! execute the plan ──▶ show lines until no attached container runs ──▶ exit code
//!        │                      │ Ctrl-C, or --abort-on-…: stop all ──▶ second Ctrl-C: kill all ──▶ 130
//!        └─ lines are shown from the first start on
//! ```

use super::{UpArgs, perform, session};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::prefix::{Prefixes, Style};
use crate::render::progress::Progress;
use crate::verbs::compose::perform::INTERRUPTED;
use crate::verbs::compose::project::ProjectFlags;
use agent_api::Client;
use compose::plan::options::{Selection, UpOptions};
use compose::read::logs::{Follow, LogItem, LogOptions, Origin, follow};
use compose::read::ps::containers;
use compose_model::{Loaded, Project};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Lines on their way to the terminal.
const QUEUE: usize = 256;
/// Two signals within this time are one wish.
const SAME_KEYPRESS: Duration = Duration::from_millis(300);

pub(super) async fn up(
    session: &Session,
    flags: &ProjectFlags,
    args: &UpArgs,
    loaded: &Loaded,
    options: &UpOptions,
) -> Outcome {
    let client = session.client().await?;
    let project = &loaded.project;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let lock = session::lock(client, &project.name, "up")?;
    args.convergence.prepare(session, flags, loaded).await?;
    let observed = compose::observe(client, &project.name, Some(project)).await?;
    let plan = compose::plan::reconcile(project, &loaded.sources, &observed, options)?;
    session::warn(&plan);

    let services = attached_services(args, project);
    let now = Timestamp::now();
    let log_options = LogOptions {
        services: services.iter().cloned().collect(),
        index: None,
        follow: Follow::UntilDropped,
        tail: None,
        since: Some(format!(
            "{}.{:09}",
            now.as_second(),
            now.subsec_nanosecond()
        )),
        until: None,
        timestamps: args.timestamps,
    };
    let style = Style {
        prefix: !args.no_log_prefix,
        colour: !args.no_color && flags.coloured(out::stdout_is_terminal()),
    };
    let mut view = View {
        prefixes: Prefixes::new(style),
        services: &services,
    };
    view.expect(args, project);
    let (sender, mut items) = mpsc::channel(QUEUE);
    let follow = follow(client, &project.name, &log_options, sender).fuse();
    tokio::pin!(follow);

    // First part: the plan is carried out while lines of what has started are shown.
    let (cancel, cancelled) = watch::channel(false);
    let progress = Mutex::new(perform::progress(flags));
    shown(&progress).begin(&plan);
    let mut on_event = |event: compose::Event<'_>| shown(&progress).event(&event);
    let execute_options = perform::options(flags, None);
    let mut early = Vec::new();
    let executed = {
        let execute = compose::execute(client, &plan, &execute_options, cancelled, &mut on_event);
        tokio::pin!(execute);
        loop {
            tokio::select! {
                result = &mut execute => break result,
                Some(item) = items.recv() => {
                    shown(&progress).interrupt(|| view.show(&item))?;
                    early.push(item);
                }
                result = &mut follow => result?,
                _ = stopped(&mut interrupts, &mut terminations), if !*cancel.borrow() => {
                    shown(&progress).interrupt(|| out::note("\nGracefully stopping... (press Ctrl+C again to force)"));
                    let _ = cancel.send(true);
                }
            }
        }
    };
    shown(&progress).end();
    drop(lock);
    let interrupted = *cancel.borrow();
    if let Err(error) = executed
        && !interrupted
    {
        return Err(error.into());
    }

    // Second part: until nothing attached runs any more, or somebody wants it to end.
    let mut why = if interrupted {
        Some(End::Interrupted)
    } else {
        early_end(args, &early)
    };
    if why.is_none() {
        if !early
            .iter()
            .any(|item| matches!(item, LogItem::Line { .. }))
        {
            out::note(format!(
                "Attaching to {}",
                services.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
        let mut running = any_running(client, project, &services).await?;
        while running && why.is_none() {
            tokio::select! {
                item = items.recv() => match item {
                    Some(item) => {
                        view.show(&item)?;
                        if let LogItem::Exited { origin, exit_code } = &item {
                            why = args.end_by(origin, *exit_code);
                            running = any_running(client, project, &services).await?;
                        }
                    }
                    None => running = false,
                },
                result = &mut follow => result?,
                _ = stopped(&mut interrupts, &mut terminations) => {
                    out::note("\nGracefully stopping... (press Ctrl+C again to force)");
                    why = Some(End::Interrupted);
                }
            }
        }
    }
    if let Some(End::Aborted { .. }) = &why {
        out::note("Aborting on container exit...");
    }
    let mut exits = Exits::default();
    early.iter().for_each(|item| exits.note(item));
    if why.is_some() {
        let progress = Mutex::new(perform::progress(flags));
        let stop = stop_all(
            client,
            flags,
            args,
            project,
            &progress,
            &mut interrupts,
            &mut terminations,
        );
        tokio::pin!(stop);
        loop {
            tokio::select! {
                result = &mut stop => break result?,
                Some(item) = items.recv() => {
                    shown(&progress).interrupt(|| view.show(&item))?;
                    exits.note(&item);
                }
                result = &mut follow => result?,
            }
        }
    }
    // Lines and exits that are on their way already.
    while let Some(Some(item)) = items.recv().now_or_never() {
        view.show(&item)?;
        exits.note(&item);
    }
    exit_code(client, project, args, why, &exits).await
}

/// The executor reports from this task too: the lock is never waited for.
fn shown(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the foreground ends before its containers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Interrupted,
    Aborted { exit_code: i64 },
}

impl UpArgs {
    fn end_by(&self, _origin: &Origin, exit_code: i64) -> Option<End> {
        let aborts = self.abort_on_container_exit
            || self.exit_code_from.is_some()
            || (self.abort_on_container_failure && exit_code != 0);
        aborts.then_some(End::Aborted { exit_code })
    }
}

/// An exit that came while the plan was still being carried out.
fn early_end(args: &UpArgs, items: &[LogItem]) -> Option<End> {
    items.iter().find_map(|item| match item {
        LogItem::Exited { origin, exit_code } => args.end_by(origin, *exit_code),
        _ => None,
    })
}

#[derive(Default)]
struct Exits(Vec<(String, i64)>);

impl Exits {
    fn note(&mut self, item: &LogItem) {
        if let LogItem::Exited { origin, exit_code } = item {
            self.0.push((origin.service.clone(), *exit_code));
        }
    }
}

async fn exit_code(
    client: &Client,
    project: &Project,
    args: &UpArgs,
    why: Option<End>,
    exits: &Exits,
) -> Outcome {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "exit takes the low byte"
    )]
    let low_byte = |code: i64| code as u8;
    if let Some(End::Interrupted) = why {
        return Err(Failure::silent(INTERRUPTED).into());
    }
    if let Some(service) = &args.exit_code_from {
        // The state says it even when the exit was not seen.
        for row in containers(client, &project.name, true).await? {
            if row.service == *service && !row.oneoff {
                return Ok(low_byte(
                    client
                        .inspect_container(&row.summary.id)
                        .await?
                        .state
                        .exit_code,
                ));
            }
        }
        let seen = exits
            .0
            .iter()
            .rfind(|(name, _)| name == service)
            .map_or(0, |(_, code)| *code);
        return Ok(low_byte(seen));
    }
    match why {
        Some(End::Aborted { exit_code }) => Ok(low_byte(exit_code)),
        _ => Ok(0),
    }
}

async fn stopped(interrupts: &mut Signal, terminations: &mut Signal) {
    tokio::select! {
        _ = interrupts.recv() => {}
        _ = terminations.recv() => {}
    }
}

/// A further wish to end. One keypress may arrive twice, from the terminal and from a supervisor that passes it on:
/// what comes right after the first is the same one.
async fn insisted(interrupts: &mut Signal, terminations: &mut Signal) {
    let first = Instant::now();
    loop {
        stopped(interrupts, terminations).await;
        if first.elapsed() >= SAME_KEYPRESS {
            return;
        }
    }
}

/// Stops the project's containers in order; a further Ctrl-C kills them.
async fn stop_all(
    client: &Client,
    flags: &ProjectFlags,
    args: &UpArgs,
    project: &Project,
    progress: &Mutex<Progress>,
    interrupts: &mut Signal,
    terminations: &mut Signal,
) -> anyhow::Result<()> {
    let selection = Selection {
        services: args.services.clone(),
        stop_timeout: args.timeout.map(Duration::from_secs),
        ..Default::default()
    };
    let observed = compose::observe(client, &project.name, Some(project)).await?;
    let stop = compose::plan::stop(&project.name, Some(project), &observed, &selection)?;
    shown(progress).begin(&stop);
    let (_keep, never) = watch::channel(false);
    let options = perform::options(flags, None);
    let result = {
        let mut show = |event: compose::Event<'_>| shown(progress).event(&event);
        let run = compose::execute(client, &stop, &options, never, &mut show);
        tokio::select! {
            result = run => Some(result),
            () = insisted(interrupts, terminations) => None,
        }
    };
    shown(progress).end();
    match result {
        Some(result) => Ok(result?),
        None => kill_all(client, project, &args.services).await,
    }
}

async fn kill_all(client: &Client, project: &Project, services: &[String]) -> anyhow::Result<()> {
    let observed = compose::observe(client, &project.name, Some(project)).await?;
    let kill = compose::plan::kill(&project.name, Some(project), &observed, services, "SIGKILL")?;
    let (_keep, never) = watch::channel(false);
    let mut progress = Progress::Plain;
    let mut show = |event: compose::Event<'_>| progress.event(&event);
    Ok(compose::execute(
        client,
        &kill,
        &compose::ExecuteOptions::default(),
        never,
        &mut show,
    )
    .await?)
}

async fn any_running(
    client: &Client,
    project: &Project,
    services: &BTreeSet<String>,
) -> anyhow::Result<bool> {
    let rows = containers(client, &project.name, false).await?;
    Ok(rows
        .iter()
        .any(|row| !row.oneoff && services.contains(&row.service)))
}

/// Services whose output is shown: those named, else all; `attach: false` and `--no-attach` are left out.
fn attached_services(args: &UpArgs, project: &Project) -> BTreeSet<String> {
    let chosen: Vec<&String> = if !args.attach.is_empty() {
        args.attach.iter().collect()
    } else if args.services.is_empty() || args.attach_dependencies {
        project.services.keys().collect()
    } else {
        args.services.iter().collect()
    };
    let wanted = |name: &&String| {
        let off = project
            .services
            .get(*name)
            .is_some_and(|service| service.attach == Some(false));
        !args.no_attach.contains(name) && (!off || args.attach.contains(name))
    };
    chosen.into_iter().filter(wanted).cloned().collect()
}

/// Lines of the attached services on stdout.
struct View<'a> {
    prefixes: Prefixes,
    services: &'a BTreeSet<String>,
}

impl View<'_> {
    /// Makes room for the containers that will come.
    fn expect(&mut self, args: &UpArgs, project: &Project) {
        let scale = args.convergence.scale().unwrap_or_default();
        for name in self.services {
            let replicas = scale.get(name).copied().or_else(|| {
                project
                    .services
                    .get(name)
                    .map(compose_model::ServiceConfig::replicas)
            });
            self.prefixes.know(name, replicas.unwrap_or(1).max(1));
        }
    }

    fn show(&mut self, item: &LogItem) -> std::io::Result<()> {
        match item {
            LogItem::Line { origin, line, .. } => {
                out::bytes(&self.prefixes.line(&origin.service, origin.number, line))
            }
            LogItem::Exited { origin, exit_code } => out::line(self.prefixes.exited(
                &origin.service,
                origin.number,
                *exit_code,
            )),
            LogItem::Unavailable { origin, reason } => {
                out::note(format!(
                    "warning: cannot read the output of {}: {reason}",
                    origin.container
                ));
                Ok(())
            }
        }
    }
}
