//! The whole store as bytes and back: one JSON object per line, after a header line.

use cluster_api::Object;
use serde::{Deserialize, Serialize};

use super::Store;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    index: u64,
    objects: u64,
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
        "the snapshot of the store has format {0}, this version of muster reads format {FORMAT}"
    )]
    Format(u32),
    #[error("the snapshot of the store says it has {expected} objects and has {found}")]
    Truncated { expected: u64, found: u64 },
}

impl Store {
    /// All objects, in a form [`Store::restore`] reads.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let objects = self.objects();
        let header = Header {
            format: FORMAT,
            index: self.index,
            objects: objects.len() as u64,
        };
        write_line(&mut bytes, &header);
        for object in &objects {
            write_line(&mut bytes, object);
        }
        bytes
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
        if header.format != FORMAT {
            return Err(SnapshotError::Format(header.format));
        }
        let mut store = Self {
            index: header.index,
            ..Self::default()
        };
        let mut found = 0;
        for (text, line) in lines.filter(|(text, _)| !text.is_empty()) {
            let object: Object = read_line(text, line)?;
            store.put(object);
            found += 1;
        }
        if found == header.objects {
            Ok(store)
        } else {
            Err(SnapshotError::Truncated {
                expected: header.objects,
                found,
            })
        }
    }

    fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = Vec::new();
        objects.extend(self.clusters.values().cloned().map(Object::Cluster));
        objects.extend(self.nodes.values().cloned().map(Object::Node));
        objects.extend(self.networks.values().cloned().map(Object::Network));
        objects.extend(self.secrets.values().cloned().map(Object::Secret));
        objects.extend(self.configs.values().cloned().map(Object::Config));
        objects.extend(self.services.values().cloned().map(Object::Service));
        objects.extend(self.tasks.values().cloned().map(Object::Task));
        objects
    }
}

fn write_line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, value).expect("maps of the objects have text keys");
    bytes.push(b'\n');
}

fn read_line<'a, T: Deserialize<'a>>(text: &'a [u8], line: u64) -> Result<T, SnapshotError> {
    serde_json::from_slice(text).map_err(|source| SnapshotError::Line { line, source })
}
