//! Platforms: `os/architecture/variant`, how they are written, and when two ways of writing mean the same.
//!
//! Rules of containerd's `platforms` package.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor that images are made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system in Go's words: `linux`.
    pub os: String,
    /// Processor in Go's words: `amd64`.
    pub architecture: String,
    /// Version of the processor, `v7`; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A platform that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A part has characters that no platform has.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\""
    )]
    InvalidPart {
        /// The part.
        part: String,
        /// All of it.
        text: String,
    },
    /// One word that is neither an operating system nor a processor.
    #[error("{0:?}: unknown operating system or architecture")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier")]
    TooManyParts(String),
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        }
    }

    /// The one way to write it among the several that mean the same: `x86_64` is `amd64`, `arm64/v8` is `arm64`.
    #[must_use]
    pub fn normalized(&self) -> Platform {
        let os = normalize_os(&self.os);
        let (architecture, variant) = normalize_processor(&self.architecture, &self.variant);
        Platform {
            os,
            architecture,
            variant,
        }
    }
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_processor(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match architecture.as_str() {
        "i386" => ("386", ""),
        "x86_64" | "x86-64" | "amd64" => (
            "amd64",
            if variant == "v1" {
                ""
            } else {
                variant.as_str()
            },
        ),
        "aarch64" | "arm64" => (
            "arm64",
            if matches!(variant.as_str(), "8" | "v8" | "v8.0") {
                ""
            } else {
                variant.as_str()
            },
        ),
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "arm" => (
            "arm",
            match variant.as_str() {
                "" | "7" => "v7",
                "5" => "v5",
                "6" => "v6",
                "8" => "v8",
                other => other,
            },
        ),
        other => (other, variant.as_str()),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.os)?;
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if part.is_empty() || !part.chars().all(valid) {
                return Err(PlatformError::InvalidPart {
                    part: (*part).to_owned(),
                    text: text.to_owned(),
                });
            }
        }
        let host = Platform::host();
        let platform = match parts.as_slice() {
            [one] => {
                let one = normalize_os(one);
                if KNOWN_OS.contains(&one.as_str()) {
                    Platform {
                        os: one,
                        architecture: host.architecture,
                        variant: host.variant,
                    }
                } else {
                    let (architecture, variant) = normalize_processor(&one, "");
                    if !KNOWN_ARCHITECTURES.contains(&architecture.as_str()) {
                        return Err(PlatformError::Unknown(text.to_owned()));
                    }
                    // A bare `arm` means v7, which is then left unwritten.
                    let variant = if architecture == "arm" && variant == "v7" {
                        String::new()
                    } else {
                        variant
                    };
                    Platform {
                        os: host.os,
                        architecture,
                        variant,
                    }
                }
            }
            [os, architecture] => {
                let (architecture, variant) = normalize_processor(architecture, "");
                let variant = if architecture == "arm" && variant == "v7" {
                    String::new()
                } else {
                    variant
                };
                Platform {
                    os: normalize_os(os),
                    architecture,
                    variant,
                }
            }
            [os, architecture, variant] => {
                let (architecture, variant) = normalize_processor(architecture, variant);
                let variant = if architecture == "arm64" && variant.is_empty() {
                    "v8".to_owned()
                } else {
                    variant
                };
                Platform {
                    os: normalize_os(os),
                    architecture,
                    variant,
                }
            }
            _ => return Err(PlatformError::TooManyParts(text.to_owned())),
        };
        Ok(platform)
    }
}

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_and_written() {
        for (text, written, normalized) in [
            ("linux/amd64", "linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm", "linux/arm/v7"),
            ("Linux/i386", "linux/386", "linux/386"),
            ("macos/arm64", "darwin/arm64", "darwin/arm64"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), written, "{text}");
            assert_eq!(platform.normalized().to_string(), normalized, "{text}");
        }
        let host = Platform::host();
        assert_eq!(
            "linux".parse::<Platform>().unwrap().architecture,
            host.architecture
        );
        assert_eq!("arm64".parse::<Platform>().unwrap().os, host.os);
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "linux/", "a b", "linux/amd64/v1/x", "nope", "linux/*"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
