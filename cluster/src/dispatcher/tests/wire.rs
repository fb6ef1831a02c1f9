//! What is sent is what arrives, and what makes no sense is refused.

use cluster_api::{TaskState, TaskStatus, proto};

use super::World;
use crate::dispatcher::{
    Assignments, Registration, SessionState, statuses_from_wire, statuses_to_wire,
};

#[test]
fn messages_survive_the_wire() {
    let mut world = World::in_session(2);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.want("web.1", cluster_api::DesiredState::Shutdown);
    world.pass(11_000, &["n1", "n2"]);
    world.report("web.1", TaskState::Shutdown);
    let agent = world.agents.get_mut("n1").unwrap();
    let messages = std::mem::take(&mut agent.news);
    assert!(messages.len() > 3);
    for message in messages {
        let wire = proto::AssignmentsMessage::from(&message);
        assert_eq!(Assignments::try_from(wire).unwrap(), message);
    }
    let state = agent.state.clone().unwrap();
    assert_eq!(
        SessionState::try_from(proto::SessionState::from(&state)).unwrap(),
        state
    );

    let registration = Registration {
        description: state.node.description.clone().unwrap(),
        address: "[fd00::1]:2377".to_owned(),
        data_path_addr: Some("fd00::1".parse().unwrap()),
        seen_at: String::new(),
    };
    let wire = proto::SessionRequest::from(&registration);
    assert_eq!(Registration::try_from(wire).unwrap(), registration);

    let statuses = vec![("web.1".to_owned(), TaskStatus::default())];
    let [report] = <[_; 1]>::try_from(statuses_to_wire(statuses.clone())).unwrap();
    assert_eq!(statuses_from_wire(report).unwrap(), statuses);
}

/// A leader takes messages of 4 MiB, and ends the session of who sends more.
#[test]
fn reports_are_bounded_in_bytes_and_lose_no_status() {
    let statuses = (0..1_500).map(|number| {
        let status = TaskStatus {
            error: "\"\u{1b}[31m".repeat(1 + number % 9_000),
            ..TaskStatus::default()
        };
        (format!("t{number}"), status)
    });
    let huge = TaskStatus {
        error: "x".repeat(3 << 20),
        ..TaskStatus::default()
    };
    let statuses = statuses.chain((0..3).map(|number| (format!("huge{number}"), huge.clone())));
    let mut ids = Vec::new();
    for report in statuses_to_wire(statuses) {
        let bytes: usize = report.iter().map(|update| update.status.len()).sum();
        assert!(bytes <= 1 << 20 && !report.is_empty(), "{bytes}");
        ids.extend(report.into_iter().map(|update| update.task_id));
    }
    assert_eq!((ids.len(), ids[0].as_str()), (1_503, "t0"));
    assert_eq!(ids[1_502], "huge2");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let change = |action: i32, kind: &str, object: &'static [u8]| proto::AssignmentsMessage {
        kind: proto::AssignmentsKind::Incremental.into(),
        changes: vec![proto::AssignmentChange {
            action,
            kind: kind.to_owned(),
            id: "x".to_owned(),
            object: object.into(),
        }],
        ..proto::AssignmentsMessage::default()
    };
    let refusals = [
        Assignments::try_from(proto::AssignmentsMessage::default()),
        Assignments::try_from(change(1, "volume", b"{}")),
        Assignments::try_from(change(7, "task", b"{}")),
        Assignments::try_from(change(1, "task", b"{\"id\":7}")),
    ];
    let texts: Vec<_> = refusals
        .into_iter()
        .map(|r| r.unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    kind of assignments "0" is unknown
    kind of assignment "volume" is unknown
    action of an assignment "7" is unknown
    read task "x"
    "#);
    let request = proto::SessionRequest {
        description: b"{}".as_slice().into(),
        data_path_address: "here".to_owned(),
        ..proto::SessionRequest::default()
    };
    let refusal = Registration::try_from(request).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the address \"here\" is not an IP address"
    );
}
