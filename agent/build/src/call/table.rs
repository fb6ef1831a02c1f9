//! Columns as Go's `text/tabwriter` aligns them.

/// Rows of cells; all but the last cell of a row are padded to their column's width and `padding` more.
pub(super) fn aligned(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + padding
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(row.len().saturating_sub(1)) {
            out.push_str(&format!("{cell:width$}"));
        }
        out.push_str(row.last().unwrap_or(&""));
        out.push('\n');
    }
    out
}
