//! Which image of several runs on a platform: the variant itself, then older ones of the processor, newest first.
//!
//! Source: containerd `platforms` (`compare.go`); that 32-bit ARM programs run on some 64-bit ARM processors is not
//! counted on.

use agent_build::plan::Platform;

/// Worse than any variant.
const OTHER_PROCESSOR: u32 = 1000;

/// How far an offered platform is from the one wanted; `None`: its programs do not run there.
pub(crate) fn rank(wanted: &Platform, offered: &Platform) -> Option<u32> {
    let (wanted, offered) = (wanted.normalized(), offered.normalized());
    if wanted.os != offered.os {
        return None;
    }
    if wanted.architecture != offered.architecture {
        let runs = (&*wanted.architecture, &*offered.architecture) == ("amd64", "386");
        return runs.then_some(OTHER_PROCESSOR);
    }
    let standard = match &*wanted.architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    };
    let number = |variant: &str| match variant {
        "" => Some(standard),
        text => text.strip_prefix('v')?.parse::<u32>().ok(),
    };
    match (number(&wanted.variant), number(&offered.variant)) {
        (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
        _ => (wanted.variant == offered.variant).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_where() {
        for (wanted, offered, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64", "linux/386", Some(OTHER_PROCESSOR)),
            ("linux/386", "linux/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/aarch64", Some(0)),
            ("linux/arm", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/amd64", None),
            ("windows/amd64", "linux/amd64", None),
            ("linux/riscv64/rva20", "linux/riscv64/rva20", Some(0)),
            ("linux/riscv64/rva20", "linux/riscv64", None),
        ] {
            let found = rank(&wanted.parse().unwrap(), &offered.parse().unwrap());
            assert_eq!(found, expected, "{wanted} {offered}");
        }
    }
}
