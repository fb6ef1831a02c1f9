//! Node → typed instruction. Follows BuildKit's `instructions/parse.go`, messages included.

use super::arguments::Arguments;
use super::ast::*;
use super::duration::{self, Sign};
use super::flags::{Flags, Takes};
use super::heredoc::{self, Heredoc};
use super::mount;
use super::node::Node;
use crate::quote::quote;
use crate::suggest::{Case, with_suggestion};

/// Every instruction, in upper case.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A stage begins, or something inside of one.
pub(super) enum Parsed {
    From(Stage),
    Instruction(Instruction),
}

/// Understands a node.
pub(super) fn typed(node: Node) -> Result<Parsed, String> {
    let name = node.name();
    let kind = match name.as_str() {
        "from" => return from(node).map(Parsed::From),
        "add" => Kind::Add(add(&node)?),
        "arg" => Kind::Arg(arg(&node)?),
        "cmd" => Kind::Cmd(plain_command(&node)?),
        "copy" => Kind::Copy(copy(&node)?),
        "entrypoint" => Kind::Entrypoint(plain_command(&node)?),
        "env" => Kind::Env(key_values(&node, "ENV")?),
        "expose" => Kind::Expose(expose(&node)?),
        "healthcheck" => Kind::Healthcheck(healthcheck(&node)?),
        "label" => Kind::Label(key_values(&node, "LABEL")?),
        "maintainer" => Kind::Maintainer(exactly_one(&node, "MAINTAINER")?),
        "onbuild" => Kind::Onbuild(onbuild(&node)?),
        "run" => Kind::Run(run(&node)?),
        "shell" => Kind::Shell(shell(&node)?),
        "stopsignal" => Kind::StopSignal(exactly_one(&node, "STOPSIGNAL")?),
        "user" => Kind::User(exactly_one(&node, "USER")?),
        "volume" => Kind::Volume(volume(&node)?),
        "workdir" => Kind::Workdir(exactly_one(&node, "WORKDIR")?),
        _ => {
            return Err(with_suggestion(
                format!("unknown instruction: {}", node.keyword),
                &node.keyword,
                NAMES,
                Case::Ignored,
            ));
        }
    };
    Ok(Parsed::Instruction(Instruction {
        code: node.original.trim().to_string(),
        keyword: node.keyword,
        lines: node.lines,
        comments: node.comments,
        kind,
    }))
}

fn at_least_one(name: &str) -> String {
    format!("{name} requires at least one argument")
}

fn no_flags(node: &Node) -> Result<(), String> {
    Flags::parse(&node.flags, &[]).map(drop)
}

fn exactly_one(node: &Node, name: &str) -> Result<String, String> {
    let [value] = &node.arguments.values[..] else {
        return Err(format!("{name} requires exactly one argument"));
    };
    no_flags(node)?;
    Ok(value.clone())
}

/// The text of a comment `# <name> <text>`.
fn description(comments: &[String], name: &str) -> String {
    let found = comments
        .iter()
        .find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '));
    found
        .filter(|_| !name.is_empty())
        .unwrap_or_default()
        .into()
}

