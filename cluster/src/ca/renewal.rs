//! When a certificate is renewed.

use std::time::Duration;

use cluster_api::{IdSource, Timestamp};

use super::NodeCertificate;

/// How long from `now` a node waits before it renews its certificate: until a random moment between 50 % and 80 % of
/// the certificate's life (SwarmKit `ca/renewer.go`, `calculateRandomExpiry`), so that nodes which joined together do
/// not renew together. Zero when that has passed.
#[must_use]
pub fn renew_at(certificate: &NodeCertificate, now: Timestamp, ids: &mut IdSource) -> Duration {
    let life = certificate
        .not_after
        .0
        .saturating_sub(certificate.not_before.0)
        .max(0)
        .unsigned_abs();
    let (earliest, latest) = (life / 2, life / 10 * 8);
    let wait = earliest + ids.below((latest - earliest).max(1));
    let age = now.0.saturating_sub(certificate.not_before.0).max(0);
    Duration::from_nanos(wait.saturating_sub(age.unsigned_abs()))
}
