//! The way through a SOCKS proxy: version 5 (RFC 1928), with user and password where the proxy wants them (RFC 1929). Names
//! are looked up by the proxy, as with Go, which has it so for `socks5://` and `socks5h://` alike.

use std::io;
use std::net::IpAddr;

use http::Uri;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
/// Ways of logging in.
const NONE: u8 = 0;
const PASSWORD: u8 = 2;
/// Version of the exchange of user and password.
const PASSWORD_VERSION: u8 = 1;
/// Kinds of addresses.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Who a proxy's user is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// Asks a proxy to pass bytes on to `uri` from now on.
///
/// # Errors
/// It refuses, or breaks the protocol; the text says which.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    uri: &Uri,
    login: Option<&Login>,
) -> io::Result<()> {
    let ways: &[u8] = match login {
        None => &[NONE],
        Some(_) => &[NONE, PASSWORD],
    };
    let count = u8::try_from(ways.len()).expect("there are two");
    stream
        .write_all(&[&[VERSION, count], ways].concat())
        .await?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    match (reply, login) {
        ([VERSION, NONE], _) => {}
        ([VERSION, PASSWORD], Some(login)) => log_in(stream, login).await?,
        ([VERSION, _], None) => return Err(failed("it wants a user and a password")),
        ([VERSION, _], Some(_)) => return Err(failed("it wants another way of logging in")),
        _ => return Err(failed("it does not speak SOCKS 5")),
    }
    stream.write_all(&request(uri)?).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [VERSION, outcome, _, kind] = head else {
        return Err(failed("it does not speak SOCKS 5"));
    };
    if outcome != 0 {
        let host = uri.host().unwrap_or_default();
        let why = why(outcome);
        return Err(failed(&format!("it does not connect to {host}: {why}")));
    }
    // Where it connects from, which nobody needs to know.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        _ => return Err(failed("it does not speak SOCKS 5")),
    };
    let mut address = vec![0; length + 2];
    stream.read_exact(&mut address).await?;
    Ok(())
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: &Login,
) -> io::Result<()> {
    let mut message = vec![PASSWORD_VERSION];
    for word in [&login.user, &login.password] {
        message.push(length(word)?);
        message.extend_from_slice(word.as_bytes());
    }
    stream.write_all(&message).await?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    match reply {
        [_, 0] => Ok(()),
        _ => Err(failed("it refuses the user and the password")),
    }
}

fn request(uri: &Uri) -> io::Result<Vec<u8>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.extend_from_slice(&[NAME, length(host)?]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

fn length(word: &str) -> io::Result<u8> {
    u8::try_from(word.len()).map_err(|_| failed("a name or password is longer than 255 bytes"))
}

fn why(outcome: u8) -> &'static str {
    match outcome {
        2 => "its rules forbid it",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "it took too long",
        7 | 8 => "it cannot do that",
        _ => "general failure",
    }
}

fn failed(reason: &str) -> io::Error {
    io::Error::other(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy that answers with these bytes, whatever it is sent; what it was sent, and how it went.
    async fn ask(
        uri: &str,
        login: Option<&Login>,
        answers: &[u8],
    ) -> (Vec<u8>, Result<(), String>) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(answers).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = open(&mut ours, &uri.parse().unwrap(), login).await;
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        (sent, opened.map_err(|error| error.to_string()))
    }

    fn login() -> Login {
        Login {
            user: "me".to_owned(),
            password: "pass".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_name_or_an_address() {
        let open = b"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50";
        for (uri, asked) in [
            ("https://r.test/v2/", &b"\x03\x06r.test\x01\xbb"[..]),
            ("http://r.test:5000/", b"\x03\x06r.test\x13\x88"),
            ("http://192.0.2.1/", b"\x01\xc0\x00\x02\x01\x00\x50"),
            (
                "https://[2001:db8::1]:444/",
                b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbc",
            ),
        ] {
            let (sent, opened) = ask(uri, None, open).await;
            assert_eq!(opened, Ok(()), "{uri}");
            assert_eq!(sent, [b"\x05\x01\x00\x05\x01\x00", asked].concat(), "{uri}");
        }
        // Its own address as a name, or of the newer kind.
        for bound in [
            &b"\x03\x02ab\0\0"[..],
            b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            let answers = [b"\x05\x00\x05\x00\x00", bound].concat();
            let (_, opened) = ask("http://r.test/", None, &answers).await;
            assert_eq!(opened, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_proxy_gets_the_password_if_it_wants_one() {
        let answers = b"\x05\x02\x01\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50";
        let (sent, opened) = ask("http://r.test/", Some(&login()), answers).await;
        assert_eq!(opened, Ok(()));
        assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x02me\x04pass\x05\x01\x00\x03"));
        let (sent, _) = ask("http://r.test/", Some(&login()), b"\x05\x00").await;
        assert!(!sent.windows(4).any(|window| window == b"pass"));
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told() {
        let login = login();
        for (login, answers, told) in [
            (None, &b"\x05\xff"[..], "it wants a user and a password"),
            (Some(&login), b"\x05\xff", "another way of logging in"),
            (
                Some(&login),
                b"\x05\x02\x01\x01",
                "refuses the user and the password",
            ),
            (
                None,
                b"\x05\x00\x05\x05\x00\x01",
                "r.test: connection refused",
            ),
            (None, b"\x05\x00\x05\x02\x00\x01", "its rules forbid it"),
            (None, b"HTTP/1.1 400", "does not speak SOCKS 5"),
            (None, b"\x05\x00\x05\x00\x00\x09", "does not speak SOCKS 5"),
        ] {
            let (_, opened) = ask("http://r.test/", login, answers).await;
            let error = opened.unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
