//! Bounds of everything that crosses the wire.

use std::time::Duration;

/// Longest message of any kind that has no bound of its own.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Longest batch of Raft messages. One message has at most 4 MiB.
pub const RAFT_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Longest message of a manager to one of its nodes: everything the node is to run, at once.
pub const ASSIGNMENTS_BYTES: usize = 64 * 1024 * 1024;
/// Longest message of someone who shows no certificate.
pub const ANONYMOUS_BYTES: usize = 16 * 1024;
/// Data sent in one piece of a blob.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Digests in one question for blobs.
pub const BLOBS_PER_QUESTION: usize = 512;

/// For a TCP connection and the TLS handshake over it.
pub const CONNECT: Duration = Duration::from_secs(2);
/// As [`CONNECT`], of a node looking for the leader: the next manager is tried soon.
pub const CONNECT_SESSION: Duration = Duration::from_secs(1);
/// For the answer to a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// For the TLS handshake of a client that connected to us.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// For a call that answers once. As in SwarmKit.
pub const CALL: Duration = Duration::from_secs(5);
/// For a call that waits for a commit.
pub const COMMIT: Duration = Duration::from_secs(20);
/// For the next piece of a stream that should flow.
pub const PIECE: Duration = Duration::from_secs(10);
/// Who made a connection asks this often whether the other side lives, …
pub const KEEPALIVE: Duration = Duration::from_millis(700);
/// … and gives it up without an answer for this long: both make 1.9 s.
pub const KEEPALIVE_ANSWER: Duration = Duration::from_millis(1200);
/// Who accepted it is patient: a closed connection means that the other process ended, and silence alone must not look
/// like that.
pub const SERVER_KEEPALIVE: Duration = Duration::from_secs(20);
/// As [`KEEPALIVE_ANSWER`], of who accepted.
pub const SERVER_KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Connections at once.
pub const CONNECTIONS: usize = 8192;
/// Of these, without a certificate.
pub const ANONYMOUS_CONNECTIONS: usize = 64;
/// How long one without a certificate may last.
pub const ANONYMOUS_LIFE: Duration = Duration::from_secs(30);
/// TLS handshakes at once, …
pub const HANDSHAKES: usize = 256;
/// … and of these with one remote host: whoever opens connections and says nothing must not keep all others out.
pub const HANDSHAKES_PER_HOST: usize = 32;
/// Calls at once on one connection.
pub const CALLS_PER_CONNECTION: u32 = 256;

/// Bytes in flight of one stream, …
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// … and of one connection.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Raft messages waiting for one member, …
pub const RAFT_QUEUE: usize = 4096;
/// … and their bytes.
pub const RAFT_QUEUE_BYTES: usize = 64 * 1024 * 1024;
