//! Lists: a table with titles, or each row through a template. Source: docker/cli `cli/command/formatter/formatter.go`.

use super::table;
use super::template::{Row, Template, TemplateError, Value};

/// Titles of a list's fields, by field name.
pub(crate) type Titles = &'static [(&'static str, &'static str)];

/// How a list is to be shown.
pub(crate) struct Format<'a> {
    /// `--format` as given.
    pub(crate) flag: Option<&'a str>,
    /// Only ids or names.
    pub(crate) quiet: bool,
    /// The field `quiet` shows.
    pub(crate) quiet_field: &'static str,
    /// Template of the table that is shown without `--format`, its cells separated by tabs.
    pub(crate) table: &'a str,
    pub(crate) titles: Titles,
}

/// The text of a list.
pub(crate) fn render(format: &Format<'_>, rows: Vec<Row>) -> Result<String, TemplateError> {
    let flag = format.flag.unwrap_or("table");
    let (is_table, template) = match flag.trim() {
        "table" | "" if format.quiet => (false, format!("{{{{.{}}}}}", format.quiet_field)),
        "table" | "" => (true, format.table.to_owned()),
        "json" => (false, "{{json .}}".to_owned()),
        custom => match custom.strip_prefix("table") {
            Some(rest) if rest.starts_with(char::is_whitespace) => (true, unescape(rest.trim())),
            _ => (false, unescape(custom)),
        },
    };
    let template = Template::parse(&template)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if is_table {
        let titles = format
            .titles
            .iter()
            .fold(Row::header(), |row, &(name, title)| row.with(name, title));
        lines.push(template.render_header(&titles.into())?);
    }
    for row in rows {
        lines.push(template.render(&Value::from(row))?);
    }
    if is_table {
        return Ok(table::align(&lines));
    }
    Ok(lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect())
}

/// Shells pass `\t` and `\n` as two characters; Docker turns them into one.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(flag: Option<&str>, quiet: bool) -> String {
        let format = Format {
            flag,
            quiet,
            quiet_field: "ID",
            table: "{{.ID}}\t{{.Name}}",
            titles: &[("ID", "NETWORK ID"), ("Name", "NAME")],
        };
        let row = |id: &str, name: &str| Row::new().with("ID", id).with("Name", name);
        render(&format, vec![row("1", "one"), row("2", "two")]).unwrap()
    }

    #[test]
    fn lists_are_tables_templates_json_or_ids() {
        assert_eq!(
            show(None, false),
            "NETWORK ID   NAME\n1            one\n2            two\n"
        );
        assert_eq!(show(None, true), "1\n2\n");
        assert_eq!(
            show(Some("json"), true),
            "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n"
        );
        assert_eq!(show(Some("{{.Name}}:{{.ID}}"), true), "one:1\ntwo:2\n");
        assert_eq!(
            show(Some(r"table {{.Name}}\t{{upper .ID}}"), false),
            "NAME      NETWORK ID\none       1\ntwo       2\n"
        );
    }
}
