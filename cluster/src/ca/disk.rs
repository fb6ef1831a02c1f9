//! What a node keeps of its identity on disk.
//!
//! ```text
//! <root>/swarm/certificates/            0700
//!   swarm-root-ca.crt                   the root, PEM
//!   swarm-node.pem                0600  certificate, its key, the key of the Raft log
//!   swarm-node.pending.pem        0600  a key that was asked a certificate for, until there is one
//! ```
//!
//! Certificate and keys are one file, so that no crash leaves a certificate without its key: a file is written beside,
//! synced, renamed over, and its folder synced. The key of the Raft log lies with the node's key as in SwarmKit
//! (`manager/deks.go`), because losing one of them makes the other worthless; locking both with a key of the operator's
//! would change this file alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cluster_api::Timestamp;
use ring::rand::SecureRandom as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::certificate::pem;
use super::{CaError, NodeCertificate, NodeKey, TrustRoot};

const ROOT: &str = "swarm-root-ca.crt";
const NODE: &str = "swarm-node.pem";
const PENDING: &str = "swarm-node.pending.pem";
const RAFT_KEY_LABEL: &str = "MUSTER RAFT KEY";
/// No file here comes near this.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why the identity on disk could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot {verb} {path}: {source}")]
    Io {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path}: {source}")]
    Content { path: PathBuf, source: CaError },
    #[error(
        "{path} is missing although {other} is there: restore it from a backup, or leave the swarm with --force and join again"
    )]
    Incomplete { path: PathBuf, other: PathBuf },
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Encrypts the Raft log of one manager: 256 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct RaftKey(Zeroizing<[u8; 32]>);

impl RaftKey {
    /// A new one, from the operating system's random source.
    pub fn generate() -> Result<Self, CaError> {
        let mut key = Zeroizing::new([0; 32]);
        ring::rand::SystemRandom::new()
            .fill(key.as_mut())
            .map_err(|_| CaError::crypto("a key for the raft log", "no random bytes"))?;
        Ok(Self(key))
    }

    /// The key itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for RaftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RaftKey(…)")
    }
}

/// Everything that makes a host a node of a cluster.
#[derive(Debug)]
pub struct Identity {
    pub root: TrustRoot,
    pub certificate: NodeCertificate,
    pub key: NodeKey,
    pub raft_key: RaftKey,
}

impl Identity {
    /// Whether the parts belong together: the root signed the certificate, and the key is the certificate's. Expiry is
    /// not looked at: a node that was off for long must be able to say so.
    pub fn check(&self) -> Result<(), CaError> {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let mismatch = |reason: &str| CaError::Mismatch {
            node_id: self.certificate.subject.node_id.clone(),
            reason: reason.to_owned(),
        };
        if !self.key.fits(&self.certificate.public_key) {
            return Err(mismatch("its key is another one"));
        }
        let (_, root) = X509Certificate::from_der(self.root.der())
            .map_err(|error| CaError::malformed("root certificate", error))?;
        let (_, node) = X509Certificate::from_der(&self.certificate.der)
            .map_err(|error| CaError::malformed("node certificate", error))?;
        node.verify_signature(Some(root.public_key()))
            .map_err(|_| mismatch("the root did not sign it"))
    }

    /// Whether the certificate is of no more use.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.certificate.not_after
    }

    /// The same node with another certificate.
    pub fn renewed(&self, certificate: NodeCertificate, key: NodeKey) -> Result<Self, CaError> {
        let identity = Self {
            root: self.root.clone(),
            certificate,
            key,
            raft_key: self.raft_key.clone(),
        };
        let (new, old) = (&identity.certificate.subject, &self.certificate.subject);
        if (&new.node_id, &new.cluster_id) != (&old.node_id, &old.cluster_id) {
            return Err(CaError::Mismatch {
                node_id: old.node_id.clone(),
                reason: format!("it was made for node {} of {}", new.node_id, new.cluster_id),
            });
        }
        identity.check()?;
        Ok(identity)
    }
}

/// The folder. One process uses it at a time.
#[derive(Debug, Clone)]
pub struct IdentityStore(PathBuf);

