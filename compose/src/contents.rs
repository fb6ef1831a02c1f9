//! Digests of what configs and secrets contain, so that a changed file is a changed service.
/// Why.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// A file.
    #[error("{kind} {key}: cannot read {path}")]
    Read {
        /// `config` or `secret`.
        kind: &'static str,
        /// Key in the Compose file.
        key: String,
        /// Path of the file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
