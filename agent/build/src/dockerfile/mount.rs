//! One `RUN --mount=…` value.
//!
//! Must not: know stages, images or secrets. Follows BuildKit's `instructions/commands_runmount.go`.

use serde::{Deserialize, Serialize};

use super::{ParseError, size};
use crate::quote::quote;
use crate::suggest::{Case, with_suggestion};
use crate::words::WordError;

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that survives between builds.
    Cache,
    /// Empty memory file system.
    Tmpfs,
    /// A secret of the client as a file or variable.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Everyone at once (default).
    Shared,
    /// A second user gets a directory of its own.
    Private,
    /// A second user waits.
    Locked,
}

/// A mount of a RUN step; paths as the user wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// `type=`, bind by default.
    pub kind: MountType,
    /// `from=`: stage, image or named context; `None` means the main context (bind) or an empty start (cache).
    pub from: Option<String>,
    /// `source=`; empty means the root of `from`.
    pub source: String,
    /// `target=`; may be empty for secret and ssh.
    pub target: String,
    /// Whether the step may not write to it.
    pub read_only: bool,
    /// `size=` of a tmpfs in bytes; 0 without limit.
    pub size_bytes: u64,
    /// `id=` of cache, secret and ssh.
    pub id: Option<String>,
    /// `sharing=` of a cache.
    pub sharing: Option<Sharing>,
    /// `required` of secret and ssh: fail when the client does not offer it.
    pub required: bool,
    /// `env=` of a secret: variable to set; `Some("")` means the secret's id.
    pub env: Option<String>,
    /// `mode=` (octal) of cache, secret and ssh.
    pub mode: Option<u32>,
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
}

impl Mount {
    /// Only the `from=` of a value, before variables are known (it cannot have any).
    ///
    /// # Errors
    /// The value is not a list of options, or `from` has a variable.
    pub fn from_of(value: &str) -> Result<Option<String>, ParseError> {
        check_unexpanded(value).map_err(ParseError::new)?;
        let fields = fields(value).map_err(ParseError::new)?;
        let from = fields.iter().rev().find_map(|field| {
            let (key, value) = field.split_once('=')?;
            key.eq_ignore_ascii_case("from").then_some(value)
        });
        Ok(from.filter(|from| !from.is_empty()).map(String::from))
    }

    /// Reads one value; `expand` replaces variables of each option's value.
    ///
    /// # Errors
    /// An unknown option, a value out of range, or options that do not fit the type, in BuildKit's words.
    pub fn parse(
        value: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, WordError>,
    ) -> Result<Mount, ParseError> {
        let fields = fields(value).map_err(ParseError::new)?;
        let mut draft = Draft::default();
        for field in &fields {
            let result = match field.split_once('=') {
                None => draft.word(field),
                Some((key, value)) => {
                    let value = expand(value).map_err(|error| ParseError::new(error.0))?;
                    draft.option(&key.to_lowercase(), &value, field)
                }
            };
            result.map_err(ParseError::new)?;
        }
        draft.finish().map_err(ParseError::new)
    }
}

/// Checks what does not depend on variables: the list itself, and that `from` has none.
pub(super) fn check_unexpanded(value: &str) -> Result<(), String> {
    for field in fields(value)? {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        let dollar = value.find('$').filter(|at| at + 1 != value.len());
        if key.eq_ignore_ascii_case("from") && dollar.is_some() {
            return Err(
                "'from' doesn't support variable expansion, define alias stage instead".into(),
            );
        }
    }
    Ok(())
}

