//! The harness itself: hosts are apart from each other and from the machine.

use e2e::Host;

#[test]
fn hosts_have_networks_of_their_own() {
    let (one, two) = (Host::bare(), Host::bare());
    one.tool("ip", &["link", "add", "only-here", "type", "bridge"])
        .ok();
    assert!(one.tool("ip", &["link", "show"]).ok().contains("only-here"));
    assert!(!two.tool("ip", &["link", "show"]).ok().contains("only-here"));
}
