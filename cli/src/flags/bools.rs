//! Makes clap read flags as Go's pflag does: `--rm=false` is legal, the last one of several wins, and the word after an
//! option is its value even when it begins with a dash.

use clap::builder::TypedValueParser;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsStr;

/// Rewrites a command and all below it.
pub(crate) fn as_pflag(command: Command) -> Command {
    let command = command
        .args_override_self(true)
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => boolean(arg),
            ArgAction::Set | ArgAction::Append
                if !arg.is_positional() && !arg.is_require_equals_set() =>
            {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        });
    command.mut_subcommands(as_pflag)
}

fn boolean(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .value_parser(GoBool)
}

/// `strconv.ParseBool`.
pub(crate) fn parse(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[derive(Clone)]
struct GoBool;

impl TypedValueParser for GoBool {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<bool, clap::Error> {
        value.to_str().and_then(parse).ok_or_else(|| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            let text = format!(
                "invalid boolean value {:?} for {name}: write true or false\n",
                value.to_string_lossy()
            );
            clap::Error::raw(clap::error::ErrorKind::InvalidValue, text).with_cmd(command)
        })
    }
}