const OPTIONS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount of which some options have been read.
#[derive(Default)]
struct Draft {
    kind: Option<MountType>,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    size_bytes: u64,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Draft {
    fn kind(&self) -> MountType {
        self.kind.unwrap_or(MountType::Bind)
    }

    /// An option without value.
    fn word(&mut self, field: &str) -> Result<(), String> {
        let key = field.to_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only_for(&key, &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn option(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        match key {
            "type" => self.kind = Some(mount_type(value)?),
            "from" => self.from = value.into(),
            "source" | "src" => self.source = value.into(),
            "target" | "dst" | "destination" => self.target = value.into(),
            "readonly" | "ro" => self.read_only = Some(boolean(key, value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(key, value)?),
            "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = boolean(key, value)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                self.size_bytes = size::parse(value).ok_or_else(|| invalid_value(key, value))?;
            }
            "id" => self.id = value.into(),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = Some(number(key, value, 8)?),
            "uid" => self.uid = Some(number(key, value, 10)?),
            "gid" => self.gid = Some(number(key, value, 10)?),
            "env" => self.env = Some(value.into()),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(with_suggestion(message, key, OPTIONS, Case::Matters));
            }
        }
        Ok(())
    }

    /// The type has to be named before the options that only it has.
    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<(), String> {
        if kinds.contains(&self.kind()) {
            return Ok(());
        }
        Err(format!(
            "unexpected key '{key}' for mount type '{}'",
            self.kind().as_str()
        ))
    }

    fn finish(self) -> Result<Mount, String> {
        let kind = self.kind();
        if matches!(kind, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return Err(format!(
                    "{key} not allowed for \"{}\" type mounts",
                    kind.as_str()
                ));
            }
        }
        if kind == MountType::Secret {
            self.check_secret()?;
        }
        if self.sharing.is_some() && kind != MountType::Cache {
            return Err(format!(
                "invalid cache sharing set for {} mount",
                kind.as_str()
            ));
        }
        let writable_by_default = matches!(kind, MountType::Cache | MountType::Tmpfs);
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Mount {
            kind,
            from: non_empty(self.from),
            source: self.source,
            target: self.target,
            read_only: self.read_only.unwrap_or(!writable_by_default),
            size_bytes: self.size_bytes,
            id: non_empty(self.id),
            sharing: self.sharing,
            required: self.required,
            env: self.env,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
        })
    }

    fn check_secret(&self) -> Result<(), String> {
        let refusal = if !self.from.is_empty() {
            "secret mount should not have a from"
        } else if self.sharing.is_some() {
            "secret mount should not define sharing"
        } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
            "invalid secret mount. one of source, target required"
        } else if !self.source.is_empty() && !self.id.is_empty() {
            "both source and id can't be set"
        } else {
            return Ok(());
        };
        Err(refusal.into())
    }
}

impl MountType {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            MountType::Bind => "bind",
            MountType::Cache => "cache",
            MountType::Tmpfs => "tmpfs",
            MountType::Secret => "secret",
            MountType::Ssh => "ssh",
        }
    }
}

fn mount_type(value: &str) -> Result<MountType, String> {
    let all = [
        MountType::Bind,
        MountType::Cache,
        MountType::Tmpfs,
        MountType::Secret,
        MountType::Ssh,
    ];
    let lower = value.to_lowercase();
    all.into_iter()
        .find(|kind| kind.as_str() == lower)
        .ok_or_else(|| {
            let message = format!("unsupported mount type {}", quote(value));
            let names = all.map(MountType::as_str);
            with_suggestion(message, value, names, Case::Matters)
        })
}

fn sharing(value: &str) -> Result<Sharing, String> {
    Ok(match value.to_lowercase().as_str() {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => {
            let message = format!("unsupported sharing value {}", quote(value));
            let names = ["shared", "private", "locked"];
            return Err(with_suggestion(message, value, names, Case::Matters));
        }
    })
}

fn invalid_value(key: &str, value: &str) -> String {
    format!("invalid value for {key}: {value}")
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid_value(key, value)),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_digit(radix));
    digits
        .then(|| u32::from_str_radix(value, radix).ok())
        .flatten()
        .ok_or_else(|| format!("invalid value {value} for {key}"))
}

/// The fields of one CSV line.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let failed = |why: &str| format!("failed to parse csv mounts: {why}");
    if line.is_empty() {
        return Err(failed("it is empty"));
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, following) = match rest.split_once(',') {
                Some((field, following)) => (field, Some(following)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(failed("bare \" in non-quoted field"));
            }
            fields.push(field.to_string());
            match following {
                Some(following) => rest = following,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut chars = quoted.char_indices();
        rest = loop {
            match chars.next() {
                None => return Err(failed("extraneous or missing \" in quoted-field")),
                Some((_, '"')) if chars.as_str().starts_with('"') => {
                    chars.next();
                    field.push('"');
                }
                Some((_, '"')) => break chars.as_str(),
                Some((_, c)) => field.push(c),
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(following) => rest = following,
            None if rest.is_empty() => return Ok(fields),
            None => return Err(failed("extraneous or missing \" in quoted-field")),
        }
    }
}

#[cfg(test)]
mod tests;
