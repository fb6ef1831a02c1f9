//! Addresses as they may be shown: names of steps, lines of the history and records are read by others than who wrote the
//! address.
//!
//! Must not: be used on what an address is needed for. Follows BuildKit's `util/urlutil.RedactCredentials`, which knows
//! user and password; what signs an address (`?X-Amz-Signature=…`) is hidden, too.

use std::borrow::Cow;

/// What stands in the place of something secret.
const HIDDEN: &str = "xxxxx";
/// A parameter of an address is secret when its name has one of these in it, in any case.
const SECRET_PARTS: [&str; 10] = [
    "auth", "cred", "jwt", "key", "pass", "pwd", "secret", "sig", "token", "sas",
];

/// The text with the addresses in it (`scheme://…`, also inside of an instruction) free of user, password and parameters
/// that look like credentials.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = rest.split_at(at + "://".len());
        out.push_str(scheme);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        // The next address in the same word is the next round's.
        let end = after[..end].find("://").unwrap_or(end);
        let (address, next) = after.split_at(end);
        push_redacted(&mut out, address);
        rest = next;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// An address behind its scheme.
fn push_redacted(out: &mut String, address: &str) {
    let authority_end = address.find(['/', '\\', '?', '#']).unwrap_or(address.len());
    let (authority, rest) = address.split_at(authority_end);
    // The last one: an unescaped `@` may be part of a password.
    match authority.rsplit_once('@') {
        None => out.push_str(authority),
        Some((user, host)) => {
            out.push_str(HIDDEN);
            if user.contains(':') {
                out.push(':');
                out.push_str(HIDDEN);
            }
            out.push('@');
            out.push_str(host);
        }
    }
    let Some((path, query)) = rest.split_once('?') else {
        out.push_str(rest);
        return;
    };
    out.push_str(path);
    let query_end = query.find(['#', '"', '\'']).unwrap_or(query.len());
    let (query, tail) = query.split_at(query_end);
    for (number, parameter) in query.split('&').enumerate() {
        out.push(if number == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(HIDDEN);
            }
            _ => out.push_str(parameter),
        }
    }
    out.push_str(tail);
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_hidden_and_the_rest_is_as_it_was() {
        for (given, shown) in [
            ("no address at all", "no address at all"),
            ("https://example.com/a?b=c#d", "https://example.com/a?b=c#d"),
            (
                "https://user:token@example.com/a.git#main:dir",
                "https://xxxxx:xxxxx@example.com/a.git#main:dir",
            ),
            ("https://token@host", "https://xxxxx@host"),
            ("https://u:p@ss@host/a@b", "https://xxxxx:xxxxx@host/a@b"),
            ("git://h/r?x=u:p@y", "git://h/r?x=u:p@y"),
            (
                "https://b/o?X-Amz-Date=1&X-Amz-Signature=abc&X-Amz-Credential=k%2F1#f",
                "https://b/o?X-Amz-Date=1&X-Amz-Signature=xxxxx&X-Amz-Credential=xxxxx#f",
            ),
            ("https://b/o?sv=1&sig=a%2Bb", "https://b/o?sv=1&sig=xxxxx"),
            ("https://b/o?token", "https://b/o?token"),
            (
                "[2/3] ADD --link https://u:p@h/f https://h/g?private_token=x /to/",
                "[2/3] ADD --link https://xxxxx:xxxxx@h/f https://h/g?private_token=xxxxx /to/",
            ),
            (
                r#"ADD ["https://u:p@h/f?key=1","/to"]"#,
                r#"ADD ["https://xxxxx:xxxxx@h/f?key=xxxxx","/to"]"#,
            ),
            (
                "http://a:b@h,http://c:d@i",
                "http://xxxxx:xxxxx@h,http://xxxxx:xxxxx@i",
            ),
            ("://u:p@h ü://ä@ö", "://xxxxx:xxxxx@h ü://xxxxx@ö"),
        ] {
            assert_eq!(redacted(given), shown, "{given}");
        }
    }
}
