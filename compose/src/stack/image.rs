//! Names of images as clusters keep them.

/// The name with its tag: `redis` is `redis:latest`, and what has a tag or a digest is itself.
#[must_use]
pub fn tagged(image: &str) -> String {
    let path = image.rsplit('/').next().unwrap_or(image);
    if image.is_empty() || path.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::tagged;

    #[test]
    fn only_what_has_no_tag_gets_one() {
        for (image, expected) in [
            ("redis", "redis:latest"),
            ("host:5000/redis", "host:5000/redis:latest"),
            ("redis:7", "redis:7"),
            ("redis@sha256:ab", "redis@sha256:ab"),
            ("", ""),
        ] {
            assert_eq!(tagged(image), expected);
        }
    }
}
