//! Verbs of Docker Compose that have nothing behind them: each says what to do instead.

use crate::failure::{Failure, Outcome};
use crate::verbs::refused::Rest;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RefusedVerb {
    /// Watch build context (not there)
    #[command(hide = true)]
    Watch(Rest),
    /// Attach to a service's container (not there)
    #[command(hide = true)]
    Attach(Rest),
    /// Resource usage (not there)
    #[command(hide = true)]
    Stats(Rest),
    /// A container's file system as an archive (not there)
    #[command(hide = true)]
    Export(Rest),
    /// An image of a container (not there)
    #[command(hide = true)]
    Commit(Rest),
    /// A project in a registry (not there)
    #[command(hide = true)]
    Publish(Rest),
    /// A project as files of another orchestrator (not there)
    #[command(hide = true)]
    Bridge(Rest),
    /// Experiments of Docker Compose (not there)
    #[command(hide = true, alias = "alpha")]
    Experimental(Rest),
}

pub(crate) fn run(verb: &RefusedVerb) -> Outcome {
    let (name, reason) = match verb {
        RefusedVerb::Watch(_) => ("watch", "run \"muster compose up --build\" after a change"),
        RefusedVerb::Attach(_) => ("attach", "use \"muster attach CONTAINER\""),
        RefusedVerb::Stats(_) => ("stats", "use \"muster stats CONTAINER\""),
        RefusedVerb::Export(_) => ("export", "use \"muster export CONTAINER\""),
        RefusedVerb::Commit(_) => ("commit", "use \"muster commit CONTAINER IMAGE\""),
        RefusedVerb::Publish(_) => (
            "publish",
            "\"muster bundle\" writes the project with its images into one archive, which \"muster up\" takes",
        ),
        RefusedVerb::Bridge(_) => (
            "bridge",
            "\"muster compose config\" prints the whole project for other tools",
        ),
        RefusedVerb::Experimental(_) => (
            "alpha",
            "of what is there, nothing is an experiment: see \"muster compose --help\"",
        ),
    };
    Err(Failure::new(1, format!("compose {name} is not supported: {reason}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        verb: RefusedVerb,
    }

    #[test]
    fn every_verb_is_refused_by_its_name() {
        let names = Line::command();
        let names = names.get_subcommands().map(|verb| {
            let alias = verb.get_all_aliases().next();
            alias.unwrap_or(verb.get_name()).to_owned()
        });
        for name in names {
            let line = Line::try_parse_from(["compose", &name, "--flag", "x"]).unwrap();
            let told = run(&line.verb).unwrap_err().to_string();
            let begins = format!("compose {name} is not supported: ");
            assert!(
                told.starts_with(&begins) && told.len() > begins.len(),
                "{told}"
            );
        }
    }
}
