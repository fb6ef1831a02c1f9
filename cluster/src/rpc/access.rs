//! Who may call what. A method that is not in the table may be called by nobody.

use agent_api::swarm::NodeRole;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Managers of the cluster.
    Managers,
    /// Nodes of the cluster.
    Nodes,
    /// Whoever found the port.
    Anyone,
}

/// Every method there is, by its path.
pub const METHODS: &[(&str, Access)] = &[
    ("/muster.cluster.v1.Ca/GetRootCertificate", Access::Anyone),
    ("/muster.cluster.v1.Ca/IssueCertificate", Access::Anyone),
    ("/muster.cluster.v1.Ca/RenewCertificate", Access::Nodes),
    ("/muster.cluster.v1.Control/Forward", Access::Managers),
    (
        "/muster.cluster.v1.Dispatcher/AckAssignments",
        Access::Nodes,
    ),
    ("/muster.cluster.v1.Dispatcher/Assignments", Access::Nodes),
    ("/muster.cluster.v1.Dispatcher/Heartbeat", Access::Nodes),
    ("/muster.cluster.v1.Dispatcher/Session", Access::Nodes),
    (
        "/muster.cluster.v1.Dispatcher/UpdateTaskStatus",
        Access::Nodes,
    ),
    ("/muster.cluster.v1.Images/Available", Access::Nodes),
    ("/muster.cluster.v1.Images/Fetch", Access::Nodes),
    ("/muster.cluster.v1.Images/Resolve", Access::Nodes),
    ("/muster.cluster.v1.Logs/Publish", Access::Nodes),
    ("/muster.cluster.v1.Logs/Subscribe", Access::Managers),
    ("/muster.cluster.v1.Membership/Health", Access::Managers),
    ("/muster.cluster.v1.Membership/Join", Access::Managers),
    ("/muster.cluster.v1.Membership/Leave", Access::Managers),
    ("/muster.cluster.v1.Raft/Messages", Access::Managers),
];

/// Whether someone with this role (none: no certificate) may call the method at `path`.
#[must_use]
pub fn allows(path: &str, role: Option<NodeRole>) -> bool {
    let Some((_, access)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return false;
    };
    match access {
        Access::Anyone => true,
        Access::Nodes => role.is_some(),
        Access::Managers => role == Some(NodeRole::Manager),
    }
}
