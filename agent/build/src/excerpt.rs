//! The block of source lines that is printed with an error.
//!
//! Must not: colour. Follows BuildKit's `solver/errdefs/source.go`.

use crate::dockerfile::Lines;

/// The lines around `lines` with `>>>` before those meant, between rulers, headed `name:line`. Empty when there is
/// nothing to show.
pub fn excerpt(name: &str, source: &str, lines: &[Lines]) -> String {
    let _ = (name, source, lines);
    todo!()
}
