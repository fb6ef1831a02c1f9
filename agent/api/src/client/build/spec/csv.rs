//! `key=value,key=value`: one line of comma-separated values as Go's `encoding/csv` reads it, with `=` in its fields.

/// Fields with their keys in lower case; a field without `=` has no value.
///
/// # Errors
/// A quote is not closed or stands in the middle of a field.
pub fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let fields = values(text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_owned(), None),
        });
    Ok(fields.collect())
}

/// The values of a line, as they are.
///
/// # Errors
/// A quote is not closed or stands in the middle of a value.
pub fn values(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(
                        "a quote in the middle of a field: quote the whole field".to_owned()
                    );
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("something follows a closing quote".to_owned()),
        }
    }
}

/// A field up to its closing quote, and what follows.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a quote is not closed")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_go() {
        let read = |text| {
            fields(text)
                .unwrap()
                .into_iter()
                .map(|(key, value)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => key,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(read("type=local,dest=a b"), ["type=local", "dest=a b"]);
        assert_eq!(
            read("Type=image,\"name=a,b\",push=true"),
            ["type=image", "name=a,b", "push=true"]
        );
        assert_eq!(read("\"a=\"\"q\"\"\""), ["a=\"q\""]);
        assert_eq!(read("out"), ["out"]);
        assert_eq!(read("a=b=c"), ["a=b=c"]);
        for bad in ["\"a", "a\"b", "\"a\"b"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