impl IdentityStore {
    /// `folder` is `<root>/swarm/certificates`; it is made when something is first written.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// What is there; nothing when this host is in no swarm. Refuses half an identity.
    pub fn load(&self) -> Result<Option<Identity>, DiskError> {
        let (root_path, node_path) = (self.0.join(ROOT), self.0.join(NODE));
        let (root, node) = match (read(&root_path)?, read(&node_path)?) {
            (Some(root), Some(node)) => (root, node),
            // The root is written first: a join that did not end.
            (_, None) => return Ok(None),
            (None, Some(_)) => {
                return Err(DiskError::Incomplete {
                    path: root_path,
                    other: node_path,
                });
            }
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| DiskError::Content { path, source }
        };
        let root = TrustRoot::from_pem(&root).map_err(at(&root_path))?;
        let identity = parse(root, &node).map_err(at(&node_path))?;
        identity.check().map_err(at(&node_path))?;
        Ok(Some(identity))
    }

    /// Writes an identity over what was there, and forgets the pending key.
    pub fn save(&self, identity: &Identity) -> Result<(), DiskError> {
        identity.check()?;
        self.write(ROOT, identity.root.pem().as_bytes(), 0o644)?;
        let raft_key = Zeroizing::new(pem(RAFT_KEY_LABEL, identity.raft_key.bytes()));
        let text = Zeroizing::new(
            [
                identity.certificate.pem().as_str(),
                identity.key.pem().as_str(),
                raft_key.as_str(),
            ]
            .concat(),
        );
        self.write(NODE, text.as_bytes(), 0o600)?;
        remove(&self.0.join(PENDING))
    }

    /// The key to ask a certificate with: the same one until [`Self::save`], also after a crash, so that the manager
    /// sees one node asking again and not a second one.
    pub fn pending_key(&self) -> Result<NodeKey, DiskError> {
        let path = self.0.join(PENDING);
        if let Some(text) = read(&path)? {
            let block = block(&text, "PRIVATE KEY");
            return block
                .and_then(|der| NodeKey::from_der(&der))
                .map_err(|source| DiskError::Content { path, source });
        }
        let key = NodeKey::generate()?;
        self.write(PENDING, key.pem().as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Forgets everything: the node has left.
    pub fn clear(&self) -> Result<(), DiskError> {
        // The node first: without it the rest means nothing.
        for name in [NODE, PENDING, ROOT] {
            remove(&self.0.join(name))?;
            remove(&self.0.join(format!(".{name}.new")))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, contents: &[u8], mode: u32) -> Result<(), DiskError> {
        let path = self.0.join(name);
        let fresh = self.0.join(format!(".{name}.new"));
        let io = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| DiskError::Io { verb, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(io("make", &self.0))?;
        // A leftover of a crash may have other permissions.
        remove(&fresh)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)
            .map_err(io("create", &fresh))?;
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .map_err(io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("replace", &path))?;
        File::open(&self.0)
            .and_then(|folder| folder.sync_all())
            .map_err(io("sync", &self.0))
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DiskError> {
    use std::io::Read as _;
    let io = |verb| {
        move |source| DiskError::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let mut contents = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut contents)
        .map_err(io("read"))?;
    Ok(Some(contents))
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::Io {
            verb: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn parse(root: TrustRoot, text: &[u8]) -> Result<Identity, CaError> {
    let key = block(text, "PRIVATE KEY")?;
    let raft_key = block(text, RAFT_KEY_LABEL)?;
    let mut bytes: [u8; 32] = raft_key
        .as_slice()
        .try_into()
        .map_err(|_| CaError::malformed("key of the raft log", "it has not 32 bytes"))?;
    let raft_key = RaftKey(Zeroizing::new(bytes));
    bytes.zeroize();
    Ok(Identity {
        root,
        certificate: NodeCertificate::from_pem(text)?,
        key: NodeKey::from_der(&key)?,
        raft_key,
    })
}

/// The contents of the first PEM block with a label.
fn block(text: &[u8], label: &'static str) -> Result<Zeroizing<Vec<u8>>, CaError> {
    for block in x509_parser::pem::Pem::iter_from_buffer(text) {
        let block = block.map_err(|error| CaError::malformed(label, error))?;
        let contents = Zeroizing::new(block.contents);
        if block.label == label {
            return Ok(contents);
        }
    }
    Err(CaError::malformed(label, "it is not in the file"))
}
