//! Every flag that Docker 28.5.2, buildx 0.29.1 and Compose 2.40.3 list in their help for images and builds is here, too:
//! understood, or refused by name. The list beside this file was taken from their `--help`.

use super::{Line, as_pflag, with_help};
use clap::{Arg, Command, CommandFactory as _};

const LISTED: &str = include_str!("docker-28.5-flags.txt");

/// A flag as Docker's help has it.
struct Flag<'a> {
    short: Option<char>,
    long: &'a str,
    takes_value: bool,
}

/// The commands with their flags.
fn listed() -> Vec<(&'static str, Vec<Flag<'static>>)> {
    let mut commands: Vec<(&str, Vec<Flag<'_>>)> = Vec::new();
    for line in LISTED.lines() {
        if let Some(command) = line.strip_prefix("@ ") {
            commands.push((command, Vec::new()));
            continue;
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let short = words.next().and_then(|word| word.strip_prefix('-'));
        let flag = Flag {
            short: short.and_then(|short| short.chars().find(|letter| *letter != '-')),
            long: words.next().unwrap().strip_prefix("--").unwrap(),
            takes_value: words.next().is_some(),
        };
        commands.last_mut().unwrap().1.push(flag);
    }
    commands
}

/// A verb that is refused takes whatever follows it, and says that it is not supported.
fn is_refused(command: &Command) -> bool {
    let mut arguments = command.get_positionals();
    arguments.any(Arg::is_trailing_var_arg_set) && command.is_hide_set()
}

fn find<'a>(command: &'a Command, flag: &Flag<'_>) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long() == Some(flag.long) || aliases.contains(&flag.long)
    })
}

/// What is wrong with a command's flag, if something is.
fn problem(command: &Command, flag: &Flag<'_>) -> Option<String> {
    let Some(arg) = find(command, flag) else {
        return Some("is not known".to_owned());
    };
    if flag.short != arg.get_short() && flag.short.is_some() {
        return Some(format!("has the short form {:?}", arg.get_short()));
    }
    // A boolean of ours may be given a value after `=`, as pflag's.
    let takes_value = arg.get_action().takes_values();
    let optional = arg
        .get_num_args()
        .is_some_and(|count| count.min_values() == 0);
    match (flag.takes_value, takes_value) {
        (true, false) => Some("takes no value".to_owned()),
        (false, true) if !optional => Some("takes a value".to_owned()),
        _ => None,
    }
}

#[test]
fn every_flag_of_dockers_is_understood_or_refused() {
    let mut root = as_pflag(with_help(Line::command()));
    // Flags of groups that count for all below them.
    root.build();
    let mut problems = Vec::new();
    let mut seen = 0;
    for (path, flags) in listed() {
        let mut command = &root;
        for word in path.split(' ') {
            match command.find_subcommand(word) {
                Some(below) => command = below,
                None if is_refused(command) => break,
                None => {
                    problems.push(format!("{path}: there is no such command"));
                    break;
                }
            }
        }
        if is_refused(command) {
            continue;
        }
        for flag in &flags {
            seen += 1;
            if let Some(problem) = problem(command, flag) {
                problems.push(format!("{path} --{}: {problem}", flag.long));
            }
        }
    }
    assert!(seen > 200, "the list has only {seen} flags");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
