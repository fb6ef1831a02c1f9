//! The whole store as bytes and back.
//!
//! ```text
//! {"format":3,"index":…,"lines":…}
//! {"object":{"cluster":{…}}}           any object but a task
//! {"certificate_life":…}               the longest ever given, in nanoseconds
//! {"removed_node":{"id":…,"until":…}}
//! {"spec":{…}}                         specs of tasks, each once: number 0, 1, …
//! {"service":{…}}                      names and labels of tasks' services, each once: number 0, 1, …
//! {"task":{"spec":0,"service":0,"rest":{…}}}
//! ```
//!
//! One JSON value per line. Format 2 is the same without removed nodes and the life of certificates. Taking a [`Capture`] is quick; making bytes of it is not and can be done elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::swarm::{Annotations, TaskSpec};
use cluster_api::{Object, Task, Timestamp};
use serde::{Deserialize, Serialize};

use super::Store;
use super::removed::RemovedNodes;

const FORMAT: u32 = 3;
/// The oldest one that is read.
const OLDEST_FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    index: u64,
    lines: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Object(Object),
    CertificateLife(u64),
    RemovedNode {
        id: String,
        until: Timestamp,
    },
    Spec(Arc<TaskSpec>),
    Service(Arc<Annotations>),
    Task {
        spec: usize,
        service: usize,
        rest: Box<Task>,
    },
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("read line {line} of a snapshot of the store")]
    Line {
        line: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the snapshot of the store has format {0}, this version of muster reads formats {OLDEST_FORMAT} to {FORMAT}"
    )]
    Format(u32),
    #[error("line {line} of a snapshot of the store refers to {what} {number}, which is not there")]
    Reference {
        line: u64,
        what: &'static str,
        number: usize,
    },
    #[error("the snapshot of the store says it has {expected} lines and has {found}")]
    Truncated { expected: u64, found: u64 },
}

/// The objects of a store at one index.
#[derive(Debug, Clone)]
pub struct Capture {
    index: u64,
    objects: Vec<Object>,
    removed_nodes: RemovedNodes,
    tasks: Vec<Arc<Task>>,
}

impl Capture {
    /// The Raft index it is of.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The bytes [`Store::restore`] reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Body::default();
        for object in &self.objects {
            body.line(&Line::Object(object.clone()));
        }
        body.line(&Line::CertificateLife(
            self.removed_nodes.longest_life_nanos,
        ));
        for (id, until) in &self.removed_nodes.until {
            body.line(&Line::RemovedNode {
                id: id.clone(),
                until: *until,
            });
        }
        let (mut specs, mut services) = (HashMap::new(), HashMap::new());
        for task in &self.tasks {
            let spec = number(&mut specs, &task.spec, |spec| body.line(&Line::Spec(spec)));
            let service = number(&mut services, &task.service, |service| {
                body.line(&Line::Service(service));
            });
            let rest = Box::new(Task {
                spec: Arc::default(),
                service: Arc::default(),
                ..Task::clone(task)
            });
            body.line(&Line::Task {
                spec,
                service,
                rest,
            });
        }
        let mut bytes = Vec::with_capacity(body.bytes.len() + 64);
        write_line(
            &mut bytes,
            &Header {
                format: FORMAT,
                index: self.index,
                lines: body.lines,
            },
        );
        bytes.append(&mut body.bytes);
        bytes
    }
}

#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    lines: u64,
}

impl Body {
    fn line(&mut self, line: &Line) {
        write_line(&mut self.bytes, line);
        self.lines += 1;
    }
}

/// The number of a shared value; a new one is written first. Equal values that are not shared are written twice, which
/// costs room only.
fn number<T>(
    known: &mut HashMap<*const T, usize>,
    value: &Arc<T>,
    write: impl FnOnce(Arc<T>),
) -> usize {
    let next = known.len();
    *known.entry(Arc::as_ptr(value)).or_insert_with(|| {
        write(Arc::clone(value));
        next
    })
}

impl Store {
    /// What a snapshot is made of. Copies no object.
    #[must_use]
    pub fn capture(&self) -> Capture {
        let mut objects: Vec<Object> = Vec::new();
        objects.extend(self.clusters.values().cloned().map(Object::Cluster));
        objects.extend(self.nodes.values().cloned().map(Object::Node));
        objects.extend(self.networks.values().cloned().map(Object::Network));
        objects.extend(self.secrets.values().cloned().map(Object::Secret));
        objects.extend(self.configs.values().cloned().map(Object::Config));
        objects.extend(self.services.values().cloned().map(Object::Service));
        Capture {
            index: self.index,
            objects,
            removed_nodes: self.removed_nodes.clone(),
            tasks: self.tasks.values().cloned().collect(),
        }
    }

    /// All objects, in a form [`Store::restore`] reads.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.capture().encode()
    }

    /// The store a snapshot was made of.
    ///
    /// # Errors
    ///
    /// The bytes are no snapshot, are cut off, or are of a format this version does not know.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut lines = bytes.split(|byte| *byte == b'\n').zip(1_u64..);
        let (first, line) = lines.next().unwrap_or((&[], 1));
        let header: Header = read_line(first, line)?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&header.format) {
            return Err(SnapshotError::Format(header.format));
        }
        let mut store = Self {
            index: header.index,
            ..Self::default()
        };
        let (mut specs, mut services) = (Vec::new(), Vec::new());
        let mut found = 0;
        for (text, line) in lines.filter(|(text, _)| !text.is_empty()) {
            match read_line(text, line)? {
                Line::Object(object) => {
                    store.removed_nodes.note_life(&object);
                    drop(store.put(object));
                }
                Line::CertificateLife(nanos) => store.removed_nodes.longest_life_nanos = nanos,
                Line::RemovedNode { id, until } => {
                    store.removed_nodes.until.insert(id, until);
                }
                Line::Spec(spec) => specs.push(spec),
                Line::Service(service) => services.push(service),
                Line::Task {
                    spec,
                    service,
                    rest: mut task,
                } => {
                    task.spec = known(&specs, "spec", spec, line)?;
                    task.service = known(&services, "service", service, line)?;
                    drop(store.put(Object::from(*task)));
                }
            }
            found += 1;
        }
        if found == header.lines {
            Ok(store)
        } else {
            Err(SnapshotError::Truncated {
                expected: header.lines,
                found,
            })
        }
    }
}

fn known<T>(
    values: &[Arc<T>],
    what: &'static str,
    number: usize,
    line: u64,
) -> Result<Arc<T>, SnapshotError> {
    values
        .get(number)
        .cloned()
        .ok_or(SnapshotError::Reference { line, what, number })
}

fn write_line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, value).expect("maps of the objects have text keys");
    bytes.push(b'\n');
}

fn read_line<'a, T: Deserialize<'a>>(text: &'a [u8], line: u64) -> Result<T, SnapshotError> {
    serde_json::from_slice(text).map_err(|source| SnapshotError::Line { line, source })
}