fn from(node: Node) -> Result<Stage, String> {
    let (base, as_keyword, written) = match &node.arguments.values[..] {
        [base] => (base, None, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (base, Some(keyword), Some(name))
        }
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let name = written.map(|name| name.to_lowercase());
    if let (Some(name), Some(written)) = (&name, written)
        && !is_stage_name(name)
    {
        return Err(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote(written)
        ));
    }
    let flags = Flags::parse(&node.flags, &[("platform", Takes::Text)])?;
    let platform = flags.text("platform").filter(|value| !value.is_empty());
    Ok(Stage {
        base: base.clone(),
        platform: platform.map(String::from),
        description: description(&node.comments, name.as_deref().unwrap_or_default()),
        as_keyword: as_keyword.cloned(),
        name_as_written: written.cloned(),
        name,
        code: node.original.trim().to_string(),
        keyword: node.keyword,
        lines: node.lines,
        comments: node.comments,
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

fn arg(node: &Node) -> Result<Vec<ArgPair>, String> {
    if node.arguments.values.is_empty() {
        return Err(at_least_one("ARG"));
    }
    no_flags(node)?;
    let pairs = node.arguments.values.iter().map(|word| {
        let (name, value) = match word.split_once('=') {
            Some(("", _)) => return Err("ARG names can not be blank".to_string()),
            Some((name, value)) => (name, Some(value.to_string())),
            None => (word.as_str(), None),
        };
        Ok(ArgPair {
            name: name.to_string(),
            value,
            description: description(&node.comments, name),
        })
    });
    pairs.collect()
}

fn key_values(node: &Node, name: &str) -> Result<Vec<KeyValue>, String> {
    no_flags(node)?;
    if node.arguments.values.is_empty() {
        return Err(at_least_one(name));
    }
    let pairs = node.arguments.values.chunks(3).map(|triple| match triple {
        [key, ..] if key.is_empty() => Err(format!("{name} names can not be blank")),
        [key, value, separator] => Ok(KeyValue {
            key: key.clone(),
            value: value.clone(),
            legacy: separator.is_empty(),
        }),
        _ => Err(format!("Bad input to {name}, too many arguments")),
    });
    pairs.collect()
}

/// JSON arguments as they are, anything else as one text.
fn json_or_joined(arguments: &[String], json: bool) -> Vec<String> {
    match arguments {
        [] => Vec::new(),
        list if json => list.to_vec(),
        words => vec![words.join(" ")],
    }
}

fn command_line(arguments: &Arguments, heredocs: &[Heredoc]) -> CommandLine {
    let files = heredocs.iter().map(|heredoc| InlineFile {
        name: heredoc.name.clone(),
        data: heredoc.content.clone(),
        chomp: heredoc.chomp,
    });
    CommandLine {
        args: json_or_joined(&arguments.values, arguments.json),
        shell: !arguments.json,
        files: files.collect(),
    }
}

fn plain_command(node: &Node) -> Result<CommandLine, String> {
    no_flags(node)?;
    Ok(command_line(&node.arguments, &node.heredocs))
}

fn run(node: &Node) -> Result<Run, String> {
    let flags = Flags::parse(
        &node.flags,
        &[
            ("device", Takes::Texts),
            ("mount", Takes::Texts),
            ("network", Takes::Text),
            ("security", Takes::Text),
        ],
    )?;
    if flags.text("device").is_some() {
        return Err("RUN --device is not supported: devices cannot be given to build steps".into());
    }
    let network = match flags.text("network") {
        None | Some("default") => NetworkMode::Default,
        Some("none") => NetworkMode::None,
        Some("host") => NetworkMode::Host,
        Some(other) => return Err(format!("invalid network mode {}", quote(other))),
    };
    let security = match flags.text("security") {
        None | Some("sandbox") => SecurityMode::Sandbox,
        Some("insecure") => SecurityMode::Insecure,
        Some(other) => return Err(format!("security {} is not valid", quote(other))),
    };
    let mounts: Vec<String> = flags.texts("mount").map(String::from).collect();
    for value in &mounts {
        mount::check_unexpanded(value)?;
    }
    Ok(Run {
        command: command_line(&node.arguments, &node.heredocs),
        mounts,
        network,
        security,
    })
}

fn sources_and_dest(node: &Node, name: &str) -> Result<SourcesAndDest, String> {
    let Some((dest, sources)) = node.arguments.values.split_last() else {
        return Err(at_least_one(name));
    };
    // A word that only looks like a heredoc, with a quote that is not closed, is a path.
    let announced = |word: &str| heredoc::of_word(word).ok().flatten();
    if announced(dest).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    let mut paths = Vec::new();
    let mut contents = Vec::new();
    for source in sources {
        let Some(heredoc) = announced(source) else {
            paths.push(source.clone());
            continue;
        };
        // Of several with one name the last one counts, for all of them.
        let body = node
            .heredocs
            .iter()
            .rfind(|body| body.name == heredoc.name)
            .map_or("", |body| &body.content);
        contents.push(SourceContent {
            data: if heredoc.chomp {
                heredoc::chomp(body)
            } else {
                body.to_string()
            },
            name: heredoc.name,
            expand: heredoc.expand,
        });
    }
    Ok(SourcesAndDest {
        paths,
        contents,
        dest: dest.clone(),
    })
}

fn needs_destination(node: &Node, name: &str) -> Result<(), String> {
    if node.arguments.values.len() >= 2 {
        return Ok(());
    }
    Err(format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
}

fn copy(node: &Node) -> Result<Copy, String> {
    needs_destination(node, "COPY")?;
    let flags = Flags::parse(
        &node.flags,
        &[
            ("chmod", Takes::Text),
            ("chown", Takes::Text),
            ("exclude", Takes::Texts),
            ("from", Takes::Text),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
        ],
    )?;
    let from = flags.text("from").filter(|from| !from.is_empty());
    Ok(Copy {
        paths: sources_and_dest(node, "COPY")?,
        from: from.map(String::from),
        chown: flags.text_or_empty("chown"),
        chmod: flags.text_or_empty("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.texts("exclude").map(String::from).collect(),
    })
}

fn add(node: &Node) -> Result<Add, String> {
    needs_destination(node, "ADD")?;
    let flags = Flags::parse(
        &node.flags,
        &[
            ("checksum", Takes::Text),
            ("chmod", Takes::Text),
            ("chown", Takes::Text),
            ("exclude", Takes::Texts),
            ("keep-git-dir", Takes::Bool),
            ("link", Takes::Bool),
            ("unpack", Takes::Bool),
        ],
    )?;
    Ok(Add {
        paths: sources_and_dest(node, "ADD")?,
        chown: flags.text_or_empty("chown"),
        chmod: flags.text_or_empty("chmod"),
        link: flags.bool("link").unwrap_or(false),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.text_or_empty("checksum"),
        unpack: flags.bool("unpack"),
        exclude: flags.texts("exclude").map(String::from).collect(),
    })
}

fn expose(node: &Node) -> Result<Vec<String>, String> {
    if node.arguments.values.is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    no_flags(node)?;
    let mut ports = node.arguments.values.clone();
    ports.sort();
    Ok(ports)
}

fn volume(node: &Node) -> Result<Vec<String>, String> {
    if node.arguments.values.is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    no_flags(node)?;
    let volumes = node
        .arguments
        .values
        .iter()
        .map(|volume| match volume.trim() {
            "" => Err("VOLUME specified can not be an empty string".to_string()),
            volume => Ok(volume.to_string()),
        });
    volumes.collect()
}

fn shell(node: &Node) -> Result<Vec<String>, String> {
    no_flags(node)?;
    if node.arguments.values.is_empty() {
        return Err(at_least_one("SHELL"));
    }
    if !node.arguments.json {
        return Err("SHELL requires the arguments to be in JSON form".into());
    }
    Ok(node.arguments.values.clone())
}

/// The text of the instruction that is to run later, heredoc bodies included.
fn onbuild(node: &Node) -> Result<String, String> {
    let Some(trigger) = &node.trigger else {
        return Err(at_least_one("ONBUILD"));
    };
    no_flags(node)?;
    match trigger.keyword.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into());
        }
        name @ ("MAINTAINER" | "FROM") => {
            return Err(format!("{name} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let text = node.original.trim_start();
    let mut text = text[node.keyword.len()..].trim_start().to_string();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn healthcheck(node: &Node) -> Result<Healthcheck, String> {
    let Some((kind, arguments)) = node.arguments.values.split_first() else {
        return Err(at_least_one("HEALTHCHECK"));
    };
    let flags = Flags::parse(
        &node.flags,
        &[
            ("interval", Takes::Text),
            ("retries", Takes::Text),
            ("start-interval", Takes::Text),
            ("start-period", Takes::Text),
            ("timeout", Takes::Text),
        ],
    )?;
    let test = match kind.to_uppercase().as_str() {
        "NONE" if !arguments.is_empty() => {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        "NONE" => {
            return Ok(Healthcheck {
                test: vec!["NONE".into()],
                ..Healthcheck::default()
            });
        }
        "CMD" if arguments.is_empty() => {
            return Err("Missing command after HEALTHCHECK CMD".into());
        }
        "CMD" => {
            let json = node.arguments.json;
            let first = if json { "CMD" } else { "CMD-SHELL" };
            let command = json_or_joined(arguments, json);
            std::iter::once(first.to_string()).chain(command).collect()
        }
        other => {
            return Err(format!(
                "Unknown type {} in HEALTHCHECK (try CMD)",
                quote(other)
            ));
        }
    };
    Ok(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(flags.text("retries").unwrap_or_default())?,
    })
}

/// At least a millisecond, or nothing.
fn interval(flags: &Flags, name: &str) -> Result<std::time::Duration, String> {
    let text = flags.text(name).unwrap_or_default();
    if text.is_empty() {
        return Ok(std::time::Duration::ZERO);
    }
    let (sign, duration) = duration::parse(text)?;
    let too_short = sign == Sign::Minus || duration < std::time::Duration::from_millis(1);
    if too_short && !duration.is_zero() {
        return Err(format!("Interval {} cannot be less than 1ms", quote(name)));
    }
    Ok(duration)
}

fn retries(text: &str) -> Result<u32, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<i32>() {
        Ok(number) => {
            u32::try_from(number).map_err(|_| format!("--retries cannot be negative ({number})"))
        }
        Err(error) => {
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!("strconv.ParseInt: parsing {}: {why}", quote(text)))
        }
    }
}
