//! Searching a registry. Source: docker/cli `cli/command/registry/search.go`, `formatter_search.go`.

use super::ps::ellipsis;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use agent_api::client::credentials::{ConfigFile, server_of};
use clap::Args;

/// Search Docker Hub for images
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster search --filter is-official=true redis")]
pub(crate) struct SearchArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Max number of search results
    #[arg(long)]
    limit: Option<i64>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Word to look for; HOST/WORD asks another registry
    term: String,
}

const TITLES: rows::Titles = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

pub(crate) async fn run(session: &Session, args: SearchArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let login = ConfigFile::load()?.get(&server_of(&args.term)).await?;
    let auth = login.map(|login| login.to_header());
    let found = session
        .client()
        .await?
        .search_images(&args.term, args.limit, &filters, auth.as_ref())
        .await?;
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "Name",
        table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        titles: TITLES,
    };
    let ok = |yes: bool| if yes { "[OK]" } else { "" };
    let row = |image: agent_api::ImageSearchResult| {
        let description = image.description.replace(['\n', '\r'], " ");
        Row::new()
            .with("Name", image.name)
            .with(
                "Description",
                match args.no_trunc {
                    true => description,
                    false => ellipsis(&description, 45),
                },
            )
            .with("StarCount", image.star_count.to_string())
            .with("IsOfficial", ok(image.is_official))
            .with("IsAutomated", ok(image.is_automated))
    };
    let rows = found.into_iter().map(row).collect();
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}
