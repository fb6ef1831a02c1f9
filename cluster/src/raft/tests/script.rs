//! Transcripts: what is done to a group, and what its members say and do then, as text to be read. Each file in `cases` is
//! a list of steps, each followed by `---` and what happened; `UPDATE=1` writes down what happens now.
//!
//! ```text
//! group 3 [key=value …]      members 1, 2, 3; configuration of the driver
//! host 4                     a machine that waits to be added
//! tick 1 [times]             time passes at 1
//! timeout 1                  … until it stands for election
//! propose 1 data …           each word is one proposal; they enter the log together
//! read 2 / transfer 1 2 / add 1 4 / promote 1 4 / remove 1 3 / address 1 3 host:port
//! deliver [count]            messages arrive in the order they were sent, and their consequences
//! drop / again               all messages on their way are lost / are there twice
//! cut 1 2 3 / heal           nothing passes between 1 and the others
//! slow 1 / fast 1 / sync 1   writes at 1 are not durable until told
//! crash 1 / start 1          power fails and comes back
//! status                     all members
//! (command)                  the same, without what happens
//! ```

use std::fmt::Write as _;
use std::path::Path;

use cluster_api::IdSource;

use super::super::log::Start;
use super::super::{Config, MemberChange, ProposalId, RaftId};
use super::Group;

#[test]
fn transcripts_are_as_written_down() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/cases");
    let cases = if cases.exists() {
        cases
    } else {
        Path::new(file!()).with_file_name("cases")
    };
    let mut files: Vec<_> = std::fs::read_dir(&cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut different = Vec::new();
    for file in files {
        let written = std::fs::read_to_string(&file).unwrap();
        let now = play(&written);
        if now == written {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, now).unwrap();
        } else {
            let line = now
                .lines()
                .zip(written.lines())
                .position(|(now, then)| now != then)
                .unwrap_or(0);
            let at = now.lines().nth(line).unwrap_or_default();
            different.push(format!("{}:{}: now {at:?}", file.display(), line + 1));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nUPDATE=1 writes them down",
        different.join("\n")
    );
}

/// The script with what happens now.
fn play(script: &str) -> String {
    let mut group = None;
    let mut out = String::new();
    let mut commands: Vec<&str> = Vec::new();
    let mut in_output = false;
    for line in script.lines().chain([""]) {
        if in_output {
            in_output = !line.is_empty();
            if !in_output {
                out.push('\n');
            }
            continue;
        }
        if line != "---" {
            if !line.is_empty() && !line.starts_with('#') {
                commands.push(line);
            }
            let _ = writeln!(out, "{line}");
            continue;
        }
        out.push_str("---\n");
        for command in commands.drain(..) {
            let quiet = command
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'));
            let happened = perform(&mut group, quiet.unwrap_or(command));
            if quiet.is_none() {
                out.push_str(&happened);
            }
        }
        in_output = true;
    }
    format!("{}\n", out.trim_end())
}

fn perform(slot: &mut Option<Group>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    if words[0] == "group" {
        let mut config = Config::default();
        for setting in &words[2..] {
            let (name, value) = setting.split_once('=').unwrap();
            let value: u64 = value.parse().unwrap();
            match name {
                "snapshot" => config.snapshot_entries = value,
                "keep" => config.keep_entries = value,
                "proposal" => config.max_proposal = value as usize,
                other => panic!("unknown setting {other}"),
            }
        }
        *slot = Some(Group::new(number(1).unwrap(), config));
        return String::new();
    }
    let group = slot.as_mut().expect("a script begins with a group");
    group.trace = Some(String::new());
    let id: RaftId = number(1).unwrap_or(0);
    match words[0] {
        "host" => group.add_host(id, Start::Join),
        "tick" => (0..number(2).unwrap_or(1)).for_each(|_| group.tick(id)),
        "timeout" => group.timeout(id),
        "propose" => {
            for data in &words[2..] {
                group.propose(id, data);
            }
            group.run(id);
        }
        "read" => {
            group.read(id);
            group.run(id);
        }
        "transfer" => {
            if let Err(refused) = group.node(id).transfer_leadership(number(2)) {
                group.say(|| format!("{id} refused: {refused}"));
            }
            group.run(id);
        }
        "add" | "promote" | "remove" | "address" => {
            let member = number(2).unwrap();
            let change = match words[0] {
                "add" => MemberChange::AddLearner {
                    id: member,
                    node_id: format!("n{member}"),
                    address: format!("n{member}:2377"),
                },
                "promote" => MemberChange::Promote { id: member },
                "remove" => MemberChange::Remove { id: member },
                _ => MemberChange::UpdateAddress {
                    id: member,
                    address: words[3].to_owned(),
                },
            };
            group.next += 1;
            let proposal = ProposalId(group.next);
            if let Err(refused) = group.node(id).change_membership(proposal, change) {
                group.say(|| format!("{id} refused: {refused}"));
            }
            group.run(id);
        }
        "deliver" => match number(1) {
            Some(count) => (0..count).for_each(|_| {
                group.deliver_one();
            }),
            None => group.deliver(),
        },
        "drop" => group.network.clear(),
        "again" => {
            let copies = group.network.clone();
            group.network.extend(copies);
        }
        "cut" => {
            let others: Vec<RaftId> = (2..words.len()).filter_map(number).collect();
            group.partition(&[id], &others);
        }
        "heal" => group.heal(),
        "slow" => group.set_slow(id, true),
        "fast" => {
            group.set_slow(id, false);
            group.run(id);
        }
        "sync" => {
            group.sync(id);
            group.run(id);
        }
        "crash" => group.crash(id, &mut IdSource::seeded(1)),
        "start" => group.start(id),
        "status" => status(group),
        other => panic!("unknown command {other}"),
    }
    group.trace.take().unwrap_or_default()
}

fn status(group: &mut Group) {
    let mut lines = Vec::new();
    for (id, host) in &group.hosts {
        let Some((node, _)) = &host.running else {
            lines.push(format!("{id} is down"));
            continue;
        };
        let status = node.status();
        lines.push(format!(
            "{id} {:?} term={} commit={} log={}..={} voters={:?} learners={:?} state={}",
            status.role.state,
            status.role.term,
            status.commit,
            status.first_index,
            status.last_index,
            node.membership().voters().collect::<Vec<_>>(),
            node.membership().learners().collect::<Vec<_>>(),
            host.data().join(" "),
        ));
    }
    for line in lines {
        group.say(|| line);
    }
}
