//! Names of images.

use agent_image::Reference;

/// A name that parses is written so that it parses again, to the same name.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(name) = Reference::parse(text) else {
        return;
    };
    let full = name.to_string();
    assert_eq!(Reference::parse(&full).expect("its own form"), name);
    let familiar = name.familiar();
    assert_eq!(Reference::parse(&familiar).expect("its short form"), name);
    assert!(name.with_default_tag().to_string().len() >= full.len());
}
