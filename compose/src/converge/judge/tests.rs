use super::*;
use serde_json::{Value, json};

fn service(extra: Value) -> Service {
    let mut value = json!({
        "ID": "s1",
        "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 2}}, "TaskTemplate": {}},
    });
    for (pointer, value_of) in extra.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[key] = value_of.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// `slot state desired [error]`, oldest first.
fn tasks(lines: &[&str]) -> Vec<Task> {
    let task = |(index, line): (usize, &&str)| {
        let mut words = line.splitn(4, ' ');
        let slot = words.next().unwrap();
        let (slot, node) = match slot.parse::<u64>() {
            Ok(slot) => (slot, "n1"),
            Err(_) => (0, slot),
        };
        let (state, desired) = (words.next().unwrap(), words.next().unwrap());
        let error = words.next().unwrap_or_default();
        serde_json::from_value(json!({
            "ID": format!("t{index}"), "ServiceID": "s1", "CreatedAt": format!("{index:05}"), "Slot": slot, "NodeID": node,
            "DesiredState": desired, "Status": {"State": state, "Err": error},
        }))
        .unwrap()
    };
    lines.iter().enumerate().map(task).collect()
}

fn nodes() -> BTreeMap<String, String> {
    [("n1", "one"), ("n2", "two")]
        .map(|(id, name)| (id.to_owned(), name.to_owned()))
        .into()
}

fn look(extra: Value, lines: &[&str]) -> Progress {
    judge(&service(extra), &tasks(lines), &nodes(), Expected::Forward)
}

fn reasons(outlook: &Outlook) -> Vec<String> {
    match outlook {
        Outlook::Lost(reasons) | Outlook::Waiting(reasons) => {
            reasons.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn running_tasks_are_steady_and_starting_ones_move() {
    let both = look(json!({}), &["1 running running", "2 running running"]);
    assert_eq!(
        (both.done, both.total, both.outlook),
        (2, Some(2), Outlook::Steady)
    );
    let one = look(json!({}), &["1 running running", "2 starting running"]);
    assert_eq!((one.done, one.outlook), (1, Outlook::Moving));
    assert_eq!(one.rows[1].label, "2/2");
    assert_eq!(look(json!({}), &[]).outlook, Outlook::Moving);
}

#[test]
fn what_was_told_to_stop_does_not_count() {
    let old = look(
        json!({}),
        &["1 running shutdown", "1 ready ready", "2 running running"],
    );
    assert_eq!((old.done, old.outlook), (1, Outlook::Moving));
    let away = judge(
        &service(json!({})),
        &tasks(&["1 running running", "2 running running"]),
        &BTreeMap::new(),
        Expected::Forward,
    );
    assert_eq!(away.done, 0, "a node that is down");
}

#[test]
fn one_shot_tasks_that_ended_well_are_done() {
    let once = json!({"/Spec/TaskTemplate/RestartPolicy": {"Condition": "on-failure"}});
    let done = look(
        once.clone(),
        &["1 complete shutdown", "2 complete shutdown"],
    );
    assert_eq!(done.outlook, Outlook::Settled);
    let again = look(
        once,
        &[
            "1 failed shutdown exit 1",
            "1 complete shutdown",
            "2 running running",
        ],
    );
    assert_eq!((again.done, again.outlook), (2, Outlook::Steady));
    let forever = look(
        json!({}),
        &["1 complete shutdown", "1 ready ready", "2 running running"],
    );
    assert_eq!(forever.outlook, Outlook::Moving);
}

#[test]
fn a_task_that_keeps_failing_is_told_with_its_reason() {
    let failing = look(
        json!({}),
        &[
            "1 failed shutdown task: non-zero exit (1)",
            "1 failed shutdown task: non-zero exit (1)",
            "1 failed shutdown task: non-zero exit (2)",
            "1 ready ready",
            "2 running running",
        ],
    );
    assert_eq!(
        reasons(&failing.outlook),
        ["web.1 failed on one: task: non-zero exit (2) (3 times so far)"]
    );
    let recovered = look(
        json!({}),
        &[
            "1 failed shutdown x",
            "1 failed shutdown x",
            "1 failed shutdown x",
            "1 running running",
            "2 running running",
        ],
    );
    assert_eq!(recovered.outlook, Outlook::Steady);
}

#[test]
fn nothing_follows_where_the_policy_forbids_it() {
    let never = json!({"/Spec/TaskTemplate/RestartPolicy": {"Condition": "none"}});
    let failed = look(never, &["1 failed shutdown boom", "2 running running"]);
    assert_eq!(
        reasons(&failed.outlook),
        ["web.1 failed on one: boom; its restart policy lets nothing follow"]
    );
    let between = look(json!({}), &["1 failed running boom", "2 running running"]);
    assert_eq!(
        between.outlook,
        Outlook::Moving,
        "the managers have not decided yet"
    );
}

#[test]
fn what_cannot_be_placed_says_why() {
    let waiting = look(
        json!({}),
        &[
            "1 pending running no suitable node (1 node not available)",
            "2 running running",
        ],
    );
    assert!(matches!(waiting.outlook, Outlook::Waiting(_)));
    assert_eq!(
        reasons(&waiting.outlook),
        ["web.1 pending on one: no suitable node (1 node not available)"]
    );
}

#[test]
fn rollouts_that_stop_or_go_back_are_failures() {
    let paused = look(
        json!({"/UpdateStatus": {"State": "paused", "Message": "update paused due to failure"}}),
        &["1 running running", "2 failed running boom"],
    );
    assert_eq!(
        reasons(&paused.outlook),
        [
            "web: update paused: update paused due to failure",
            "web.2 failed on one: boom"
        ]
    );
    let back =
        json!({"/UpdateStatus": {"State": "rollback_completed", "Message": "rollback completed"}});
    let running = ["1 running running", "2 running running"];
    assert!(matches!(
        look(back.clone(), &running).outlook,
        Outlook::Lost(_)
    ));
    let asked = judge(&service(back), &tasks(&running), &nodes(), Expected::Back);
    assert_eq!(asked.outlook, Outlook::Steady, "going back was asked for");
    let updating = look(json!({"/UpdateStatus": {"State": "updating"}}), &running);
    assert_eq!(
        updating.outlook,
        Outlook::Moving,
        "old tasks may still be replaced"
    );
}

#[test]
fn global_services_have_a_row_per_node() {
    let global = json!({"/Spec/Mode": {"Global": {}}});
    assert_eq!(look(global.clone(), &[]).total, None);
    let both = look(
        global,
        &[
            "n1 running running",
            "n2 running running",
            "n9 running running",
        ],
    );
    assert_eq!((both.done, both.total), (2, Some(2)), "n9 is down");
    assert_eq!(both.rows[1].label, "two");
    assert_eq!(both.outlook, Outlook::Steady);
}

#[test]
fn surplus_slots_have_no_row() {
    let three = look(
        json!({}),
        &[
            "1 running running",
            "2 running running",
            "3 running running",
        ],
    );
    assert_eq!(three.rows.len(), 2);
    assert_eq!(three.outlook, Outlook::Moving, "one is too many");
}
