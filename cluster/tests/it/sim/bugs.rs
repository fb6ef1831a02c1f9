//! Mistakes made on purpose, outside of the product, in what drives it here: whether the checks notice.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The disk says that a write is durable before it is.
    AcknowledgeBeforeSync,
    /// A snapshot arrives without the members of the group: its receiver believes that it is alone.
    SnapshotWithoutMembership,
    /// The agent takes assignments of any leader for those of the present one.
    StaleAssignments,
    /// A snapshot is made of the store as it is when there is time, not as it was when it was asked for.
    SnapshotOfLaterState,
    /// After a restart the agent does not find the containers that run.
    ContainersNotFound,
    /// The agent says that its balancers are programmed before they are.
    AcknowledgeBeforeProgrammed,
}

/// Takes all members but the receiver out of the head of a snapshot on its way (`src/raft/message.rs`, `src/raft/snapshot.rs`).
pub(super) fn forget_members(message: &mut [u8]) {
    const CHUNK: u8 = 2;
    const TO: usize = 9;
    const OFFSET: usize = 17 + 3 * 8;
    const BYTES: usize = 17 + 5 * 8;
    let first_piece = message.first() == Some(&CHUNK)
        && message.get(OFFSET..OFFSET + 8) == Some(&[0; 8])
        && message.len() > BYTES + 4;
    if !first_piece {
        return;
    }
    let mut to = [0; 8];
    to.copy_from_slice(&message[TO..TO + 8]);
    let to = u64::from_le_bytes(to).to_string();
    let piece = &mut message[BYTES..];
    let length = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]) as usize;
    let Some(json) = piece.get_mut(4..4 + length) else {
        return;
    };
    let Ok(mut head) = serde_json::from_slice::<serde_json::Value>(json) else {
        return;
    };
    let Some(members) = head["membership"]["members"].as_object_mut() else {
        return;
    };
    members.retain(|id, _| *id == to);
    for member in members.values_mut() {
        member["suffrage"] = "Voter".into();
    }
    let mut forged = serde_json::to_vec(&head).expect("JSON that was read can be written");
    // As long as before: white space behind a value means nothing.
    forged.resize(length, b' ');
    json.copy_from_slice(&forged);
}
