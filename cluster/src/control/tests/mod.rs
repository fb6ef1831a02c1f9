//! The rules as tables: a request and the text it is refused with, which is Docker's (28.5, taken from its replies, less
//! the prefix `rpc error: code = … desc = `).

mod cluster;
mod crossing;
mod networks;
mod nodes;
mod payloads;
mod services;
mod shapes;

use std::collections::BTreeSet;

use agent_api::swarm::{NodeRole, NodeState, Reachability, ServiceSpec};
use cluster_api::{Cluster, IdSource, Node, Now, Object, RaftMember, Time, Timestamp};
use serde_json::{Value, json};

use super::{Decision, Refusal, Reply, Request, decide, ingress_spec, initial_spec};
use crate::Context;
use crate::store::{Store, Transaction};

/// A store that requests are decided on and applied to, as on a leader that is alone.
struct World {
    store: Store,
    ids: IdSource,
}

impl World {
    /// A cluster with its ingress network.
    fn new() -> Self {
        let mut world = Self::empty();
        world.put(Cluster {
            id: "cluster".into(),
            spec: initial_spec(&agent_api::swarm::SwarmSpec::default()).expect("nothing was given"),
            ..Cluster::default()
        });
        world.put(cluster_api::Network {
            id: "ingress-id".into(),
            spec: ingress_spec(),
            ..cluster_api::Network::default()
        });
        world
    }

    fn empty() -> Self {
        Self {
            store: Store::default(),
            ids: IdSource::seeded(1),
        }
    }

    fn now(&self) -> Now {
        let index = self.store.index();
        Now {
            mono: Time(index * 1000),
            wall: Timestamp(
                1_700_000_000_000_000_000 + i64::try_from(index).unwrap() * 1_000_000_000,
            ),
        }
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Refusal> {
        // As it comes from a follower.
        let request = Request::decode(&request.encode()).unwrap();
        let now = self.now();
        decide(
            &request,
            &mut Context {
                store: &self.store,
                now,
                ids: &mut self.ids,
            },
        )
    }

    /// Decides and applies.
    fn request(&mut self, request: Request) -> Result<Reply, Refusal> {
        let decision = self.decide(&request)?;
        self.apply(&decision.transaction);
        Ok(Reply::decode(&decision.reply.encode()).unwrap())
    }

    fn apply(&mut self, transaction: &Transaction) {
        self.store
            .apply(self.store.index() + 1, transaction)
            .expect("it was decided on this very store");
    }

    /// Writes an object as another part of the cluster would.
    fn put(&mut self, object: impl Into<Object>) {
        let object: Object = object.into();
        let mut transaction = Transaction::new(self.now().wall);
        match self.store.object(object.kind(), object.id()) {
            None => transaction.create(object),
            Some(old) => {
                let mut new = object;
                new.set_meta(old.meta());
                transaction.update(new);
            }
        }
        self.apply(&transaction);
    }

    fn created(&mut self, request: Request) -> String {
        match self.request(request) {
            Ok(Reply::Created(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, request: Request) -> String {
        let before = self.store.clone();
        let refusal = self.request(request).expect_err("a refusal");
        assert_eq!(before, self.store, "a refusal changes nothing");
        assert_eq!(Refusal::decode(&refusal.encode()).unwrap(), refusal);
        format!("{} {refusal}", status(&refusal))
    }

    fn service(&mut self, spec: Value) -> String {
        self.created(create(spec))
    }

    fn version(&self, service: &str) -> u64 {
        self.store.service(service).unwrap().meta.version
    }

    fn manager(&mut self, id: &str, raft_id: u64) {
        self.put(Node {
            id: id.into(),
            spec: agent_api::swarm::NodeSpec {
                role: NodeRole::Manager,
                ..Default::default()
            },
            role: NodeRole::Manager,
            status: agent_api::swarm::NodeStatus {
                state: NodeState::Ready,
                ..Default::default()
            },
            member: Some(RaftMember {
                raft_id,
                addr: format!("192.0.2.{raft_id}:2377"),
                reachability: Reachability::Reachable,
            }),
            ..Node::default()
        });
    }
}

/// What an HTTP server makes of the class.
const fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::InvalidParameter(_) => 400,
        Refusal::Forbidden(_) => 403,
        Refusal::NotFound(_) => 404,
        Refusal::Conflict(_) => 409,
        Refusal::Unclassified(_) => 500,
        Refusal::Unimplemented(_) => 501,
        Refusal::Unavailable(_) => 503,
    }
}

fn spec(text: Value) -> Box<ServiceSpec> {
    Box::new(serde_json::from_value(text).expect("a spec"))
}

fn create(text: Value) -> Request {
    Request::ServiceCreate {
        spec: spec(text),
        auth: None,
    }
}

/// The smallest service, with further members.
fn minimal(further: Value) -> Value {
    merged(
        json!({"Name": "case", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}),
        further,
    )
}

fn with_template(further: Value) -> Value {
    minimal(json!({
        "TaskTemplate": merged(json!({"ContainerSpec": {"Image": "busybox"}}), further)
    }))
}

fn with_container(further: Value) -> Value {
    with_template(json!({"ContainerSpec": merged(json!({"Image": "busybox"}), further)}))
}

fn with_ports(ports: Value) -> Value {
    minimal(json!({"EndpointSpec": {"Ports": ports}}))
}

fn merged(mut value: Value, further: Value) -> Value {
    let (Value::Object(members), Value::Object(further)) = (&mut value, further) else {
        panic!("two objects");
    };
    members.extend(further);
    value
}

#[test]
fn the_same_request_on_the_same_store_is_decided_the_same() {
    let decisions: BTreeSet<String> = (0..3)
        .map(|_| {
            let mut world = World::new();
            let decision = world.decide(&create(minimal(json!({})))).unwrap();
            serde_json::to_string(&decision.transaction).unwrap()
        })
        .collect();
    assert_eq!(decisions.len(), 1);
}
