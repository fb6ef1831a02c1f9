//! Columns as Go's tabwriter lays them out for Docker: at least ten wide, three spaces between, the last one free.

use unicode_width::UnicodeWidthStr;

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lays out lines whose cells are separated by tabs. The width of a column is that of its longest cell over all lines
/// that have a further column after it.
pub(crate) fn align(lines: &[String]) -> String {
    align_with(lines, MIN_WIDTH)
}

/// Same with another least width of a column.
pub(crate) fn align_with(lines: &[String], min_width: usize) -> String {
    lay_out(lines, min_width, PADDING)
}

/// Same with columns as narrow as they can be, and other spaces between.
pub(crate) fn align_padded(lines: &[String], padding: usize) -> String {
    lay_out(lines, 0, padding)
}

/// Lays out lines whose cells are separated by tabs, with tabs that end at every eighth column.
pub(crate) fn align_tabbed(lines: &[String]) -> String {
    const TAB: usize = 8;
    let rows: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut ends = vec![0; columns];
    for row in &rows {
        for (end, cell) in ends.iter_mut().zip(&row[..row.len() - 1]) {
            *end = (*end).max((cell.width() + 1).div_ceil(TAB));
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                out.extend(std::iter::repeat_n('\t', ends[column] - cell.width() / TAB));
            }
        }
        out.push('\n');
    }
    out
}

fn lay_out(lines: &[String], min_width: usize, padding: usize) -> String {
    let rows: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![min_width; columns];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row[..row.len() - 1]) {
            *width = (*width).max(cell.width() + padding);
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                out.extend(std::iter::repeat_n(
                    ' ',
                    widths[column].saturating_sub(cell.width()),
                ));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{align, align_tabbed};

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let lines = [
            "CONTAINER ID\tIMAGE\tNAMES",
            "0123456789ab\tbusybox\tweb",
            "x\ta-rather-long-name\tdb",
        ];
        let expected = "CONTAINER ID   IMAGE                NAMES\n\
                        0123456789ab   busybox              web\n\
                        x              a-rather-long-name   db\n";
        assert_eq!(align(&lines.map(str::to_owned)), expected);
        assert_eq!(align(&["ID\tX".to_owned()]), "ID        X\n");
        assert_eq!(align(&[]), "");
    }

    #[test]
    fn tabs_end_at_every_eighth_column() {
        // As buildx lists variables.
        let lines = [
            "VARIABLE\tTYPE\tVALUE\tDESCRIPTION",
            "A\t\tx\t",
            "C\tlist of string\t[]\tc",
        ];
        assert_eq!(
            align_tabbed(&lines.map(str::to_owned)),
            "VARIABLE\tTYPE\t\tVALUE\tDESCRIPTION\nA\t\t\t\tx\t\nC\t\tlist of string\t[]\tc\n"
        );
    }
}
