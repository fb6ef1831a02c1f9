//! Whether a text names an image (distribution/reference `ParseNormalizedNamed`). Only the form is looked at; where the
//! image is, and whether it exists, is the nodes' matter.

use std::sync::LazyLock;

use regex::Regex;

use super::super::Refusal;

const MAX_NAME: usize = 255;

/// `[host[:port]/]path[:tag][@digest]`, the repository without tag and digest captured.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let component = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!(
        r"^((?:{host}/)?{component}(?:/{component})*)(?::[0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}})?(?:@{digest})?$"
    ))
    .expect("the constant is a regular expression")
});

pub(super) fn check(image: &str) -> Result<(), Refusal> {
    if image.is_empty() {
        return Err(Refusal::invalid(
            "ContainerSpec: image reference must be provided",
        ));
    }
    let is_id = image.len() == 64
        && image
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let named = REFERENCE
        .captures(image)
        .and_then(|captures| captures.get(1))
        .is_some_and(|name| name.len() <= MAX_NAME);
    if named && !is_id {
        Ok(())
    } else {
        Err(Refusal::invalid(format!(
            "ContainerSpec: {image:?} is not a valid repository/tag"
        )))
    }
}
