//! `--platform os[/arch[/variant]]` of the verbs of images. Source: docker/cli `cli/command/image`, containerd
//! `platforms.Parse`.

use agent_build::plan::Platform;

use crate::failure::Failure;

/// The platform of a flag; none when it is absent or empty.
pub(crate) fn platform(flag: Option<&str>) -> Result<Option<Platform>, Failure> {
    let given = flag.filter(|text| !text.is_empty());
    given.map(parse).transpose()
}

/// The platforms of a flag that may be repeated, each value a list separated by commas.
pub(crate) fn platforms(flags: &[String]) -> Result<Vec<Platform>, Failure> {
    let words = flags.iter().flat_map(|flag| flag.split(','));
    words.map(parse).collect()
}

fn parse(text: &str) -> Result<Platform, Failure> {
    text.parse::<Platform>()
        .map_err(|error| Failure::new(1, format!("invalid platform: {error}: invalid argument")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_dockers() {
        for (text, read) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("arm64", &*format!("{}/arm64", Platform::host().os)),
        ] {
            let platform = platform(Some(text)).unwrap().unwrap();
            assert_eq!(platform.to_string(), read, "{text}");
        }
        assert_eq!(platform(None).unwrap(), None);
        assert_eq!(platform(Some("")).unwrap(), None);
        let both = platforms(&["linux/amd64,linux/arm64".to_owned()]).unwrap();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn what_is_no_platform_is_refused_in_dockers_words() {
        for (text, reason) in [
            (
                "foo/bar/baz/qux",
                "\"foo/bar/baz/qux\": cannot parse platform specifier",
            ),
            ("blah", "\"blah\": unknown operating system or architecture"),
        ] {
            let error = platform(Some(text)).unwrap_err();
            assert_eq!(
                error.message,
                format!("invalid platform: {reason}: invalid argument")
            );
        }
    }
}
