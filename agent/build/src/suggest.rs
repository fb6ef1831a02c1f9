//! "did you mean": the nearest of some names. Follows BuildKit's `util/suggest`.

/// Names further away than this many edits are not suggested.
const MAX_DISTANCE: usize = 2;

/// Whether upper and lower case differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// They do.
    Matters,
    /// They do not; the suggestion takes the case of what was written.
    Ignored,
}

/// The option nearest to `written`, unless one is equal to it. The first of several equally near ones.
pub(crate) fn nearest<'a>(
    written: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: Case,
) -> Option<String> {
    let folded = match case {
        Case::Matters => written.to_string(),
        Case::Ignored => written.to_lowercase(),
    };
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = match case {
            Case::Matters => option.to_string(),
            Case::Ignored => option.to_lowercase(),
        };
        if option == folded {
            return None;
        }
        let nearer_than = best.as_ref().map_or(MAX_DISTANCE + 1, |(near, _)| *near);
        let distance = distance(&folded, &option);
        if distance < nearer_than {
            best = Some((distance, option));
        }
    }
    let (_, found) = best?;
    Some(match case {
        Case::Matters => found,
        Case::Ignored if written == written.to_lowercase() => found.to_lowercase(),
        Case::Ignored if written == written.to_uppercase() => found.to_uppercase(),
        Case::Ignored => found,
    })
}

/// The message, with ` (did you mean X?)` when there is something near.
pub(crate) fn with_suggestion<'a>(
    message: String,
    written: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: Case,
) -> String {
    match nearest(written, options, case) {
        Some(found) => format!("{message} (did you mean {found}?)"),
        None => message,
    }
}

/// Edits (insert, delete, replace) between two words. Words that differ too much in length are not compared.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let difference = a.len().abs_diff(b.len());
    if difference > MAX_DISTANCE {
        return difference;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y))
                .min(above + 1)
                .min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_in_the_case_of_the_writer() {
        let options = ["from", "run", "copy", "arg"];
        let near = |word, case| nearest(word, options, case);
        assert_eq!(near("FORM", Case::Ignored).as_deref(), Some("FROM"));
        assert_eq!(near("frmo", Case::Ignored).as_deref(), Some("from"));
        assert_eq!(near("RUM", Case::Matters), None);
        assert_eq!(near("rum", Case::Matters).as_deref(), Some("run"));
        assert_eq!(near("run", Case::Matters), None);
        assert_eq!(near("entrypoint", Case::Ignored), None);
    }
}
